#!/bin/sh
# Programs for 32 bits that ask little of a machine: `i586.sh PROGRAM...` builds what is not there yet of `busybox`, `dropbear`,
# `dbclient`, and `busybox:FILE`, a busybox of which only the options in FILE are on; and prints where each of them is. They
# run on a Pentium of 1993. From Debian's sources with musl, by the gcc that builds kernels; what is built stays in the cache.
set -e

[ $# -gt 0 ] || { echo "usage: $0 PROGRAM..." >&2; exit 2; }
home=${KPRUNE_CACHE:-$HOME/.cache/kprune}/i586
jobs=$(nproc)

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
	: >fetched
}

unpack() { # source
	rm -rf $1
	mkdir $1
	tar -xf "$(ls $1_*.orig.tar.* | grep -v '\.asc$')" -C $1 --strip-components=1
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
	unpack musl
	(
		cd musl
		CC="gcc $flags" ./configure --target=i386 --disable-shared --prefix="$PWD/../sys"
		make -j"$jobs" CROSS_COMPILE= install
	)
	gcc $flags -Os -fno-stack-protector -c div64.c
	ar rcs sys/lib/libdiv64.a div64.o
	# The kernel's own headers are those of the host: x86 has one set for 32 and 64 bits.
	for name in linux asm-generic mtd; do
		ln -sfn /usr/include/$name sys/include/$name
	done
	ln -sfn "/usr/include/$(gcc -print-multiarch)/asm" sys/include/asm
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
	printf '#!/bin/sh\nexec gcc %s -specs=%s -no-pie -fno-pie "$@"\n' "$flags" "$PWD/specs" >cc.new
	chmod +x cc.new
	mv cc.new cc
}

# An option that busybox does not know, or that needs another, is off after all.
check() { # file of options or nothing
	[ -z "$1" ] || ! grep '^CONFIG_' "$1" | grep -vxFf .config || { echo "busybox does not have these options"; false; }
}

busybox() { # target, file of options or nothing for all that are on by default
	unpack busybox
	(
		cd busybox
		if [ "$2" ]; then
			make allnoconfig
			sed -n 's/^\(CONFIG_[A-Z0-9_]*\)=\(.*\)/s,^# \1 is not set,\1=\2,/p' "$2" >wanted.sed
			sed -i -f wanted.sed .config
		else
			make defconfig
			sed -i 's/^\(CONFIG_FEATURE_MOUNT_NFS\)=y/# \1 is not set/
				s/^# CONFIG_STATIC is not set/CONFIG_STATIC=y/' .config
		fi
		yes "" | make oldconfig
		check "$2"
		make -j"$jobs" CC="$PWD/../cc" busybox
	)
	mv busybox/busybox "$1"
}

dropbear() { # target
	unpack dropbear
	(
		cd dropbear
		CC="$PWD/../cc" ./configure --host=i586-linux-musl --disable-zlib --enable-static \
			--enable-bundled-libtom --disable-lastlog --disable-utmp --disable-wtmp
		make -j"$jobs" PROGRAMS="${1##*/}" STATIC=1
	)
	mv dropbear/"${1##*/}" "$1"
}

build() { # target, program as asked for
	[ -e fetched ] || fetch
	[ -e cc ] || compiler
	case $2 in
	busybox) busybox "$1" ;;
	busybox:*) busybox "$1" "${2#*:}" ;;
	*) dropbear "$1" ;;
	esac
}

mkdir -p "$home/build"
for program; do
	case $program in
	busybox:*)
		options=$(realpath "${program#*:}")
		program=busybox:$options
		target=$home/busybox-$(cksum <"$options" | tr -dc 0-9)
		;;
	busybox | dropbear | dbclient) target=$home/$program ;;
	*) echo "$0: no program $program is built here" >&2; exit 2 ;;
	esac
	if ! [ -e "$target" ]; then
		echo "building $target (the first takes 2 minutes); log: $home/build.log" >&2
		# Not in a condition: what failed in it would be passed over.
		set +e
		(set -e; cd "$home/build"; build "$target" "$program") >"$home/build.log" 2>&1
		status=$?
		set -e
		[ $status = 0 ] || { tail -n 5 "$home/build.log" | cut -c-200 >&2; exit 4; }
	fi
	echo "$target"
done
