//! Follows a program and all that it forks, call by call: ptrace(2).
//!
//! strace also does this, and can make a process's n-th call fail. Here each
//! process of a launch has a name that is the same in every run, which tells a
//! call of the launcher from the same call of its child.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, pipe2};

use crate::sys::trace::{self, At};
use crate::trace::call;

/// The name of the first process: see [`Call::process`].
pub const LAUNCHER: &str = "launcher";

/// `PTRACE_EVENT_STOP` of ptrace(2): a tracee is born or interrupted.
const EVENT_STOP: i32 = 128;

/// A system call at which a followed process is stopped.
#[derive(Clone, Debug)]
pub struct Call {
    /// Name of the calling process: `launcher`, or `launcher.2` for the second
    /// process that it has forked, `launcher.2.1` for the first that this one
    /// has forked.
    pub process: String,
    /// PID of the calling process.
    pub pid: Pid,
    /// Name of the call, as in syscalls(2).
    pub name: &'static str,
    /// Number of the call among those of this name by this process, from 1.
    pub nth: usize,
    arguments: [u64; 6],
}

impl Call {
    /// The files, strings and descriptors among the call's arguments, separated
    /// by spaces. Available at the call's entry.
    pub fn object(&self) -> String {
        call::object(self.pid, self.name, &self.arguments)
    }

    /// Whether the call makes a missing file: `O_CREAT`.
    pub fn creates(&self) -> bool {
        let flags = match self.name {
            "open" => self.arguments[1],
            "openat" => self.arguments[2],
            _ => 0,
        };
        flags & libc::O_CREAT as u64 != 0
    }
}

/// A stop of a process at a call.
pub enum Stop<'a> {
    /// Before the kernel executes the call.
    Entry(&'a Call),
    /// After the call, with its result; an errno is negative.
    Exit(&'a Call, i64),
}

/// The next action of a stopped process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Continues to the next stop.
    GoOn,
    /// Skips the call, which fails with this errno. At its entry only.
    Fail(Errno),
    /// Continues untraced, as do all other processes; [`follow`] returns.
    Leave,
}

/// Starts a program as a process that waits, after its fork(2) and before its
/// execve(2), until the calling thread traces it. [`follow`] then continues it.
pub fn start(mut command: Command) -> Result<Child> {
    let (told, tell) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
    let (go, let_go) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
    trace::wait_before_exec(&mut command, tell, go);
    // spawn() only returns after execve(2), so another thread has to call it.
    let starting = thread::spawn(move || command.spawn());
    let mut bytes = [0; 4];
    let told = File::from(told).read_exact(&mut bytes);
    let pid = Pid::from_raw(i32::from_ne_bytes(bytes));
    let traced = told
        .context("read the PID of the program to be traced")
        .and_then(|()| {
            let options = Options::PTRACE_O_TRACESYSGOOD
                | Options::PTRACE_O_TRACEFORK
                | Options::PTRACE_O_TRACEVFORK
                | Options::PTRACE_O_TRACECLONE
                | Options::PTRACE_O_TRACEEXEC;
            ptrace::seize(pid, options).with_context(|| format!("ptrace(SEIZE, {pid})"))
        })
        .and_then(|()| {
            File::from(let_go)
                .write_all(&[1])
                .context("let the program to be traced go")
        });
    let started = starting.join().map_err(|_| anyhow!("a thread panicked"))?;
    let child = started.context("start the program to be traced")?;
    traced.map(|()| child)
}

