//! The launcher: runs the parts of every isolation in their order, and cleans
//! up the host.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Error, Result, anyhow};
use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, Pid, pipe2};

use crate::birth::clone_child;
use crate::child::{InChild, conceal};
use crate::exec::Command;
use crate::failure::{Failure, Report};
use crate::gate::{Gate, Life};
use crate::isolation::Isolation;
use crate::launched::Launched;
use crate::signals::{Meanwhile, Signals};
use crate::terminal::Terminal;
use crate::umask::Umask;
use kit::{lock, say};

use crate::exit::{Exit, broken_off};

/// A command and the isolations that make a container of it.
///
/// [`run`](Self::run) does everything. [`create`](Self::create),
/// [`Created::start`] and [`Running::wait`] are the same in three parts, each
/// of which can only be called after the one before.
pub struct Container {
    command: Command,
    isolations: Vec<Box<dyn Isolation>>,
    lends_terminal: bool,
    program: Option<OwnedFd>,
    life: Life,
    passed: Vec<OwnedFd>,
}

/// A container that is set up and waits for its start: every isolation is in
/// place, the command does not run yet.
#[must_use = "only wait() cleans up"]
pub struct Created {
    child: Child,
    /// Whether the child has been told to start together with its release.
    told: bool,
}

/// A container whose command runs.
#[must_use = "only wait() cleans up"]
pub struct Running {
    child: Child,
}

impl Container {
    /// Creates a container without isolations: an ordinary process.
    pub fn new(command: Command) -> Self {
        Container {
            command,
            isolations: Vec::new(),
            lends_terminal: true,
            program: None,
            life: Life::Launchers,
            passed: Vec::new(),
        }
    }

    /// Lets the command outlive the launcher, which calls [`Running::leave`]
    /// instead of [`Running::wait`]. Until the command runs, the child dies with
    /// the launcher all the same.
    #[must_use]
    pub fn outlive_launcher(mut self) -> Self {
        self.life = Life::Own;
        self
    }

    /// Divides the launch between two processes: this one calls
    /// [`create`](Self::create) and [`Created::leave`], another one
    /// [`open_gate`](crate::gate::open_gate). Until `leave`, the child dies with
    /// the launcher.
    #[must_use]
    pub fn started_through(mut self, gate: Gate) -> Self {
        self.life = Life::Gated(gate);
        self
    }

    /// Passes open descriptors on to the command, under the numbers that they
    /// have here.
    #[must_use]
    pub fn pass(mut self, descriptors: Vec<OwnedFd>) -> Self {
        self.passed = descriptors;
        self
    }

    /// Executes `program` instead of looking the command up: a sealed copy of
    /// the engine's program in memory (memfd_create(2)), for a tool that
    /// inspects the container. A container must not get hold of the engine's
    /// file.
    #[must_use]
    pub fn program(mut self, program: Option<OwnedFd>) -> Self {
        self.program = program;
        self
    }

    /// Keeps the terminal with the launcher: for a container in a session of
    /// its own (setsid(2)), which does not use it. Signals from the terminal,
    /// such as Ctrl-C, are then forwarded, and the launcher does not stop when
    /// the container does.
    #[must_use]
    pub fn keep_terminal(mut self) -> Self {
        self.lends_terminal = false;
        self
    }

    /// Adds an isolation to the end of the list.
    #[must_use]
    pub fn with(mut self, isolation: impl Isolation + 'static) -> Self {
        self.isolations.push(Box::new(isolation));
        self
    }

    /// The names of the isolations, in list order.
    pub fn isolations(&self) -> Vec<&'static str> {
        self.isolations.iter().map(|one| one.name()).collect()
    }

    /// Creates the container, starts its command, waits for its end and cleans
    /// up the host.
    ///
    /// # Errors
    /// Any error of the three parts. If its chain has a [`Failure`], that holds
    /// the exit status.
    pub fn run(self) -> Result<Exit> {
        // Nobody inspects the container between the two, so the child is told
        // to start together with its release: this saves a wait.
        self.set_up(true)?.start()?.wait()
    }

    /// Prepares the host, clones the child and sets it up. Only execve(2)
    /// remains.
    ///
    /// # Errors
    /// The first error of any isolation, host or child, with the isolation's
    /// name. The child has then been reaped and every isolation cleaned up.
    pub fn create(self) -> Result<Created> {
        self.set_up(false)
    }

    fn set_up(self, start: bool) -> Result<Created> {
        let mut host = Host {
            isolations: self.isolations,
            begun: 0,
            signals: Signals::block()?,
            umask: Umask::of_set_up(),
            lends_terminal: self.lends_terminal,
        };
        let what = Launch {
            command: &self.command,
            program: self.program.as_ref().map(AsFd::as_fd),
            passed: self.passed,
            life: self.life,
        };
        let child = match host.launch(what, start) {
            Ok(launched) => Child { launched, host },
            Err(error) => return Err(host.give_up(error)),
        };
        match child.launched.report(&child.host.signals) {
            Ok(Some(Report::SetUp)) => Ok(Created { child, told: start }),
            Ok(Some(Report::Failed(error))) | Err(error) => Err(child.abandon(error)),
            Ok(Some(Report::Waits)) => Err(child.abandon(anyhow!("the child waits too early"))),
            Ok(None) => Err(child.abandon(anyhow!("the child died while it was set up"))),
        }
    }
}

