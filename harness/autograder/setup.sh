#!/usr/bin/env bash
# Gradescope runs this once, as root and with a network, when it builds the
# image in which submissions of step STEP are graded.
set -euo pipefail
cd "$(dirname "$0")"
. ./environment
export DEBIAN_FRONTEND=noninteractive

# Not every unpacker keeps modes.
chmod +x run_autograder drydock/just drydock/tools/* drydock/vm/*.sh

drydock/vm/setup.sh
if ! command -v cargo >/dev/null; then
	apt-get install -y -qq --no-install-recommends rustup ca-certificates || {
		echo 'No Rust, and no package rustup here: choose a base image that has it (Ubuntu 24.04, Debian 13),' >&2
		echo 'or install Rust in a line before this one.' >&2
		exit 1
	}
	rustup toolchain install --profile minimal "$RUSTUP_TOOLCHAIN"
fi

# The kernel of the teacher's machine, so that marks are the same here.
mkdir -p "$DRYDOCK_CACHE/kernels"
rm -rf "$DRYDOCK_CACHE/kernels/distribution"
cp -r kernel "$DRYDOCK_CACHE/kernels/distribution"
drydock/vm/rootfs.sh busybox
OTHER_ROOTFS

# From here on nothing is fetched.
(cd drydock && cargo fetch --quiet)
export CARGO_NET_OFFLINE=true
drydock/tools/harness grade STEP --prepare
drydock/tools/harness vm -- true
echo 'setup: the machine boots, and all is built'
