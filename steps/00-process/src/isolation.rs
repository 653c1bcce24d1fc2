//! The seam: what every later step implements.

use std::os::fd::BorrowedFd;

use anyhow::Result;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use crate::exec::Command;
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
///                                               execve
///  wait, forward signals, unless an isolation takes them: signal()
///  cleanup()   every isolation, in reverse order, on every way out
/// ```
///
/// A part that an isolation has no use for keeps its default, which does
/// nothing. An error from any part ends the launch: the child is killed, every
/// `cleanup` runs, and the error is reported under the isolation's name.
// ANCHOR: trait
pub trait Isolation {
    /// What errors and `-v` call this isolation: the name of its step.
    fn name(&self) -> &'static str;

    /// New namespaces to ask of clone(2): `CLONE_NEW*` flags, nothing else.
    fn namespaces(&self) -> CloneFlags {
        CloneFlags::empty()
    }

    /// Namespaces of a running process into which the child is born instead of
    /// new ones: a pidfd (pidfd_open(2)) and the kinds to take from that
    /// process, as setns(2) wants them. They are entered in list order, before
    /// the new namespaces are made. The launcher itself never moves.
    fn joins(&self) -> Option<(BorrowedFd<'_>, CloneFlags)> {
        None
    }

    /// A directory of a cgroup2 file system in which the child shall be born
    /// (`CLONE_INTO_CGROUP`, clone(2)). Asked for after `prepare`. The first
    /// isolation that names one wins.
    fn cgroup(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Why clone(2) or setns(2) may have been refused with `errno`, as far as
    /// looking can tell, and what to do about it. Asked only then; the first
    /// isolation that knows wins.
    fn why_refused(&self, errno: Errno) -> Option<String> {
        let _ = errno;
        None
    }

    /// Whether `on_host` opens files of the child that belong to root where the
    /// child is undumpable, such as its uid_map, without being root. The child
    /// is then undumpable from its release on, else from its birth.
    fn opens_child(&self) -> bool {
        false
    }

    /// Child: the descriptors that a later part still needs. All others are
    /// closed at the child's birth and after each part, but for the standard
    /// streams: until execve(2) a hostile image may reach what is open by
    /// `/proc/self/fd`. A part that leaves another one open ends the launch. What
    /// is no longer named here is closed, and must not be dropped afterwards.
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// Host, before the child exists: check the input, reserve what the
    /// container will need.
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

    /// Child, set up: change what it is about to become, where that depends on
    /// what only now can be looked up: `HOME` is in the container's own
    /// `/etc/passwd`. Nobody but the child sees the change.
    fn adjust(&mut self, command: &mut Command) -> Result<()> {
        let _ = command;
        Ok(())
    }

    /// Child, completely set up and told to start, just before execve(2):
    /// give up what only the set-up needed. A part may fork here; only the
    /// process that returns goes on to the command.
    fn before_exec(&mut self) -> Result<()> {
        Ok(())
    }

    /// Host, while the command runs: a signal has arrived that would be passed on
    /// to it. The first isolation that says `true` has dealt with it instead.
    fn signal(&mut self, signal: SignalNumber) -> Result<bool> {
        let _ = signal;
        Ok(false)
    }

    /// Host, after the child is gone or was never born: leave the host as it
    /// was. Runs for every isolation whose `prepare` was begun, also for one
    /// that failed half-way, so it must bear a second call and missing pieces.
    fn cleanup(&mut self) -> Result<()> {
        Ok(())
    }
}
// ANCHOR_END: trait
