#!/bin/sh
# This workload for a machine of 1993: `pentium.sh FOLDER` makes a copy of it in FOLDER that `kprune run FOLDER` runs on
# QEMU's pentium. Debian's i386 programs need a Pentium Pro (cmov), so busybox and dropbear are built here, from Debian's
# sources with musl, by the gcc that builds kernels; what is built stays in the cache.
set -e

[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
folder=$1
here=$(cd "$(dirname "$0")" && pwd)
home=${KPRUNE_CACHE:-$HOME/.cache/kprune}/i586
jobs=$(nproc)
programs="busybox dropbear dbclient"

# Nothing of the host's apt is changed; its mirror and keys serve.
fetch() {
	. /etc/os-release
	mkdir -p apt/lists/partial apt/archives/partial apt/parts
	: >apt/status
	echo "deb-src ${DEBIAN_MIRROR:-http://deb.debian.org/debian} $VERSION_CODENAME main" >apt/sources.list
	set -- -q -o "Dir::State=$PWD/apt" -o "Dir::State::status=$PWD/apt/status" -o "Dir::Cache=$PWD/apt" \
		-o "Dir::Etc::sourcelist=$PWD/apt/sources.list" -o "Dir::Etc::sourceparts=$PWD/apt/parts" \
		-o Acquire::Languages=none -o APT::Sandbox::User=
	apt-get "$@" update
	apt-get "$@" source --download-only musl busybox dropbear
	for name in musl busybox dropbear; do
		mkdir $name
		tar -xf "$(ls ${name}_*.orig.tar.* | grep -v '\.asc$')" -C $name --strip-components=1
	done
}

# gcc for 32 bits has neither a C library nor one of its own here.
compiler() {
	cat >div64.c <<'END'
/* The divisions of 64 bits that gcc calls its library for. */
typedef unsigned long long u64;
typedef long long s64;

u64 __udivmoddi4(u64 number, u64 by, u64 *rest)
{
	u64 result = 0, left = 0;

	for (int bit = 63; bit >= 0; bit--) {
		left = left << 1 | (number >> bit & 1);
		if (left >= by) {
			left -= by;
			result |= (u64)1 << bit;
		}
	}
	if (rest)
		*rest = left;
	return result;
}

s64 __divmoddi4(s64 number, s64 by, s64 *rest)
{
	u64 left, result = __udivmoddi4(number < 0 ? -(u64)number : number, by < 0 ? -(u64)by : by, &left);

	if (rest)
		*rest = number < 0 ? -left : left;
	return (number < 0) != (by < 0) ? -result : result;
}

u64 __udivdi3(u64 number, u64 by) { return __udivmoddi4(number, by, 0); }
u64 __umoddi3(u64 number, u64 by) { u64 rest; __udivmoddi4(number, by, &rest); return rest; }
s64 __divdi3(s64 number, s64 by) { return __divmoddi4(number, by, 0); }
s64 __moddi3(s64 number, s64 by) { s64 rest; __divmoddi4(number, by, &rest); return rest; }
END
	flags="-m32 -march=i586 -mtune=i586"
	(cd musl && CC="gcc $flags" ./configure --target=i386 --disable-shared --prefix="$home/new/sys" &&
		make -j"$jobs" CROSS_COMPILE= install)
	gcc $flags -Os -fno-stack-protector -c div64.c
	ar rcs sys/lib/libdiv64.a div64.o
	# The kernel's own headers are those of the host: x86 has one set for 32 and 64 bits.
	for name in linux asm-generic mtd; do
		ln -s /usr/include/$name sys/include/$name
	done
	ln -s "/usr/include/$(gcc -print-multiarch)/asm" sys/include/asm
	cat >specs <<END
*cpp_options:
-nostdinc -isystem $PWD/sys/include -isystem include%s

*cc1:
%(cc1_cpu) -nostdinc -isystem $PWD/sys/include -isystem include%s

*link:
-static -m elf_i386

*startfile:
$PWD/sys/lib/crt1.o $PWD/sys/lib/crti.o

*endfile:
$PWD/sys/lib/crtn.o

*link_libgcc:
-L$PWD/sys/lib

*libgcc:
-ldiv64

*lib:
-lc

END
	printf '#!/bin/sh\nexec gcc %s -specs=%s -no-pie -fno-pie "$@"\n' "$flags" "$PWD/specs" >cc
	chmod +x cc
}

build() {
	cc=$PWD/cc
	(cd busybox && make defconfig &&
		sed -i 's/.*CONFIG_STATIC[ =].*/CONFIG_STATIC=y/; s/^\(CONFIG_FEATURE_MOUNT_NFS\)=y/# \1 is not set/' .config &&
		yes "" | make oldconfig && make -j"$jobs" CC="$cc" busybox)
	(cd dropbear && CC="$cc" ./configure --host=i586-linux-musl --disable-zlib --enable-static \
		--enable-bundled-libtom --disable-lastlog --disable-utmp --disable-wtmp &&
		make -j"$jobs" PROGRAMS="dropbear dbclient" STATIC=1)
	mv busybox/busybox dropbear/dropbear dropbear/dbclient "$home"
}

if ! (cd "$home" && ls $programs) >/dev/null 2>&1; then
	echo "building $programs for -march=i586 (3 minutes); log: $home/build.log" >&2
	rm -rf "$home/new"
	mkdir -p "$home/new"
	# A list in a condition would go on behind what failed.
	(cd "$home/new" && { (set -e; fetch; compiler; build) >"$home/build.log" 2>&1; echo $? >"$home/status"; })
	[ "$(cat "$home/status")" = 0 ] || { tail -n 5 "$home/build.log" >&2; exit 4; }
	rm -rf "$home/new"
fi

mkdir -p "$folder"
cp -R "$here/." "$folder"
for name in $programs; do
	cp "$home/$name" "$folder/files/$name"
done
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
