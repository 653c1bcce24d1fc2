//! A launcher that is stopped whenever a name comes or goes in the places where
//! containers leave things: ptrace(2). What others do in such a moment, they do
//! in a window that is as wide as they need.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use check::prelude::*;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What becomes of the launcher after such a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It goes on.
    GoOn,
    /// It dies: SIGKILL.
    Kill,
}

/// The end of such a launcher.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit status; 128 + the number of a signal.
    pub status: i32,
    /// What it has said on standard error.
    pub stderr: String,
}

/// The names in some directories.
pub(crate) fn names(places: &[PathBuf]) -> BTreeSet<PathBuf> {
    let entries = places.iter().filter_map(|place| fs::read_dir(place).ok());
    entries
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

/// Runs `step`; each time that the names in `places` have changed calls `moment`
/// with the number of such moments and what is there, while the launcher stands
/// still.
pub(crate) fn paced(
    step: &Step,
    places: &[PathBuf],
    mut moment: impl FnMut(usize, &BTreeSet<PathBuf>) -> Result<Then>,
) -> Result<Ended> {
    let child = waiting(step)?;
    let pid = Pid::from_raw(child.id() as i32);
    let followed = follow(pid, child, places, &mut moment);
    if followed.is_err() {
        // Nobody follows it any more.
        kill(pid, Signal::SIGKILL).ok();
    }
    followed
}

/// The program, not begun: a shell that waits for a line in its place.
fn waiting(step: &Step) -> Result<Child> {
    let program = step.command();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read line && exec \"$@\"", "sh"]);
    command.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run /bin/sh")
}

fn follow(
    pid: Pid,
    mut child: Child,
    places: &[PathBuf],
    moment: &mut dyn FnMut(usize, &BTreeSet<PathBuf>) -> Result<Then>,
) -> Result<Ended> {
    ptrace::attach(pid).context("ptrace(PTRACE_ATTACH)")?;
    let mut before = names(places);
    let mut moments = 0;
    let mut changing = false;
    let mut stdin = child.stdin.take();
    loop {
        let signal = match waitpid(pid, Some(WaitPidFlag::__WALL)).context("waitpid")? {
            WaitStatus::Exited(_, status) => return ended(status, child),
            WaitStatus::Signaled(_, signal, _) => return ended(128 + signal as i32, child),
            WaitStatus::Stopped(_, Signal::SIGSTOP) if stdin.is_some() => {
                ptrace::setoptions(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD)
                    .context("ptrace(PTRACE_SETOPTIONS)")?;
                let mut stdin = stdin.take().context("standard input")?;
                stdin.write_all(b"go\n").context("write to the shell")?;
                None
            }
            WaitStatus::PtraceSyscall(_) => {
                let info = ptrace::syscall_info(pid).context("ptrace(GET_SYSCALL_INFO)")?;
                let now = match (info.op, changing) {
                    (libc::PTRACE_SYSCALL_INFO_EXIT, true) => names(places),
                    _ => before.clone(),
                };
                changing = info.op == libc::PTRACE_SYSCALL_INFO_ENTRY && changes_names(pid);
                if now != before {
                    moments += 1;
                    if moment(moments, &now)? == Then::Kill {
                        kill(pid, Signal::SIGKILL).context("kill")?;
                        waitpid(pid, Some(WaitPidFlag::__WALL)).context("waitpid")?;
                        return ended(137, child);
                    }
                    // Others have come and gone meanwhile.
                    before = names(places);
                }
                None
            }
            // That of its own execve(2).
            WaitStatus::Stopped(_, Signal::SIGTRAP) => None,
            WaitStatus::Stopped(_, signal) => Some(signal),
            _ => None,
        };
        ptrace::syscall(pid, signal).context("ptrace(PTRACE_SYSCALL)")?;
    }
}

/// Whether the call that a process is about to make may make or remove a name:
/// proc_pid_syscall(5).
fn changes_names(pid: Pid) -> bool {
    const CALLS: [i64; 11] = [
        libc::SYS_link,
        libc::SYS_mkdirat,
        libc::SYS_unlinkat,
        libc::SYS_symlinkat,
        libc::SYS_linkat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_mkdir,
        libc::SYS_rmdir,
        libc::SYS_unlink,
        libc::SYS_rename,
    ];
    let text = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let mut words = text.split(' ');
    let call: i64 = words.next().and_then(|n| n.parse().ok()).unwrap_or(-1);
    let flags = words.nth(2).and_then(|word| word.strip_prefix("0x"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags, 16).ok());
    CALLS.contains(&call)
        || call == libc::SYS_symlink
        || call == libc::SYS_openat && flags.unwrap_or(libc::O_CREAT) & libc::O_CREAT != 0
}

/// Starts a program, and waits until it is [`settled`]. To be waited for when the
/// launcher goes on.
pub(crate) fn beside(step: Step) -> Result<Held> {
    let mut held = step.start()?;
    held.let_go();
    settled(&held)?;
    Ok(held)
}

/// Whether a process tries for a lock again and again, and meanwhile waits for
/// a signal: it is in a poll(2) of one descriptor, for some milliseconds
/// (proc_pid_syscall(5)).
fn tries_again(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let mut words = text.split(' ');
    let call = words.next().and_then(|n| n.parse().ok()).unwrap_or(-1);
    let mut argument = |n| {
        let word = words.nth(n)?.strip_prefix("0x")?;
        i64::from_str_radix(word, 16).ok()
    };
    let (descriptors, milliseconds) = (argument(1), argument(0));
    call == libc::SYS_poll
        && descriptors == Some(1)
        && milliseconds.is_some_and(|ms| (1..100).contains(&ms))
}

/// Waits until a program has ended, or waits for a lock that a launcher which
/// stands still may hold (proc_locks(5)).
///
/// # Errors
/// If it does neither.
pub(crate) fn settled(program: &Held) -> Result<()> {
    let pid = program.launcher();
    let came = wait_for(|| {
        let ended = host::process(pid).is_none_or(|process| process.state == 'Z');
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let waits = locks.lines().any(|line| {
            line.contains(" -> ") && line.split_whitespace().any(|word| word == pid.to_string())
        });
        (ended || waits || tries_again(pid)).then_some(())
    });
    expect(
        came.is_some(),
        "it to end, or to wait for a lock",
        "neither",
    )
}

fn ended(status: i32, mut child: Child) -> Result<Ended> {
    let mut stderr = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_string(&mut stderr)
            .context("read its errors")?;
    }
    Ok(Ended { status, stderr })
}
