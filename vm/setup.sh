#!/bin/sh
# Installs what the course needs besides Rust: setup.sh [--dry-run] [--browser]
#
# On Debian and its relatives through apt-get, as root or with sudo. Elsewhere it
# says which packages to install. What is there already is left alone. A browser
# is needed only to look at the pages of the book, ./just book-look; with it come
# the programs by which ./just test measures, and the engines whose calls of our
# runtime it checks.
set -eu

say() { printf 'setup: %s\n' "$*"; }

dry= browser=
for argument; do
	case $argument in
	--dry-run) dry=yes ;;
	--browser) browser=yes ;;
	*)
		sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p}' "$0"
		exit 2
		;;
	esac
done

case $(uname -m) in
x86_64) qemu=qemu-system-x86 ;;
aarch64) qemu=qemu-system-arm ;;
*)
	say "no virtual machine for $(uname -m): the checks run with --here only, as root"
	exit 1
	;;
esac

if ! command -v apt-get >/dev/null; then
	say 'not Debian, nor a relative of it. Install, under the names they have here:'
	say "  QEMU for $(uname -m), busybox linked statically, a C compiler with the static C library,"
	say '  newuidmap (shadow-utils, uidmap)'
	say 'The kernel then has to come from here: give --kernel host or --kernel FILE to the commands.'
	exit 1
fi

# Each package, and what tells that it is there.
missing=
need() { # PACKAGE COMMAND…
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}
static_busybox() { path=$(command -v busybox) && ! ldd "$path"; }
need "$qemu" command -v "qemu-system-$(uname -m)"
need busybox-static static_busybox
need gcc command -v cc
need libc6-dev test -e "/usr/lib/$(uname -m)-linux-gnu/libc.a"
need mmdebstrap command -v mmdebstrap
need uidmap command -v newuidmap
[ -z "$browser" ] || need chromium command -v chromium
[ -z "$browser" ] || need hyperfine command -v hyperfine # the bench, which only tests run unasked
[ -z "$browser" ] || need strace command -v strace
# Engines for the runtime of step 11 and the registries of step 13: 300 MB, which
# only ./just test needs.
[ -z "$browser" ] || need podman command -v podman
[ -z "$browser" ] || need conmon command -v conmon
[ -z "$browser" ] || need containerd command -v containerd
[ -z "$browser" ] || need docker.io command -v dockerd
[ -z "$browser" ] || need iptables command -v iptables
[ -z "$browser" ] || need openssl command -v openssl
[ -z "$browser" ] || need iproute2 command -v ip
# Images made by others, for the checks of step 09.
need skopeo command -v skopeo
need umoci command -v umoci
need buildah command -v buildah
# A registry, for the checks of step 13.
need docker-registry command -v docker-registry
# Archives as contexts, for the checks of step 14.
need bzip2 command -v bzip2
need xz-utils command -v xz

if [ -z "$missing" ]; then
	say 'everything is there'
else
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	say "installing:$missing"
	say "with:       $sudo apt-get install --no-install-recommends$missing"
	if [ -n "$sudo" ] && ! command -v sudo >/dev/null; then
		say 'there is no sudo: run this as root'
		exit 1
	fi
	if [ -z "$dry" ]; then
		$sudo apt-get update -qq
		# shellcheck disable=SC2086 # words
		$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
		say 'done'
	fi
fi
command -v cargo >/dev/null || say 'Rust is missing: install it with rustup (the package of that name, where there is one)'
