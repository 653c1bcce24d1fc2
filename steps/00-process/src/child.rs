//! The child's side of the launch, between clone3(2) and execve(2).
//!
//! In the container's root the image decides where a path leads, and
//! `/proc/self/fd` turns every descriptor into a path. The child therefore
//! keeps only the descriptors that it needs: see [`Isolation::keeps`].

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::mem::replace;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::exec::Command;
use crate::failure::{Failure, Report};
use crate::gate::Life;
use crate::isolation::Isolation;
use crate::umask::Umask;
use kit::SignalSet;
use kit::say::verbose;
use kit::{say, sys};

/// The child's ends of the two pipes, and the launcher's settings that it
/// needs.
pub(crate) struct InChild<'a> {
    pub(crate) release: File,
    pub(crate) report: File,
    pub(crate) umask: &'a Umask,
    /// The program to execute instead of looking the command up.
    pub(crate) program: Option<BorrowedFd<'a>>,
    /// Descriptors that the command gets.
    pub(crate) passed: Vec<OwnedFd>,
    pub(crate) life: Life,
    /// The descriptors that the last `hold_only` kept open.
    pub(crate) held: Vec<RawFd>,
}

impl InChild<'_> {
    /// Sets the container up and executes the command. Exits if anything fails.
    pub(crate) fn run(mut self, isolations: &mut [Box<dyn Isolation>], command: &Command) -> ! {
        // A panic must not unwind into the launcher's stack frames: their
        // cleanups are the launcher's, and would run twice.
        let failed = catch_unwind(AssertUnwindSafe(|| {
            self.become_command(isolations, command)
        }));
        let error = match failed {
            Ok(Err(error)) => error,
            Err(_) => anyhow!("the child panicked while it was set up"),
        };
        let status = Failure::status_of(&error);
        // If the report cannot be written, only the exit status reports the
        // error.
        let sent = self.report.write_all(&Report::Failed(error).encode());
        sys::exit(if sent.is_ok() {
            status
        } else {
            crate::LAUNCHER_FAILED
        })
    }

    // ANCHOR: become_command
    fn become_command(
        &mut self,
        isolations: &mut [Box<dyn Isolation>],
        command: &Command,
    ) -> Result<Infallible> {
        self.hold_only(isolations)?;
        die_at_its_death()?;
        self.wait_to_be_told()?;
        self.say_held()?;
        conceal()?;
        for n in 0..isolations.len() {
            say!("in_container {}", isolations[n].name());
            isolations[n]
                .in_container()
                .and_then(|()| self.let_go(isolations))
                .with_context(|| isolations[n].name())?;
        }
        let mut command = command.clone();
        for n in 0..isolations.len() {
            isolations[n]
                .adjust(&mut command)
                .and_then(|()| self.let_go(isolations))
                .with_context(|| isolations[n].name())?;
        }
        self.report
            .write_all(&Report::SetUp.encode())
            .context("write to the report pipe")?;
        self.wait_to_be_told()?;
        self.wait_at_gate(isolations)?;
        // Said by the child: the launcher may have told both at once, and would
        // say it too late.
        say!("start");
        self.umask.restore();
        for n in 0..isolations.len() {
            isolations[n]
                .before_exec()
                .and_then(|()| self.let_go(isolations))
                .with_context(|| isolations[n].name())?;
        }
        self.die_with_launcher()?;
        // All that stays open besides the standard streams and what is passed
        // on is close-on-exec.
        self.hold_for_seal(isolations)?;
        self.say_held()?;
        for passed in &self.passed {
            fcntl(passed, FcntlArg::F_SETFD(FdFlag::empty())).context("fcntl(F_SETFD)")?;
        }
        // ANCHOR: exercise_clean_signals
        // execve(2) keeps ignored signals ignored: those that the caller
        // ignores, as nohup(1) and a shell's `&` do, and SIGPIPE, which every
        // Rust program ignores.
        sys::signals::default_actions()?;
        sys::signals::set_mask(SignalSet::EMPTY)?;
        // ANCHOR_END: exercise_clean_signals
        command.exec(self.program, || {
            for isolation in isolations {
                isolation.seal().with_context(|| isolation.name())?;
            }
            Ok(())
        })
    }
    // ANCHOR_END: become_command

    // ANCHOR: let_go
    /// Closes all descriptors except the standard streams, the two pipes, the
    /// program to execute, and those that the isolations keep: close_range(2).
    /// The owners of closed descriptors remain in this copy of the launcher's
    /// memory, and are never dropped.
    fn hold_only(&mut self, isolations: &[Box<dyn Isolation>]) -> Result<()> {
        // ANCHOR: exercise_hold_only
        let mut keep: Vec<BorrowedFd<'_>> = vec![self.release.as_fd(), self.report.as_fd()];
        keep.extend(self.program);
        keep.extend(self.passed.iter().map(AsFd::as_fd));
        if let Life::Gated(gate) = &self.life {
            keep.extend(gate.fds());
        }
        keep.extend(isolations.iter().flat_map(|isolation| isolation.keeps()));
        let held = keep.iter().map(AsRawFd::as_raw_fd).collect();
        // Most parts let nothing go.
        if self.held != held {
            sys::close_except(&keep)?;
            self.held = held;
        }
        Ok(())
        // ANCHOR_END: exercise_hold_only
    }

    /// Closes what no `seal` needs.
    fn hold_for_seal(&mut self, isolations: &[Box<dyn Isolation>]) -> Result<()> {
        if isolations.iter().all(|one| one.seals_with().is_none()) {
            return self.hold_only(&[]);
        }
        let mut keep: Vec<BorrowedFd<'_>> = vec![self.release.as_fd(), self.report.as_fd()];
        keep.extend(self.program);
        keep.extend(self.passed.iter().map(AsFd::as_fd));
        keep.extend(isolations.iter().filter_map(|one| one.seals_with()));
        sys::close_except(&keep)
    }

    /// With `-v`, prints the descriptors that are open according to the kernel.
    fn say_held(&self) -> Result<()> {
        if verbose() {
            say!("holds {}", names(&sys::open_descriptors()?));
        }
        Ok(())
    }

    /// Ends a part: closes the descriptors that only this part needed. Makes
    /// the process undumpable again, because a change of credentials may have
    /// reset the flag. Fails if the part has left a descriptor open that no
    /// isolation keeps.
    fn let_go(&mut self, isolations: &[Box<dyn Isolation>]) -> Result<()> {
        let keeps = isolations.iter().flat_map(|isolation| isolation.keeps());
        let new: Vec<RawFd> = keeps.map(|fd| fd.as_raw_fd()).collect();
        // The kernel assigns the lowest free number, and no part opens as many
        // as 64.
        let highest = self.held.iter().chain(&new).max();
        let open = sys::open_descriptors_below(highest.unwrap_or(&0) + 64)?;
        let lost: Vec<RawFd> = open
            .into_iter()
            .filter(|fd| !self.held.contains(fd) && !new.contains(fd))
            .collect();
        if !lost.is_empty() {
            bail!(
                "refused to go on with descriptors that nothing explains: {}",
                names(&lost)
            );
        }
        conceal()?;
        self.hold_only(isolations)?;
        self.say_held()
    }
    // ANCHOR_END: let_go

    // ANCHOR: wait_to_be_told
    fn wait_to_be_told(&mut self) -> Result<()> {
        // ANCHOR: exercise_clone_the_child
        let mut byte = [0];
        match self
            .release
            .read(&mut byte)
            .context("read from the release pipe")?
        {
            0 => bail!("the launcher is gone"),
            _ => Ok(()),
        }
        // ANCHOR_END: exercise_clone_the_child
    }
    // ANCHOR_END: wait_to_be_told

    // ANCHOR: wait_at_gate
    /// With a gate: lets the launcher go, and waits for the process that opens
    /// the gate. From here on that process gets the reports.
    fn wait_at_gate(&mut self, isolations: &[Box<dyn Isolation>]) -> Result<()> {
        let gate = match replace(&mut self.life, Life::Own) {
            Life::Gated(gate) => gate,
            other => {
                self.life = other;
                return Ok(());
            }
        };
        // Before the report: the launcher ends when it has read it.
        live_on()?;
        self.report
            .write_all(&Report::Waits.encode())
            .context("write to the report pipe")?;
        let waited = gate.wait();
        self.report = gate.into_report();
        waited?;
        self.hold_only(isolations)
    }
    // ANCHOR_END: wait_at_gate

    /// Requests SIGKILL at the launcher's death again, because a change of
    /// credentials clears the request (prctl(2)). Fails if the launcher died
    /// before the call: its end of the release pipe is then closed.
    /// Withdraws the request for a container that outlives its launcher.
    fn die_with_launcher(&self) -> Result<()> {
        if !matches!(self.life, Life::Launchers) {
            return live_on();
        }
        die_at_its_death()?;
        let mut lifeline = [PollFd::new(self.release.as_fd(), PollFlags::POLLIN)];
        if poll(&mut lifeline, PollTimeout::ZERO).context("poll the release pipe")? > 0 {
            bail!("the launcher is gone");
        }
        Ok(())
    }
}

