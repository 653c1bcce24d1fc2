//! The child's side of the launch, between clone3 and execve.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::exec::Command;
use crate::failure::{Failure, Report};
use crate::isolation::Isolation;
use crate::signal_number::SignalSet;
use crate::umask::Umask;
use crate::{say, sys};

/// The child's ends of what connects it with the launcher.
pub(crate) struct InChild<'a> {
    pub(crate) release: File,
    pub(crate) report: File,
    pub(crate) umask: &'a Umask,
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
        // Everything below the standard streams, but not the two pipes' ends,
        // which were opened so: nothing of the launcher's leaks into the command.
        sys::close_on_exec_from(3)?;
        prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
        self.wait_to_be_told()?;
        for isolation in isolations.iter_mut() {
            say!("in_container {}", isolation.name());
            isolation.in_container().with_context(|| isolation.name())?;
        }
        let mut command = command.clone();
        for isolation in isolations.iter_mut() {
            isolation
                .adjust(&mut command)
                .with_context(|| isolation.name())?;
        }
        self.report
            .write_all(&Report::SetUp.encode())
            .context("write to the report pipe")?;
        self.wait_to_be_told()?;
        // The launcher would say so too late if it told both at once.
        say!("start");
        self.umask.restore();
        for isolation in isolations.iter_mut() {
            isolation.before_exec().with_context(|| isolation.name())?;
        }
        self.die_with_launcher()?;
        // execve(2) keeps what is ignored: by the caller, as nohup(1) and a
        // shell's `&` do, and SIGPIPE by every program in Rust.
        sys::signals::default_actions()?;
        sys::signals::set_mask(SignalSet::EMPTY)?;
        command.exec()
        // ANCHOR_END: exercise_become_the_command
    }
    // ANCHOR_END: become_command

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