/// Follows the program that the calling thread has [`start`]ed, and all that it
/// forks, until `on_stop` returns [`Next::Leave`] or the program has ended. The
/// caller still has to wait for it. A process that executes another program,
/// such as the command of a container or a tool of the engine, is no longer
/// traced.
pub fn follow(launcher: Pid, on_stop: &mut dyn FnMut(Stop<'_>) -> Result<Next>) -> Result<()> {
    let mut following = Following {
        launcher,
        program: None,
        processes: BTreeMap::from([(launcher, Process::new(LAUNCHER.to_owned()))]),
        early: Vec::new(),
    };
    following.run(on_stop)?;
    following.leave()
}

/// A followed process.
struct Process {
    name: String,
    /// Number of processes that it has forked.
    forked: usize,
    /// Number of its calls, by name.
    calls: BTreeMap<&'static str, usize>,
    /// The call that it is in, and the errno that the call fails with, if any.
    within: Option<(Call, Option<Errno>)>,
}

impl Process {
    fn new(name: String) -> Self {
        Process {
            name,
            forked: 0,
            calls: BTreeMap::new(),
            within: None,
        }
    }
}

struct Following {
    launcher: Pid,
    /// The launcher's program.
    program: Option<PathBuf>,
    processes: BTreeMap<Pid, Process>,
    /// Processes whose first stop arrived before the fork event of their
    /// parent.
    early: Vec<Pid>,
}

impl Following {
    fn run(&mut self, on_stop: &mut dyn FnMut(Stop<'_>) -> Result<Next>) -> Result<()> {
        loop {
            let status = peek(None)?;
            let Some(pid) = status.pid() else { continue };
            if has_ended(status) {
                self.processes.remove(&pid);
                if pid == self.launcher {
                    return Ok(());
                }
            }
            match take(pid)? {
                WaitStatus::PtraceSyscall(_) => match self.at_call(pid, on_stop)? {
                    Next::Leave => return Ok(()),
                    _ => resume(pid, None)?,
                },
                other => self.elsewhere(other)?,
            }
        }
    }

    /// Reports a process that has stopped at a call to `on_stop`.
    fn at_call(
        &mut self,
        pid: Pid,
        on_stop: &mut dyn FnMut(Stop<'_>) -> Result<Next>,
    ) -> Result<Next> {
        let Some(process) = self.processes.get_mut(&pid) else {
            return Ok(Next::GoOn);
        };
        match gone_is_none(trace::call_of(pid), "ptrace(GET_SYSCALL_INFO)")?.flatten() {
            Some(At::Entry(number, arguments)) => {
                let name = call::name(number);
                let nth = process.calls.entry(name).or_default();
                *nth += 1;
                let call = Call {
                    process: process.name.clone(),
                    pid,
                    name,
                    nth: *nth,
                    arguments,
                };
                let next = on_stop(Stop::Entry(&call))?;
                let fails = match next {
                    Next::Fail(errno) => {
                        gone_is_none(trace::skip_call(pid), "ptrace(SETREGS)")?;
                        Some(errno)
                    }
                    _ => None,
                };
                process.within = Some((call, fails));
                Ok(next)
            }
            Some(At::Exit(mut result)) => {
                let Some((call, fails)) = process.within.take() else {
                    return Ok(Next::GoOn);
                };
                if let Some(errno) = fails {
                    gone_is_none(trace::set_result(pid, errno), "ptrace(SETREGS)")?;
                    result = -i64::from(errno as i32);
                }
                on_stop(Stop::Exit(&call, result))
            }
            None => Ok(Next::GoOn),
        }
    }

    /// Handles the end of a process, and every stop that is not at a call.
    fn elsewhere(&mut self, status: WaitStatus) -> Result<()> {
        match status {
            WaitStatus::PtraceEvent(pid, signal, event) => match event {
                birth if is_birth(birth) => {
                    self.forked(pid)?;
                    resume(pid, None)
                }
                libc::PTRACE_EVENT_EXEC => self.executes(pid),
                EVENT_STOP if !self.processes.contains_key(&pid) => {
                    self.early.push(pid);
                    Ok(())
                }
                // Stopped by a signal: it must stay so, for the launcher's
                // shell to see.
                EVENT_STOP if signal != Signal::SIGTRAP => {
                    gone_is_none(trace::listen(pid), "ptrace(LISTEN)").map(drop)
                }
                _ => resume(pid, None),
            },
            WaitStatus::Stopped(pid, signal) => resume(pid, Some(signal)),
            _ => Ok(()),
        }
    }

    fn forked(&mut self, pid: Pid) -> Result<()> {
        let Some(new) = gone_is_none(ptrace::getevent(pid), "ptrace(GETEVENTMSG)")? else {
            return Ok(());
        };
        let new = Pid::from_raw(new as i32);
        if let Some(parent) = self.processes.get_mut(&pid) {
            parent.forked += 1;
            let name = format!("{}.{}", parent.name, parent.forked);
            self.processes.insert(new, Process::new(name));
        }
        match self.early.iter().position(|early| *early == new) {
            Some(place) => resume(self.early.swap_remove(place), None),
            None => Ok(()),
        }
    }

    /// Detaches a process that has executed a program other than the launcher's
    /// own or one in memory, which only the engine has.
    fn executes(&mut self, pid: Pid) -> Result<()> {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let ours = match &self.program {
            None => {
                self.program = Some(program);
                true
            }
            Some(launcher) => program == *launcher || program.starts_with("/memfd:"),
        };
        if ours {
            return resume(pid, None);
        }
        self.processes.remove(&pid);
        gone_is_none(ptrace::detach(pid, None), "ptrace(DETACH)").map(drop)
    }

    /// Detaches all processes. ptrace(2) requires each to be stopped first; an
    /// interrupt does not affect one that is stopped already.
    fn leave(&mut self) -> Result<()> {
        let mut left: Vec<Pid> = self.processes.keys().copied().collect();
        left.append(&mut self.early);
        while let Some(pid) = left.pop() {
            if gone_is_none(ptrace::detach(pid, None), "ptrace(DETACH)")?.is_some() {
                continue;
            }
            if gone_is_none(ptrace::interrupt(pid), "ptrace(INTERRUPT)")?.is_none() {
                continue;
            }
            if has_ended(peek(Some(pid))?) && pid == self.launcher {
                continue;
            }
            let mut signal = None;
            match take(pid)? {
                WaitStatus::PtraceEvent(_, _, event) if is_birth(event) => {
                    let born = gone_is_none(ptrace::getevent(pid), "ptrace(GETEVENTMSG)")?;
                    left.extend(born.map(|born| Pid::from_raw(born as i32)));
                }
                WaitStatus::PtraceSyscall(_) => self.finish_failing(pid)?,
                WaitStatus::Stopped(_, arrived) => signal = Some(arrived),
                _ => {}
            }
            gone_is_none(ptrace::detach(pid, signal), "ptrace(DETACH)")?;
        }
        Ok(())
    }

    /// Sets the result of a call that is being skipped, before the process is
    /// detached.
    fn finish_failing(&mut self, pid: Pid) -> Result<()> {
        let within = self.processes.get_mut(&pid).and_then(|p| p.within.take());
        if let Some((_, Some(errno))) = within {
            gone_is_none(trace::set_result(pid, errno), "ptrace(SETREGS)")?;
        }
        Ok(())
    }
}

fn is_birth(event: i32) -> bool {
    let births = [
        libc::PTRACE_EVENT_FORK,
        libc::PTRACE_EVENT_VFORK,
        libc::PTRACE_EVENT_CLONE,
    ];
    births.contains(&event)
}

/// Tracees of all kinds, of this thread only.
const OURS: WaitPidFlag = WaitPidFlag::__WALL.union(WaitPidFlag::__WNOTHREAD);

fn has_ended(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))
}

/// Waits for an event of one of this thread's tracees, or of any, without
/// consuming it: a launcher that was reaped here could not be waited for
/// elsewhere.
fn peek(which: Option<Pid>) -> Result<WaitStatus> {
    let what = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(which.map_or(Id::All, Id::Pid), what | OURS) {
            Err(Errno::EINTR) => {}
            found => return found.context("waitid"),
        }
    }
}

/// Waits for the next event of a process and consumes it.
fn take(pid: Pid) -> Result<WaitStatus> {
    loop {
        match waitpid(pid, Some(OURS)) {
            Err(Errno::EINTR) => {}
            found => return found.with_context(|| format!("waitpid({pid})")),
        }
    }
}

/// Continues a tracee to its next stop.
fn resume(pid: Pid, signal: Option<Signal>) -> Result<()> {
    gone_is_none(ptrace::syscall(pid, signal), "ptrace(SYSCALL)").map(drop)
}

/// Turns ESRCH into `None`: a tracee may be killed at any time.
fn gone_is_none<T>(result: nix::Result<T>, what: &str) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ESRCH) => Ok(None),
        Err(errno) => Err(errno).with_context(|| what.to_owned()),
    }
}
