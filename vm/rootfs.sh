#!/bin/sh
# Builds a root file system: rootfs.sh busybox|debian|systemd|peers [--force]
#
#   busybox  2 MB: one static program with 270 names, and the files that programs
#            look for in /etc. From the package busybox-static. Never needs root.
#   debian   a Debian userland with apt, by mmdebstrap. As root with the owners
#            and modes of a real one. As an ordinary user every file belongs to
#            that user, and what changes the user in it does not work: su, login,
#            the daemons that have accounts of their own.
#   systemd  the same with systemd and D-Bus, to be started as a system of its
#            own. As root.
#   peers    no directory but the image of a disk, disk.ext4, from which the
#            virtual machine runs: a Debian with the engines that call a runtime
#            of ours, and what the suites of runc and crun need. 300 MB of packages.
#
# Packages come from where this system's own apt takes them. The result is
#   ${DRYDOCK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/drydock}/rootfs/NAME
# and its path is printed on standard output; progress goes to standard error.
# What is there is not built again without --force.
#
# It is built beside its place and moved there when it is complete: whatever
# interrupts this script, a directory with that name is a whole one.
set -eu

say() { printf 'rootfs: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

usage='usage: rootfs.sh busybox|debian|systemd|peers [--force]'
name=
force=
for argument; do
    case $argument in
        busybox | debian | systemd | peers) name=$argument ;;
        --force) force=yes ;;
        -h | --help)
            sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p}' "$0"
            exit 0
            ;;
        *) die "$argument: $usage" ;;
    esac
done
[ -n "$name" ] || die "$usage"

# Modes are those that are written here, whatever the caller's mask.
umask 022
user=$(id -u)
cache=${DRYDOCK_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or DRYDOCK_CACHE}/.cache}/drydock}
mkdir -p "$cache/rootfs" || die "cannot write to $cache: set DRYDOCK_CACHE to a directory of yours"
# Programs of other users, such as apt's own, must find their way by full names.
cache=$(cd "$cache" && pwd -P)
place=$cache/rootfs/$name

if [ -d "$place" ] && [ -z "$force" ]; then
    echo "$place"
    exit 0
fi

# One build at a time: who comes second finds it done.
exec 9>"$cache/rootfs/.$name.lock"
if ! flock -n 9; then
    say "another build of $name is under way; waiting for it"
    flock 9
    force=
fi
if [ -d "$place" ] && [ -z "$force" ]; then
    echo "$place"
    exit 0
fi

remove() {
    # Directories without write permission are no obstacle to root only.
    [ "$user" = 0 ] || find "$@" -type d ! -perm -u=rwx -exec chmod u+rwx {} + 2>/dev/null || :
    rm -rf -- "$@"
}

# What a killed build has left. The lock says that no living one owns it.
for left in "$cache/rootfs/.$name".??????; do
    [ ! -e "$left" ] || remove "$left"
done
work=$(mktemp -d "$cache/rootfs/.$name.XXXXXX")
trap 'remove "$work"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
root=$work/root
mkdir "$root"

# apt-get with the system's sources, and lists of our own where its are no use.
apt_options=
apt() {
    # Not as the user _apt, who may have no access to the cache.
    # shellcheck disable=SC2086 # the options are words
    apt-get -q $apt_options -o APT::Sandbox::User=root "$@"
}
# Downloads a package into $work.
fetch() {
    command -v apt-get >/dev/null || die "this needs apt-get, of Debian or a relative of it"
    say "fetching $1"
    # Whether there are lists is asked first, quietly: apt knows installed
    # packages without them and then fails with a riddle.
    if apt download --print-uris "$1" >/dev/null 2>&1 && (cd "$work" && apt download "$1" >&2); then
        return
    fi
    # No lists, or older ones than what the archive has now.
    state=$cache/apt
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    apt_options="-o Dir::State::lists=$state/lists -o Dir::Cache=$state -o Dir::Cache::archives=$state/archives"
    say "fetching apt's package lists into $state"
    apt update >&2 || die "apt-get update failed: is there a network, and a source in /etc/apt?"
    (cd "$work" && apt download "$1" >&2) || die "apt-get download $1 failed; its messages are above"
}

