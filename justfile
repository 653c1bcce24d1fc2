# Every command a person types. `./just` alone lists them.

set positional-arguments

harness := "tools/harness"
usage := "Usage: ./just COMMAND [ARG…]\n\n"

[private]
default:
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} --list --unsorted --list-heading {{ quote(usage) }}

[private]
help: default

# Start a container with a short tour, and a shell in it
[no-exit-message]
[group('learn')]
demo *ARGS:
    @tools/demo "$@"

# A first hour: twelve short experiments, each with a question before it
[no-exit-message]
[group('learn')]
tour *ARGS:
    @{{ harness }} tour "$@"

# Start step NN: create its skeleton, with its exercises, in work/
[no-exit-message]
[group('learn')]
start NN *ARGS:
    @{{ harness }} start "$@"

# Check your step NN on a real kernel, in the virtual machine
[no-exit-message]
[group('learn')]
check NN *ARGS:
    @{{ harness }} check "$@"

# Check your step NN whenever you save a file
[no-exit-message]
[group('learn')]
watch NN *ARGS:
    @{{ harness }} watch "$@"

# Give a hint for your step NN; each call says more
[no-exit-message]
[group('learn')]
hint NN *ARGS:
    @{{ harness }} hint "$@"

# Show the difference between your step NN and our solution
[no-exit-message]
[group('learn')]
solution NN *ARGS:
    @{{ harness }} solution "$@"

# Show your progress
[no-exit-message]
[group('learn')]
progress:
    @{{ harness }} progress

# Run a shell, or a command, in the virtual machine, with bin/ on its PATH
[no-exit-message]
[group('learn')]
vm *ARGS:
    @{{ harness }} vm "$@"

# Build the book and serve it, at http://localhost:3000
[no-exit-message]
[group('learn')]
book *ARGS:
    @{{ harness }} book serve "$@"

# Install the engine as drydock, and drydock-runtime: install [DIR]
[no-exit-message]
[group('run')]
install *ARGS:
    @tools/install "$@"

# Run the engine: run OPTIONS IMAGE COMMAND…, as in ./just run --rm -it busybox sh
[no-exit-message]
[group('run')]
run *ARGS:
    @tools/run "$@"

# Three dockerds as nodes of a swarm on this host, with our runtime; as root
[no-exit-message]
[group('run')]
swarm *ARGS:
    @tools/swarm "$@"

# Build static programs of all steps into bin/
[no-exit-message]
[group('run')]
build:
    @{{ harness }} build

# Build the root file system NAME: busybox, debian, systemd or peers
[group('run')]
rootfs NAME *ARGS:
    @vm/rootfs.sh "$@"

# Run all tests, as CI does; --changed [BASE]: those that your changes can affect
[no-exit-message]
[group('check')]
test *ARGS:
    @tools/test "$@"

# Check step NN in the virtual machine; on this host with --here, as root
[no-exit-message]
[group('check')]
test-step NN *ARGS:
    @{{ harness }} test-step "$@"

# Check steps on every kernel of the distribution, and every cgroup layout
[no-exit-message]
[group('check')]
kernels *ARGS:
    @{{ harness }} kernels "$@"

# Run the book's transcripts, of chapter NN or all; --accept and --record rewrite them
[no-exit-message]
[group('check')]
book-test *ARGS:
    @{{ harness }} book test "$@"

# Check the book's links, and open every page in a browser
[no-exit-message]
[group('check')]
book-look *ARGS:
    @{{ harness }} book look "$@"

# Measure beside other engines: start, where, runtime, stay, density, native, images, pull, or all; as root
[no-exit-message]
[group('measure')]
bench *ARGS:
    @{{ harness }} bench "$@"

# Measure a container against a virtual machine; as root
[no-exit-message]
[group('measure')]
claims *ARGS:
    @{{ harness }} claims "$@"

# Make every system call of a launch fail, one at a time, and kill it at each; as root
[no-exit-message]
[group('check')]
inject *ARGS:
    @{{ harness }} inject "$@"

# Run podman, containerd and dockerd with our runtime, in the virtual machine
[no-exit-message]
[group('check')]
test-peers *ARGS:
    @{{ harness }} test-peers "$@"

# Run the suites of runc and crun with Debian's runc and with ours; as root, or with --vm v2
[no-exit-message]
[group('check')]
suites *ARGS:
    @tools/suites "$@"

# Report what this machine supports, and how to install what is missing
[no-exit-message]
[group('check')]
doctor *ARGS:
    @{{ harness }} doctor "$@"

# Remove the remains of an interrupted run from this host
[no-exit-message]
[group('check')]
restore *ARGS:
    @{{ harness }} restore "$@"

# Prove that every check can fail, with wrong solutions (of step NN, or all)
[no-exit-message]
[group('teach')]
test-wrong *ARGS:
    @{{ harness }} test-wrong "$@"

# Change our steps at random places, and list what no check notices
[no-exit-message]
[group('teach')]
mutants *ARGS:
    @{{ harness }} mutants "$@"

# List the wrong solutions and checks that prove a source FILE; the files without any
[no-exit-message]
[group('teach')]
why *FILES:
    @{{ harness }} why "$@"

# Grade a student's crate: grade NN --submission DIR_OR_ZIP
[no-exit-message]
[group('teach')]
grade NN *ARGS:
    @{{ harness }} grade "$@"

# Grade a folder of submissions: grade-all NN DIR --jobs 2
[no-exit-message]
[group('teach')]
grade-all NN *ARGS:
    @{{ harness }} grade-all "$@"

# Pack an autograder for Gradescope: gradescope NN --output FILE.zip
[no-exit-message]
[group('teach')]
gradescope NN *ARGS:
    @{{ harness }} gradescope "$@"

# Make a repository for students: handout DIR --steps 01-05
[no-exit-message]
[group('teach')]
handout DIR *ARGS:
    @{{ harness }} handout "$@"

# Prove that no skeleton gains a point (of step NN, or all)
[no-exit-message]
[group('teach')]
test-exercises *ARGS:
    @{{ harness }} test-exercises "$@"

# Prove that hostile submissions gain nothing
[no-exit-message]
[group('teach')]
test-hostile *ARGS:
    @{{ harness }} test-hostile "$@"

# Format the code
[group('maintain')]
fmt:
    @cargo fmt

# Run fmt, clippy and typos, without changes
[no-exit-message]
[group('maintain')]
lint:
    @tools/lint

# Build the documentation of all steps from their sources, and open it
[no-exit-message]
[group('maintain')]
docs *ARGS:
    @tools/docs "$@"
