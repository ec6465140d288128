#!/bin/sh
# This workload for a machine of 1993: `pentium.sh FOLDER` makes a copy of it in FOLDER that `kprune run FOLDER` runs on
# QEMU's pentium. Debian's i386 programs need a Pentium Pro (cmov), so busybox and dropbear are built (../i586.sh).
set -e

[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
folder=$1
here=$(cd "$(dirname "$0")" && pwd)
programs=$(sh "$here/../i586.sh" busybox dropbear dbclient)

mkdir -p "$folder"
cp -R "$here/." "$folder"
cp $programs "$folder/files/"
sed -e 's/^arch = .*/arch = "i386"/' -e 's/^name = "micro"/name = "micro-pentium"/' \
	-e 's/^\[on\.i386\]/&\ncpu = "pentium"\nbusybox = "files\/busybox"/' \
	-e '/^packages = /d; /^# What of the packages/d; /^omit = /d' "$here/workload.toml" >"$folder/workload.toml"
cat >>"$folder/workload.toml" <<END

[[rootfs.file]]
source = "files/dropbear"
target = "/usr/sbin/dropbear"
mode = "0755"

[[rootfs.file]]
source = "files/dbclient"
target = "/usr/bin/dbclient"
mode = "0755"
END
echo "next: kprune run $folder" >&2