busybox() {
    fetch busybox-static
    dpkg-deb -x "$work"/busybox-static_*.deb "$work/package"
    mkdir -p "$root/bin" "$root/sbin" "$root/usr/bin" "$root/usr/sbin" \
        "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/etc" \
        "$root/home" "$root/mnt" "$root/root" "$root/var/log" "$root/tmp" "$root/var/tmp"
    ln -s ../run "$root/var/run"
    chmod 700 "$root/root"
    chmod 1777 "$root/tmp" "$root/var/tmp"
    # In /bin or /usr/bin, as the release has it.
    find "$work/package" -name busybox -type f -perm -u=x -exec cp {} "$root/bin/busybox" \;
    [ -x "$root/bin/busybox" ] || die "the package busybox-static has no program busybox"

    say "making its links"
    "$root/bin/busybox" --list-full | while read -r applet; do
        [ "$applet" = bin/busybox ] || ln -s /bin/busybox "$root/$applet"
    done

    cat >"$root/etc/passwd" <<'EOF'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
EOF
    cat >"$root/etc/group" <<'EOF'
root:x:0:
daemon:x:1:
tty:x:5:
nogroup:x:65534:
EOF
    cat >"$root/etc/hosts" <<'EOF'
127.0.0.1	localhost
::1	localhost
EOF
    cat >"$root/etc/profile" <<'EOF'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
EOF
    echo busybox >"$root/etc/hostname"
    : >"$root/etc/resolv.conf"
}

# The files in which this system's apt has its sources for its own release, not
# those of other vendors.
own_sources() {
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ -r "$file" ] || continue
        grep -Eq "^[^#]*[[:space:]]$1([-/[:space:]]|\$)" "$file" && echo "$file"
    done
}

# Packages besides those of a Debian.
more=

# Sets $suite and $sources, with mmdebstrap installed.
bootstrap() {
    if ! command -v mmdebstrap >/dev/null; then
        [ "$user" = 0 ] || die "mmdebstrap is missing: sudo apt-get install mmdebstrap uidmap"
        say "installing mmdebstrap"
        apt-get -q install -y --no-install-recommends mmdebstrap >&2 \
            || die "apt-get install mmdebstrap failed: run apt-get update first"
    fi
    # shellcheck source=/dev/null
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ -n "$suite" ] || die "/etc/os-release names no VERSION_CODENAME: build it on a Debian release"
    sources=$(own_sources "$suite")
    [ -n "$sources" ] || die "no file in /etc/apt has a source for $suite"
}

