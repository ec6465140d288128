#!/bin/sh
# This workload with a busybox of its own, of 260 KB instead of 2 MB: `own.sh FOLDER` makes a copy of it in FOLDER for `kprune
# run FOLDER --arch i386`. Pages of programs are a third of what the smallest machine for Debian's busybox has in it.
set -e

[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
folder=$1
here=$(cd "$(dirname "$0")" && pwd)
micro=${here%/*}/micro
program=$(sh "$here/../i586.sh" "busybox:$here/busybox.config")

mkdir -p "$folder"
cp -R "$here/." "$folder"
cp "$program" "$folder/files/busybox"
sed -e "s,\.\./micro,$micro,g" -e 's/^name = "small"/name = "small-own"/' \
	-e '/^\[on\.x86_64\]/,/^$/d' -e 's/^arch = .*/arch = "i386"/' -e 's/^tight = "8704K"/tight = "6656K"/' \
	-e 's/^\[on\.i386\]/&\nbusybox = "files\/busybox"/' "$here/workload.toml" >"$folder/workload.toml"
echo "next: kprune run $folder" >&2
