//! `step-10 seccomp record`: the calls that a command makes, as a profile to
//! begin with.
//!
//! A filter hands every call to this process (seccomp_unotify(2)), which notes
//! it and has it continue. It needs no privileges, and misses nothing from
//! execve(2) on, in whichever process.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail, ensure};
use kit::sys::{self, seccomp};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use process::{Exit, handover};
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::thread::set_no_new_privs;

use crate::seccomp::abi::Abi;
use crate::seccomp::action::Action;
use crate::seccomp::bpf::{Instruction, Test, Word};
use crate::seccomp::profile::{ActionName, ArchMap, Call, KernelVersion, Profile};

/// What came of a recording.
pub struct Recording {
    /// The calls, by name.
    pub profile: Profile,
    /// The command's exit status.
    pub exit: Exit,
}

/// The status of the child if the command does not exist, or is not executable.
const NOT_FOUND: u8 = 127;

/// Runs a command and notes its calls, until the last process that it started
/// has ended.
///
/// # Errors
/// Before Linux 5.9 the kernel does not say when no process has the filter any
/// more. `EBUSY` inside of another recording.
// ANCHOR: record
pub fn record(command: &[OsString]) -> Result<Recording> {
    let here = KernelVersion::here()?;
    ensure!(
        here >= KernelVersion(5, 9),
        "recording needs Linux 5.9, and this is {here}"
    );
    let (ours, theirs) = UnixStream::pair().context("socketpair")?;
    let ForkResult::Parent { child } = sys::fork()? else {
        drop(ours);
        let Err(error) = become_recorded(command, &theirs);
        kit::errln!("step-10: {error:#}");
        sys::exit(NOT_FOUND)
    };
    drop(theirs);
    // Without a descriptor the child has failed, and has said why.
    let (calls, exit) = match handover::receive(&ours) {
        Ok(listener) => listen(&listener, child)?,
        Err(_) => (BTreeSet::new(), wait(child)?),
    };
    Ok(Recording {
        profile: profile(&calls),
        exit,
    })
}
// ANCHOR_END: record

fn wait(child: Pid) -> Result<Exit> {
    match waitpid(child, None).with_context(|| format!("waitpid({child})"))? {
        WaitStatus::Exited(_, code) => Ok(Exit::Code(code as u8)),
        WaitStatus::Signaled(_, signal, _) => Ok(Exit::Signal(signal as i32)),
        other => bail!("waitpid({child}): {other:?}"),
    }
}

/// Loads the filter, hands its descriptor over, and executes the command.
fn become_recorded(command: &[OsString], socket: &UnixStream) -> Result<Infallible> {
    // A panic of the launcher would be no use to the command.
    sys::signals::default_actions()?;
    let environment: Vec<OsString> = std::env::vars_os()
        .map(|(name, value)| {
            let mut pair = name;
            pair.push("=");
            pair.push(value);
            pair
        })
        .collect();
    let arguments = sys::Arguments::new(command, &environment)?;
    let name = command.first().context("no command given")?;
    let path = std::env::var_os("PATH").unwrap_or_else(|| process::exec::DEFAULT_PATH.into());
    let candidates = match name.as_encoded_bytes().contains(&b'/') {
        true => vec![name.into()],
        false => std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .collect(),
    };
    let file = candidates
        .iter()
        .find(|file: &&std::path::PathBuf| file.is_file())
        .with_context(|| format!("{name:?}: no such command"))?;
    let file = sys::c_string(file.as_os_str())?;
    set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
    let listener = seccomp::install_listener(&everything().map(Instruction::encode), 0)?;
    handover::send(socket, listener.as_fd())?;
    let errno = arguments.execve(&file);
    Err(errno).with_context(|| format!("execve({file:?})"))
}

/// Every call is notified, except sendmsg(2), by which the descriptor is handed
/// over: nobody could let that one continue.
fn everything() -> [Instruction; 4] {
    let sendmsg = Abi::NATIVE.number("sendmsg").unwrap_or_default();
    [
        Instruction::Load(Word::Number),
        Instruction::Jump {
            test: Test::Equal,
            with: sendmsg,
            yes: 0,
            no: 1,
        },
        Instruction::Return(Action::Allow.value()),
        Instruction::Return(Action::Notify.value()),
    ]
}

// ANCHOR: listen
/// Notes each call and has it continue, until no process has the filter. Reaps
/// `child` when it ends: before Linux 6.11 a zombie has its filter still.
fn listen(listener: &OwnedFd, child: Pid) -> Result<(BTreeSet<(u32, u32)>, Exit)> {
    let raw = rustix::process::Pid::from_raw(child.as_raw()).context("no child")?;
    let end = pidfd_open(raw, PidfdFlags::empty()).context("pidfd_open")?;
    let mut calls = BTreeSet::new();
    let mut exit = None;
    loop {
        let mut ready = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if exit.is_none() {
            ready.push(PollFd::new(end.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled.context("poll the listener")?,
        };
        let ended = ready.get(1).and_then(PollFd::any).unwrap_or(false);
        let events = ready[0].revents().unwrap_or(PollFlags::empty());
        if events.contains(PollFlags::POLLIN) {
            // `None` if the process was killed meanwhile.
            if let Some(call) = seccomp::notified(listener.as_fd())? {
                calls.insert((call.arch, call.number));
                seccomp::let_continue(listener.as_fd(), call.id)?;
            }
        } else if ended {
            exit = Some(wait(child)?);
        } else if events.contains(PollFlags::POLLHUP) {
            let exit = exit.map_or_else(|| wait(child), Ok)?;
            return Ok((calls, exit));
        }
    }
}
// ANCHOR_END: listen

/// A profile that permits these calls and refuses all others.
fn profile(calls: &BTreeSet<(u32, u32)>) -> Profile {
    let mut names: Vec<String> = calls
        .iter()
        .filter_map(|(arch, number)| Abi::of_call(*arch, *number)?.call_name(*number))
        // What it was not asked about.
        .chain(["sendmsg"])
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    let subs = Abi::NATIVE.served_with()[1..].iter();
    Profile {
        default_action: Some(ActionName::Errno),
        default_errno_ret: Some(libc::EPERM as u64),
        arch_map: vec![ArchMap {
            architecture: Abi::NATIVE.profile_name().to_owned(),
            sub_architectures: subs.map(|abi| abi.profile_name().to_owned()).collect(),
        }],
        syscalls: vec![Call {
            names,
            action: Some(ActionName::Allow),
            ..Call::default()
        }],
        ..Profile::default()
    }
}