debian() {
    bootstrap
    # Manuals and translations are half of it, and no container reads them.
    set -- --variant=minbase --include="procps$more" \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/info/*'
    # What a killed build leaves shall lie where the next one removes it. Mode
    # unshare works as other users, who may have no access there: see below.
    TMPDIR=$work
    export TMPDIR
    if [ "$user" = 0 ]; then
        # As root, mode unshare is mode root in a mount namespace of its own:
        # an interrupted build leaves nothing mounted here.
        say "mmdebstrap $suite, as root"
        # shellcheck disable=SC2086 # file names of apt have no spaces
        mmdebstrap --mode=unshare "$@" "$suite" "$root" $sources >&2 \
            || {
                say "again, without namespaces"
                remove "$root"
                mkdir "$root"
                # shellcheck disable=SC2086
                mmdebstrap --mode=root "$@" "$suite" "$root" $sources >&2
            } || die "mmdebstrap failed; its messages are above"
        return
    fi
    mode=unshare
    if ! unshare --user true 2>/dev/null || ! command -v newuidmap >/dev/null \
        || ! grep -q "^$(id -un):" /etc/subuid /etc/subgid 2>/dev/null; then
        mode=fakechroot
        command -v fakechroot >/dev/null || die "an ordinary user needs user namespaces with newuidmap and entries" \
            "in /etc/subuid and /etc/subgid (sudo apt-get install uidmap; sudo usermod --add-subuids" \
            "100000-165535 --add-subgids 100000-165535 $(id -un)), or fakechroot (sudo apt-get install" \
            "fakechroot fakeroot), or root: sudo $0 debian"
    fi
    # As a directory it would belong to the user's subordinate IDs, whom the
    # user could neither read nor remove. Through an archive it belongs to the
    # user; device nodes are left out, they would need root.
    say "mmdebstrap $suite, as an ordinary user: mode $mode"
    [ "$mode" = fakechroot ] || unset TMPDIR
    # shellcheck disable=SC2086
    mmdebstrap --mode=$mode --format=tar "$@" "$suite" "$work/root.tar" $sources >&2 \
        || die "mmdebstrap failed; its messages are above"
    say "unpacking; every file will belong to $(id -un)"
    tar -x -f "$work/root.tar" -C "$root" --no-same-owner --exclude='./dev/*'
}

systemd() {
    [ "$user" = 0 ] || die "its files must belong to root: sudo $0 systemd"
    more=,systemd,dbus
    debian
}

# The engines whose calls of a runtime are checked, with what they need; and what
# the suites of runc and crun need.
engines='podman,conmon,uidmap,containerd,docker.io,runc,crun,buildah,skopeo,docker-registry'
helpers='iptables,nftables,iproute2,openssl,ca-certificates,procps,kmod,xz-utils,netavark,aardvark-dns'
suites='bats,jq,gawk,python3,bsdextrautils,bsdutils,binutils,gcc,libc6-dev'

peers() {
    bootstrap
    # As root, or as a root over the user's subordinate IDs, to which the files
    # of the image belong. Through an archive, because mmdebstrap's own formats
    # of images need programs that are no part of every Debian.
    as_root=
    if [ "$user" != 0 ]; then
        as_root='unshare --map-auto --map-root-user'
        $as_root true 2>/dev/null || die "an ordinary user needs user namespaces with newuidmap and entries" \
            "in /etc/subuid and /etc/subgid (sudo apt-get install uidmap; sudo usermod --add-subuids" \
            "100000-165535 --add-subgids 100000-165535 $(id -un)), or root: sudo $0 peers"
    fi
    say "mmdebstrap $suite, with the engines"
    # Their services are not started: there is no init to start them.
    # shellcheck disable=SC2086
    mmdebstrap --mode=unshare --format=tar --variant=minbase --include="$engines,$helpers,$suites" \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' \
        "$suite" "$work/peers.tar" $sources >&2 || die "mmdebstrap failed; its messages are above"
    say "making an image of it"
    size=$(($(stat -c %s "$work/peers.tar") / 1048576 * 5 / 4 + 64))
    # shellcheck disable=SC2016,SC2086 # expanded by the inner shell
    $as_root sh -euc '
        mkdir "$1/peers"
        trap "rm -rf \"$1/peers\"" EXIT
        # Devices are those of the machine.
        tar -x -f "$1/peers.tar" -C "$1/peers" --numeric-owner --exclude="./dev/*"
        mkfs.ext4 -q -O ^has_journal -m 0 -L peers -d "$1/peers" "$2" "$3M"
    ' sh "$work" "$root/disk.ext4" "$size" >&2 || die "the image cannot be made; messages are above"
    rm "$work/peers.tar"
}

$name
say "complete: $(du -sh "$root" | cut -f 1)"
# mktemp has made its directory for its owner alone; the root is for everybody.
chmod 755 "$root"
if [ -d "$place" ]; then
    mv "$place" "$work/old"
fi
mv "$root" "$place"
echo "$place"
