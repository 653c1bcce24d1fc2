//! The trait that every later step implements.

use std::os::fd::BorrowedFd;

use anyhow::Result;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::exec::Command;
use crate::exit::Exit;
use kit::SignalNumber;

/// One way in which a container differs from an ordinary process.
///
/// The launcher ([`Container`](crate::Container)) holds a list of these and
/// runs their parts in one fixed order:
///
/// ```text
///  host (launcher)                              container (child)
///  prepare()   every isolation, in list order
///  setns(joins()), in a process of its own
///  clone3(union of namespaces())  ───────────►  waits on the release pipe
///  on_host(pid) every isolation                 …
///  release  ──────────────────────────────────► in_container()  every isolation
///                                               adjust(command) every isolation
///                                               “set up”, waits for the start
///  start    ──────────────────────────────────► before_exec()   every isolation
///                                               seal()          every isolation
///                                               execve
///  started() every isolation
///  wait, forward signals, unless an isolation takes them: signal()
///  ended(exit) every isolation
///  cleanup()   every isolation, in reverse order, on every way out
/// ```
///
/// A part that an isolation does not need keeps its default, which does
/// nothing. An error from any part ends the launch: the child is killed, every
/// `cleanup` runs, and the error is reported under the isolation's name.
// ANCHOR: trait
pub trait Isolation {
    /// The name in errors and in the output of `-v`: that of the step.
    fn name(&self) -> &'static str;

    /// The new namespaces to request from clone(2): only `CLONE_NEW*` flags.
    fn namespaces(&self) -> CloneFlags {
        CloneFlags::empty()
    }

    /// Namespaces of a running process for the child to enter instead of new
    /// ones: a pidfd (pidfd_open(2)) and the `CLONE_NEW*` flags for setns(2).
    /// They are entered in list order, before the new namespaces are made. The
    /// launcher itself never moves.
    fn joins(&self) -> Option<(BorrowedFd<'_>, CloneFlags)> {
        None
    }

    /// The cgroup2 directory in which to create the child (`CLONE_INTO_CGROUP`,
    /// clone(2)). Called after `prepare`. The first isolation that names one
    /// wins.
    fn cgroup(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The probable cause of `errno` from clone(2) or setns(2), and the remedy.
    /// Called only after such an error; the first isolation with an answer
    /// wins.
    fn why_refused(&self, errno: Errno) -> Option<String> {
        let _ = errno;
        None
    }

    /// Whether `on_host` opens files of the child, such as its uid_map, without
    /// being root: they belong to root while the child is undumpable. If so,
    /// the child becomes undumpable at its release, otherwise at its creation.
    fn opens_child(&self) -> bool {
        false
    }

    /// Child: the descriptors that a later part still needs. All others except
    /// the standard streams are closed at the child's creation and after each
    /// part: until execve(2) a hostile image may reach open files through
    /// `/proc/self/fd`. A part that leaves another descriptor open ends the
    /// launch. A descriptor that is no longer listed is closed: its owner must
    /// not be dropped afterwards.
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// Child: the descriptor that [`seal`](Self::seal) needs. It must be one of
    /// those that are kept, and close-on-exec.
    fn seals_with(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Host, before the child exists: check the input, reserve what the
    /// container needs.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Host, while the child waits: maps, cgroup, veth. `child` is the PID as
    /// the host sees it.
    fn on_host(&mut self, child: Pid) -> Result<()> {
        let _ = child;
        Ok(())
    }

    /// Child, released, in its namespaces: hostname, mounts, addresses, ids.
    fn in_container(&mut self) -> Result<()> {
        Ok(())
    }

    /// Child, set up: change the command where that depends on the container's
    /// files: `HOME` comes from the container's own `/etc/passwd`. `command` is
    /// the child's copy: nobody else sees the change.
    fn adjust(&mut self, command: &mut Command) -> Result<()> {
        let _ = command;
        Ok(())
    }

    /// Child, completely set up and told to start, just before execve(2): give
    /// up what only the set-up needed. A part may fork here; only the process
    /// that returns executes the command.
    fn before_exec(&mut self) -> Result<()> {
        Ok(())
    }

    /// Child, nothing but execve(2) left: the file is found, signals and
    /// descriptors are as the command gets them. For what would stand in the
    /// way of all that: a filter over system calls. All other errors of the
    /// launch have been reported by then. A part must allocate no memory.
    fn seal(&mut self) -> Result<()> {
        Ok(())
    }

    /// Host, once the command runs.
    fn started(&mut self) -> Result<()> {
        Ok(())
    }

    /// Host, while the command runs: a signal has arrived that would be
    /// forwarded to the command. The first isolation that returns `true` has
    /// handled it instead.
    fn signal(&mut self, signal: SignalNumber) -> Result<bool> {
        let _ = signal;
        Ok(false)
    }

    /// Host, after the command has ended, before any `cleanup`. Not called if the
    /// launch has failed.
    fn ended(&mut self, exit: Exit) -> Result<()> {
        let _ = exit;
        Ok(())
    }

    /// Host, after the child has ended or was never created: undo the changes
    /// to the host. Runs for every isolation whose `prepare` was called, even
    /// if it failed half-way: it must be idempotent and tolerate a partial
    /// set-up.
    fn cleanup(&mut self) -> Result<()> {
        Ok(())
    }

    /// Host, before its `cleanup`: the `cleanup` of an isolation further down
    /// the list has failed, so something of the container may stay.
    fn cleanup_failed(&mut self) {}
}
// ANCHOR_END: trait
