//! Windows for checks: a launcher is stopped at a call while the check does
//! something, and then continues, is killed there, or has the call fail.
//!
//! This widens the window between two calls as far as a check needs, where it
//! would otherwise have to win a race:
//!
//! ```ignore
//! let note = Point::after("openat").about("/run/drydock/net");
//! let stopped = engine.bridged(&[engine.image(), "true"]).stop(note)?;
//! engine.bridged(&[engine.image(), "true"]).run()?.success()?; // another one, in between
//! stopped.go_on()?.success()?;
//! ```

use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::expect::failed;
use crate::step::{Held, Ran, Step};
use crate::trace::follow::{self, Call, LAUNCHER, Next, Stop};

/// Longest time for a launcher to reach the point.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// The point at which a process of a launch is stopped.
#[derive(Clone, Debug)]
pub struct Point {
    call: &'static str,
    after: bool,
    about: String,
    nth: usize,
    by: String,
}

impl Point {
    /// Stops before the launcher's first call of this name (syscalls(2)) is
    /// executed.
    pub fn before(call: &'static str) -> Self {
        Point {
            call,
            after: false,
            about: String::new(),
            nth: 1,
            by: LAUNCHER.to_owned(),
        }
    }

    /// Stops after the launcher's first call of this name.
    pub fn after(call: &'static str) -> Self {
        Point {
            after: true,
            ..Point::before(call)
        }
    }

    /// Restricts the point to calls about `text`: it must be part of a path or
    /// a string that is passed, or of the target of a descriptor.
    #[must_use]
    pub fn about(mut self, text: impl Into<String>) -> Self {
        self.about = text.into();
        self
    }

    /// Selects the `n`-th of those calls, from 1.
    #[must_use]
    pub fn nth(mut self, n: usize) -> Self {
        self.nth = n;
        self
    }

    /// Selects another process: see [`Call::process`].
    #[must_use]
    pub fn by(mut self, process: impl Into<String>) -> Self {
        self.by = process.into();
        self
    }

    /// Whether a call is the selected one. Counts those before it.
    fn matches(&mut self, call: &Call) -> bool {
        let alike = call.name == self.call
            && call.process == self.by
            && (self.about.is_empty() || call.object().contains(&self.about));
        self.nth -= usize::from(alike && self.nth > 0);
        alike && self.nth == 0
    }

    fn describe(&self) -> String {
        let Point {
            call, about, by, ..
        } = self;
        match about.is_empty() {
            true => format!("{call} by {by}"),
            false => format!("{call} of {about:?} by {by}"),
        }
    }
}

/// An order to a stopped process.
enum Order {
    /// Continue to the next point.
    Until(Point),
    /// Continue untraced.
    GoOn,
    /// Let the call fail, and continue untraced.
    Fail(Errno),
}

/// A launch with one process stopped. When dropped, it continues, and is ended
/// in the same way as a [`Held`].
pub struct Stopped {
    call: String,
    pid: Pid,
    held: Option<Held>,
    orders: Sender<Order>,
    reached: Receiver<Pid>,
    tracer: Option<JoinHandle<Result<()>>>,
}

impl Step {
    /// Starts the program and returns when it is stopped at `point`.
    ///
    /// # Errors
    /// [`Failed`](crate::outcome::Failed) if it ends without reaching the
    /// point, or does not reach it in time.
    pub fn stop(self, point: Point) -> Result<Stopped> {
        let call = self.call();
        let mut command = self.command();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (orders, ordered) = channel();
        let (tell, reached) = channel();
        let (tell_child, child) = channel();
        let until = point.clone();
        let tracer = thread::spawn(move || {
            let child = follow::start(command)?;
            let pid = Pid::from_raw(child.id() as i32);
            tell_child.send(child).context("nobody wants the child")?;
            follow::follow(pid, &mut follower(until, tell, ordered))
        });
        let child: Child = match child.recv() {
            Ok(child) => child,
            // Without a child the tracer has an error.
            Err(_) => {
                joined(tracer)?;
                bail!("`{call}` was not started");
            }
        };
        let mut stopped = Stopped {
            held: Some(Held::of(call.clone(), child)?),
            call,
            pid: Pid::from_raw(0),
            orders,
            reached,
            tracer: Some(tracer),
        };
        stopped.await_stop(point)?;
        Ok(stopped)
    }
}