impl Created {
    /// The PID of the container's first process, as the host sees it.
    pub fn pid(&self) -> Pid {
        self.child.launched.pid
    }

    /// Leaves the child waiting at its gate, and returns its PID. It outlives
    /// this process from now on; nothing is cleaned up.
    ///
    /// # Errors
    /// If the child has died, or has no gate. Every isolation has then been
    /// cleaned up.
    pub fn leave(self) -> Result<Pid> {
        let mut child = self.child;
        if let Err(error) = child.launched.tell(1) {
            return Err(child.abandon(error));
        }
        match child.launched.report(&child.host.signals) {
            Ok(Some(Report::Waits)) => Ok(child.launched.pid),
            Ok(Some(Report::Failed(error))) | Err(error) => Err(child.abandon(error)),
            Ok(Some(Report::SetUp) | None) => {
                Err(child.abandon(anyhow!("the child does not wait at a gate")))
            }
        }
    }

    /// Gives the child up because of `error`, which is returned: kills and reaps
    /// it, and cleans up.
    pub fn abandon(self, error: Error) -> Error {
        self.child.abandon(error)
    }

    /// Tells the child to execute the command.
    ///
    /// # Errors
    /// A [`Failure`] of status 126 or 127 if execve(2) fails. The child has
    /// then been reaped and every isolation cleaned up.
    pub fn start(self) -> Result<Running> {
        let mut child = self.child;
        if !self.told
            && let Err(error) = child.launched.tell(1)
        {
            return Err(child.abandon(error));
        }
        match child.launched.report(&child.host.signals) {
            Ok(None) => match child.host.tell(&mut |isolation| isolation.started()) {
                Ok(()) => Ok(Running { child }),
                Err(error) => Err(child.abandon(error)),
            },
            Ok(Some(Report::Failed(error))) | Err(error) => Err(child.abandon(error)),
            Ok(Some(Report::SetUp)) => Err(child.abandon(anyhow!("the child was set up twice"))),
            Ok(Some(Report::Waits)) => {
                let error = anyhow!("the child waits at a gate: another process has to start it");
                Err(child.abandon(error))
            }
        }
    }
}

impl Running {
    /// The PID of the container's first process, as the host sees it.
    pub fn pid(&self) -> Pid {
        self.child.launched.pid
    }

    /// Leaves the command running, and returns its PID. Nothing is cleaned up.
    /// For a container that [outlives its launcher](Container::outlive_launcher):
    /// any other ends with this process.
    pub fn leave(self) -> Pid {
        self.child.launched.pid
    }

    /// Like [`wait`](Self::wait), for a launcher that has other work to do
    /// meanwhile. An error of that work ends the container.
    pub fn wait_beside(mut self, work: Meanwhile) -> Result<Exit> {
        self.child.host.signals.meanwhile(work);
        self.wait()
    }

    /// Forwards signals until the first process ends, then cleans up.
    pub fn wait(self) -> Result<Exit> {
        let Child {
            mut launched,
            mut host,
        } = self.child;
        match launched.wait(&mut host.signals, &mut host.isolations) {
            Ok(exit) => match host.tell(&mut |isolation| isolation.ended(exit)) {
                Ok(()) => host.clean_up().map(|()| exit),
                Err(error) => Err(host.clean_up_after(error)),
            },
            Err(error) => Err(Child { launched, host }.abandon(error)),
        }
    }
}

/// What is launched.
struct Launch<'a> {
    command: &'a Command,
    program: Option<BorrowedFd<'a>>,
    passed: Vec<OwnedFd>,
    life: Life,
}

/// The launcher's state: the isolations, and how many of them are prepared.
struct Host {
    isolations: Vec<Box<dyn Isolation>>,
    /// The number of isolations whose `prepare` was called, and whose `cleanup`
    /// is due.
    begun: usize,
    /// Blocked until the last `cleanup` has ended.
    signals: Signals,
    /// Restored after that.
    umask: Umask,
    lends_terminal: bool,
}