/// Requests SIGKILL for this process at its parent's death, which is the
/// launcher's (PR_SET_PDEATHSIG(2const)).
fn die_at_its_death() -> Result<()> {
    // ANCHOR: exercise_die_with_the_launcher
    prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")
    // ANCHOR_END: exercise_die_with_the_launcher
}

/// Withdraws that request.
fn live_on() -> Result<()> {
    prctl::set_pdeathsig(None).context("prctl(PR_SET_PDEATHSIG, 0)")
}

/// Makes this process undumpable: without `CAP_SYS_PTRACE` over the launcher's
/// user namespace, nobody can access its memory, which is a copy of the
/// launcher's, or its descriptors (ptrace(2), proc_pid_fd(5)). execve(2) resets
/// the flag for the command.
pub(crate) fn conceal() -> Result<()> {
    prctl::set_dumpable(false).context("prctl(PR_SET_DUMPABLE, 0)")
}

/// Lists descriptors for a message, each with its path.
fn names(fds: &[RawFd]) -> String {
    let name = |fd: &RawFd| match fs::read_link(format!("/proc/self/fd/{fd}")) {
        Ok(path) => format!("{fd} {}", path.display()),
        Err(_) => fd.to_string(),
    };
    fds.iter().map(name).collect::<Vec<_>>().join(", ")
}
