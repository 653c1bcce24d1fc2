//! The child's side of the launch, between clone3 and execve.
//!
//! As soon as the child is in the container's root, an image has a say in where
//! a path leads, and `/proc/self/fd` makes a path of every descriptor. So the
//! child holds nothing of the host that it does not need: see
//! [`Isolation::keeps`].

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::exec::Command;
use crate::failure::{Failure, Report};
use crate::isolation::Isolation;
use crate::umask::Umask;
use kit::SignalSet;
use kit::say::verbose;
use kit::{say, sys};

/// The child's ends of what connects it with the launcher.
pub(crate) struct InChild<'a> {
    pub(crate) release: File,
    pub(crate) report: File,
    pub(crate) umask: &'a Umask,
    /// What to execute instead of looking the command up.
    pub(crate) program: Option<BorrowedFd<'a>>,
    /// The descriptors that were explained when they were last looked at.
    pub(crate) held: Vec<RawFd>,
}

impl InChild<'_> {
    /// Sets the container up, executes the command, and ends this process if
    /// anything fails.
    pub(crate) fn run(mut self, isolations: &mut [Box<dyn Isolation>], command: &Command) -> ! {
        // A panic must not unwind into the launcher's frames: they belong to
        // the other process, whose cleanups would then run twice.
        let failed = catch_unwind(AssertUnwindSafe(|| {
            self.become_command(isolations, command)
        }));
        let error = match failed {
            Ok(Err(error)) => error,
            Err(_) => anyhow!("the child panicked while it was set up"),
        };
        let status = Failure::status_of(&error);
        // If even the report cannot be written, the status is all there is.
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
        // ANCHOR: exercise_become_the_command
        self.hold_only(isolations)?;
        prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
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
        // The launcher would say so too late if it told both at once.
        say!("start");
        self.umask.restore();
        for n in 0..isolations.len() {
            isolations[n]
                .before_exec()
                .and_then(|()| self.let_go(isolations))
                .with_context(|| isolations[n].name())?;
        }
        self.die_with_launcher()?;
        // execve(2) keeps what is ignored: by the caller, as nohup(1) and a
        // shell's `&` do, and SIGPIPE by every program in Rust.
        sys::signals::default_actions()?;
        // What is open now is close-on-exec.
        self.hold_only(&[])?;
        self.say_held()?;
        sys::signals::set_mask(SignalSet::EMPTY)?;
        command.exec(self.program)
        // ANCHOR_END: exercise_become_the_command
    }
    // ANCHOR_END: become_command

    // ANCHOR: let_go
    /// Closes everything but the standard streams, the two pipes and what the
    /// isolations keep: close_range(2). The owners of what is closed stay
    /// behind in this copy of the launcher's memory, and are never dropped.
    fn hold_only(&mut self, isolations: &[Box<dyn Isolation>]) -> Result<()> {
        let mut keep: Vec<BorrowedFd<'_>> = vec![self.release.as_fd(), self.report.as_fd()];
        keep.extend(self.program);
        keep.extend(isolations.iter().flat_map(|isolation| isolation.keeps()));
        sys::close_except(&keep)?;
        self.held = keep.iter().map(AsRawFd::as_raw_fd).collect();
        Ok(())
    }

    /// With `-v`: what is open, whoever says that it is not.
    fn say_held(&self) -> Result<()> {
        if verbose() {
            say!("holds {}", names(&sys::open_descriptors()?));
        }
        Ok(())
    }

    /// After a part: closes what it was kept for, and refuses to go on with a
    /// descriptor that was opened and forgotten. Keeps the rest of the world
    /// out, which a change of credentials may have let in.
    fn let_go(&mut self, isolations: &[Box<dyn Isolation>]) -> Result<()> {
        let keeps = isolations.iter().flat_map(|isolation| isolation.keeps());
        self.held.extend(keeps.map(|fd| fd.as_raw_fd()));
        let open = sys::open_descriptors()?;
        let lost: Vec<RawFd> = open
            .into_iter()
            .filter(|fd| !self.held.contains(fd))
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
        // ANCHOR: exercise_wait_for_release
        let mut byte = [0];
        match self
            .release
            .read(&mut byte)
            .context("read from the release pipe")?
        {
            0 => bail!("the launcher is gone"),
            _ => Ok(()),
        }
        // ANCHOR_END: exercise_wait_for_release
    }
    // ANCHOR_END: wait_to_be_told

    /// Asks for SIGKILL at the launcher's death: once more, because a change
    /// of credentials has cleared it (prctl(2)). If the launcher died before
    /// the call, its end of the release pipe is closed.
    fn die_with_launcher(&self) -> Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
        let mut lifeline = [PollFd::new(self.release.as_fd(), PollFlags::POLLIN)];
        if poll(&mut lifeline, PollTimeout::ZERO).context("poll the release pipe")? > 0 {
            bail!("the launcher is gone");
        }
        Ok(())
    }
}

/// Keeps all who have no `CAP_SYS_PTRACE` over the launcher's user namespace
/// out of this process: its memory, which is the launcher's, and its
/// descriptors (ptrace(2), proc_pid_fd(5)). execve(2) gives the command the
/// usual.
///
/// # Errors
/// None that the kernel documents.
pub(crate) fn conceal() -> Result<()> {
    prctl::set_dumpable(false).context("prctl(PR_SET_DUMPABLE, 0)")
}

/// Descriptors, each with where it leads, for people.
fn names(fds: &[RawFd]) -> String {
    let name = |fd: &RawFd| match fs::read_link(format!("/proc/self/fd/{fd}")) {
        Ok(path) => format!("{fd} {}", path.display()),
        Err(_) => fd.to_string(),
    };
    fds.iter().map(name).collect::<Vec<_>>().join(", ")
}