impl Host {
    // ANCHOR: launch
    fn launch(&mut self, what: Launch<'_>, start: bool) -> Result<Launched> {
        lock::unless_pending(self.signals.stopping(), || self.prepare())?;
        stop_if_asked(&self.signals)?;
        let (release, tell) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
        let (report, tell_report) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
        // The child inherits the flag: it is undumpable from its first moment.
        if !self
            .isolations
            .iter()
            .any(|isolation| isolation.opens_child())
        {
            conceal()?;
        }
        let ForkResult::Parent { child: pid } = clone_child(&self.isolations)? else {
            drop((tell, report));
            let child = InChild {
                release: release.into(),
                report: tell_report.into(),
                umask: &self.umask,
                program: what.program,
                passed: what.passed,
                life: what.life,
                held: Vec::new(),
            };
            child.run(&mut self.isolations, what.command)
        };
        drop((release, tell_report));
        // From here on the child exists: whatever fails, it must be reaped.
        let mut launched = Launched {
            pid,
            lifeline: tell.into(),
            reports: report.into(),
            terminal: None,
            own_session: !self.lends_terminal,
        };
        let stopping = self.signals.stopping();
        match lock::unless_pending(stopping, || self.on_host(&mut launched, start)) {
            Ok(()) => Ok(launched),
            Err(error) => {
                let error = match launched.died_of() {
                    Some(cause) => {
                        say!("result of the launch: {error:#}");
                        cause
                    }
                    None => error,
                };
                Err(launched.kill(error))
            }
        }
    }
    // ANCHOR_END: launch

    fn prepare(&mut self) -> Result<()> {
        for isolation in &mut self.isolations {
            self.begun += 1;
            say!("prepare {}", isolation.name());
            isolation.prepare().with_context(|| isolation.name())?;
        }
        Ok(())
    }

    // ANCHOR: on_host
    fn on_host(&mut self, launched: &mut Launched, start: bool) -> Result<()> {
        say!("clone3: the child is process {} of the host", launched.pid);
        for isolation in &mut self.isolations {
            say!("on_host {}", isolation.name());
            isolation
                .on_host(launched.pid)
                .with_context(|| isolation.name())?;
        }
        if self.lends_terminal {
            launched.terminal = Terminal::hand_over(launched.pid)?;
        }
        stop_if_asked(&self.signals)?;
        say!("release");
        launched.tell(if start { 2 } else { 1 })
    }
    // ANCHOR_END: on_host

    /// Tells every isolation of a turn in the command's life.
    fn tell(&mut self, turn: &mut dyn FnMut(&mut dyn Isolation) -> Result<()>) -> Result<()> {
        for isolation in &mut self.isolations {
            turn(&mut **isolation).with_context(|| isolation.name())?;
        }
        Ok(())
    }

    // ANCHOR: clean_up
    /// Runs every `cleanup` that is due, in reverse order, even if one of them
    /// fails.
    fn clean_up(&mut self) -> Result<()> {
        let mut failed: Option<Error> = None;
        for isolation in self.isolations[..self.begun].iter_mut().rev() {
            say!("cleanup {}", isolation.name());
            if failed.is_some() {
                isolation.cleanup_failed();
            }
            if let Err(error) = isolation.cleanup() {
                let error = error.context(format!("{}: cleanup", isolation.name()));
                failed = Some(match failed {
                    None => error,
                    Some(first) => anyhow!("{first:#}; and {error:#}"),
                });
            }
        }
        self.begun = 0;
        failed.map_or(Ok(()), Err)
    }
    // ANCHOR_END: clean_up

    /// Cleans up because of an error of the launch. It may be the consequence
    /// of a signal, whose status is then the launcher's. A second signal ends
    /// waits for locks as well.
    fn give_up(&mut self, error: Error) -> Error {
        let error = match self.signals.asked_to_stop() {
            Ok(None) => error,
            Ok(Some(signal)) => Failure::new(
                Exit::Signal(signal.raw()).status(),
                format!("{signal} arrived before the command was started: {error:#}"),
            )
            .into(),
            Err(unknown) => anyhow!("{error:#}; and {unknown:#}"),
        };
        lock::unless_pending(self.signals.stopping(), || self.clean_up_after(error))
    }

    /// Cleans up because of `error`, and returns it together with errors of
    /// `cleanup`.
    fn clean_up_after(&mut self, error: Error) -> Error {
        match self.clean_up() {
            Ok(()) => error,
            Err(more) => {
                let status = Failure::status_of(&error);
                Failure::new(status, format!("{error:#}; and then {more:#}")).into()
            }
        }
    }
}

fn stop_if_asked(signals: &Signals) -> Result<()> {
    signals.asked_to_stop()?.map_or(Ok(()), broken_off)
}

/// The child, and the launcher's state for it.
struct Child {
    launched: Launched,
    host: Host,
}

impl Child {
    /// Kills and reaps the child and cleans up because of `error`, which it
    /// returns.
    fn abandon(self, error: Error) -> Error {
        let Child { launched, mut host } = self;
        let error = launched.kill(error);
        host.clean_up_after(error)
    }
}
