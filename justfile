# Every command a person types. `./just` alone lists them.

set positional-arguments

harness := "tools/harness"
usage := "Usage: ./just COMMAND [ARG…]\n\n"

[private]
default:
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} --list --unsorted --list-heading {{ quote(usage) }}

# Start a container that shows you around, and stay in it
[no-exit-message]
[group('learn')]
demo *ARGS:
    @tools/demo "$@"

# Begin step NN: its skeleton and its exercises, in work/
[no-exit-message]
[group('learn')]
start NN *ARGS:
    @{{ harness }} start "$@"

# Check your step NN; `watch` does so whenever you save
[no-exit-message]
[group('learn')]
check NN *ARGS:
    @{{ harness }} check "$@"

# Check your step NN whenever you save a file of it
[no-exit-message]
[group('learn')]
watch NN *ARGS:
    @{{ harness }} watch "$@"

# Say what to look at next in your step NN, and more each time
[no-exit-message]
[group('learn')]
hint NN *ARGS:
    @{{ harness }} hint "$@"

# The difference of your step NN to ours
[no-exit-message]
[group('learn')]
solution NN *ARGS:
    @{{ harness }} solution "$@"

# What you have achieved
[no-exit-message]
[group('learn')]
progress:
    @{{ harness }} progress

# A shell, or a command, in the virtual machine, with bin/ on its PATH
[no-exit-message]
[group('learn')]
vm *ARGS:
    @{{ harness }} vm "$@"

# Build the book and serve it, at http://localhost:3000
[no-exit-message]
[group('learn')]
book *ARGS:
    @{{ harness }} book serve "$@"

# The engine: run OPTIONS IMAGE COMMAND…, as in ./just run --rm -it busybox sh
[no-exit-message]
[group('run')]
run *ARGS:
    @tools/run "$@"

# Build the steps, static, into bin/
[no-exit-message]
[group('run')]
build:
    @{{ harness }} build

# Make the root file system NAME: busybox or debian
[group('run')]
rootfs NAME *ARGS:
    @vm/rootfs.sh "$@"

# Check everything, as CI does; --changed [BASE]: what your changes can have touched
[no-exit-message]
[group('check')]
test *ARGS:
    @tools/test "$@"

# Check step NN in the virtual machine; on this host with --here, as root
[no-exit-message]
[group('check')]
test-step NN *ARGS:
    @{{ harness }} test-step "$@"

# Check steps on every kernel that the distribution has, and every cgroup layout
[no-exit-message]
[group('check')]
kernels *ARGS:
    @{{ harness }} kernels "$@"

# Run the book's transcripts, of chapter NN or all; --accept and --record rewrite them
[no-exit-message]
[group('check')]
book-test *ARGS:
    @{{ harness }} book test "$@"

# Check the book's links and look at every page in a browser
[no-exit-message]
[group('check')]
book-look *ARGS:
    @{{ harness }} book look "$@"

# Measure beside others: start, where, density, native, images, or all; as root
[no-exit-message]
[group('measure')]
bench *ARGS:
    @{{ harness }} bench "$@"

# Container against virtual machine, measured here; as root
[no-exit-message]
[group('measure')]
claims *ARGS:
    @{{ harness }} claims "$@"

# Fail every call of a launch, one at a time, and kill it at each; as root
[no-exit-message]
[group('check')]
inject *ARGS:
    @{{ harness }} inject "$@"

# Say what this machine can and cannot do, and how to mend it
[no-exit-message]
[group('check')]
doctor *ARGS:
    @{{ harness }} doctor "$@"

# Remove what an interrupted run left on this host
[no-exit-message]
[group('check')]
restore *ARGS:
    @{{ harness }} restore "$@"

# Prove that every check can fail, with wrong solutions (of step NN, or all)
[no-exit-message]
[group('teach')]
test-wrong *ARGS:
    @{{ harness }} test-wrong "$@"

# Which wrong solutions and checks prove a source FILE; which files have none
[no-exit-message]
[group('teach')]
why *FILES:
    @{{ harness }} why "$@"

# Marks for a student's crate: grade NN --submission DIR_OR_ZIP
[no-exit-message]
[group('teach')]
grade NN *ARGS:
    @{{ harness }} grade "$@"

# Marks for a folder of submissions: grade-all NN DIR --jobs 2
[no-exit-message]
[group('teach')]
grade-all NN *ARGS:
    @{{ harness }} grade-all "$@"

# An autograder for Gradescope: gradescope NN --output FILE.zip
[no-exit-message]
[group('teach')]
gradescope NN *ARGS:
    @{{ harness }} gradescope "$@"

# A repository for students: handout DIR --steps 01-05
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

# Look for what fmt, clippy and typos would complain of
[no-exit-message]
[group('maintain')]
lint:
    @tools/lint

# Build the documentation of all steps from their sources, and open it
[no-exit-message]
[group('maintain')]
docs *ARGS:
    @tools/docs "$@"