/// Stops at one point after another, as the orders say.
fn follower(
    mut until: Point,
    reached: Sender<Pid>,
    orders: Receiver<Order>,
) -> impl FnMut(Stop<'_>) -> Result<Next> {
    let mut at_exit_of = None;
    let mut leaving = false;
    move |stop| {
        let call = match stop {
            _ if leaving => return Ok(Next::Leave),
            Stop::Entry(call) if until.matches(call) => call,
            Stop::Exit(call, _) if at_exit_of == Some(call.pid) => call,
            _ => return Ok(Next::GoOn),
        };
        if until.after && at_exit_of.is_none() {
            at_exit_of = Some(call.pid);
            return Ok(Next::GoOn);
        }
        at_exit_of = None;
        if reached.send(call.pid).is_err() {
            return Ok(Next::Leave);
        }
        match orders.recv() {
            Ok(Order::Until(next)) => {
                until = next;
                Ok(Next::GoOn)
            }
            Ok(Order::Fail(errno)) => {
                leaving = true;
                Ok(Next::Fail(errno))
            }
            Ok(Order::GoOn) | Err(_) => Ok(Next::Leave),
        }
    }
}

impl Stopped {
    /// The PID of the stopped process.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Continues the launch to its end.
    pub fn go_on(mut self) -> Result<Ran> {
        self.order(Order::GoOn)?.end()
    }

    /// Continues the launch, whose command is `probe hold`. Read its first
    /// report with [`Held::wait_until_held`].
    pub fn go_on_holding(mut self) -> Result<Held> {
        self.order(Order::GoOn)
    }

    /// Makes the call fail at whose entry the process is stopped, and continues
    /// the launch to its end.
    pub fn fail(mut self, errno: Errno) -> Result<Ran> {
        self.order(Order::Fail(errno))?.end()
    }

    /// Kills the stopped process, and waits for the launcher's end.
    pub fn kill(mut self) -> Result<Ran> {
        kill(self.pid, Signal::SIGKILL).with_context(|| format!("kill({})", self.pid))?;
        self.order(Order::GoOn)?.end()
    }

    /// Continues the launch to another point.
    pub fn until(mut self, point: Point) -> Result<Stopped> {
        self.orders
            .send(Order::Until(point.clone()))
            .context("nobody traces the launcher any more")?;
        self.await_stop(point)?;
        Ok(self)
    }

    /// Gives the last order and returns the launch, which is then untraced.
    fn order(&mut self, order: Order) -> Result<Held> {
        // The tracer may have seen the end of the program already.
        let ordered = self.orders.send(order);
        self.tracer.take().map_or(Ok(()), joined)?;
        ordered.context("nobody traces the launcher any more")?;
        self.held.take().context("the launcher is gone")
    }

    fn await_stop(&mut self, point: Point) -> Result<()> {
        let expected = format!("`{}` to come to {}", self.call, point.describe());
        match self.reached.recv_timeout(TIME_LIMIT) {
            Ok(pid) => {
                self.pid = pid;
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => {
                Err(failed(expected, format!("nothing within {TIME_LIMIT:?}")))
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.tracer.take().map_or(Ok(()), joined)?;
                let held = self.held.take().context("the launcher is gone")?;
                let ran = held.end()?;
                Err(failed(expected, ran.end()))
            }
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Kill the launcher, so that the tracer ends in any case.
        if let (Some(held), Some(tracer)) = (&self.held, self.tracer.take()) {
            let killed = held.signal(Signal::SIGKILL);
            let ordered = self.orders.send(Order::GoOn);
            if let Err(error) = killed.and(ordered.context("order")).and(joined(tracer)) {
                eprintln!("let go of `{}`: {error:#}", self.call);
            }
        }
    }
}

fn joined(tracer: JoinHandle<Result<()>>) -> Result<()> {
    tracer.join().map_err(|_| anyhow!("the tracer panicked"))?
}
