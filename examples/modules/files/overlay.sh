#!/bin/sh
# Two folders, one over the other.
set -e
modprobe overlay
mkdir -p /tmp/layers
mount -t tmpfs tmpfs /tmp/layers
cd /tmp/layers
mkdir lower upper work merged
echo below >lower/kept
echo below >lower/changed
echo below >lower/removed
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
echo above >merged/changed
echo above >merged/new
rm merged/removed
[ "$(cat merged/kept merged/changed merged/new)" = "$(printf 'below\nabove\nabove')" ]
[ "$(ls merged | tr '\n' ' ')" = "changed kept new " ]
mv merged/new merged/moved
[ "$(cat lower/changed)" = below ]
umount merged
[ -e upper/moved ]
cd /
umount /tmp/layers
modprobe -r overlay
! grep '^overlay ' /proc/modules
