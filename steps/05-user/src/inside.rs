//! Work of an ordinary user on the files of mapped users. The files that a
//! container's users have made belong to the caller's subordinate IDs, and the
//! caller may not touch them. Root of a user namespace that maps all these IDs
//! may (user_namespaces(7), “Capabilities”).

use std::fs::File;
use std::io::{ErrorKind, Read, Write};

use anyhow::{Context, Result, anyhow, bail};
use kit::{say, sys};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, pipe2, setresgid, setresuid};

use crate::UserSettings;
use crate::caller::Caller;
use crate::choice::{Mapping, mappings};
use crate::write_maps;

/// Does `work` in a child process, as root of a user namespace in which root is
/// the caller and the other IDs are the caller's ranges in /etc/subuid and
/// /etc/subgid. The child is killed if this process ends. The caller must be
/// single-threaded.
///
/// # Errors
/// The error of `work`, as text; a caller without ranges, or one that may not
/// create a user namespace.
pub fn as_mapped_root(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let args = UserSettings {
        map_auto: true,
        ..UserSettings::default()
    };
    let mappings = mappings(&args, &Caller::look()?)?;
    let launcher = Pid::this();
    in_new_namespace(
        &mappings,
        |child| {
            say!("process {child} is root of a user namespace of its own");
            Ok(())
        },
        || become_root(launcher).and_then(|()| work()),
    )
}

/// Forks a process into a new user namespace with these maps. When they are
/// written, `meanwhile` runs here, with the process's PID; then the process
/// does `work` and ends. An error of `work` arrives as text. The caller must be
/// single-threaded.
pub(crate) fn in_new_namespace<T>(
    mappings: &[Mapping],
    meanwhile: impl FnOnce(Pid) -> Result<T>,
    work: impl FnOnce() -> Result<()>,
) -> Result<T> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).context("pipe2");
    let ((answer, answered), (mapped, map)) = (pipe()?, pipe()?);
    let ForkResult::Parent { child } = sys::fork()? else {
        drop((answer, map));
        let mut answered = File::from(answered);
        let done = enter(&mut answered, mapped.into()).and_then(|()| work());
        let told = match done {
            Ok(()) => answered.write_all(&[DONE]),
            Err(error) => answered.write_all(format!("{error:#}").as_bytes()),
        };
        sys::exit(u8::from(told.is_err()))
    };
    drop((answered, mapped));
    let mut answer = File::from(answer);
    let done = expect(&mut answer).and_then(|()| {
        for mapping in mappings {
            write_maps::write_map(child, mapping)?;
        }
        let made = meanwhile(child)?;
        match File::from(map).write_all(&[DONE]) {
            // The child has ended, and says why.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written.context("write to a pipe")?,
        }
        expect(&mut answer)?;
        Ok(made)
    });
    // The child ends when its pipe does.
    drop(answer);
    match waitpid(child, None).with_context(|| format!("waitpid({child})"))? {
        WaitStatus::Signaled(_, signal, _) if done.is_err() => bail!("the child died of {signal}"),
        _ => done,
    }
}

/// The byte that reports a part as done.
const DONE: u8 = 0;

fn expect(from: &mut File) -> Result<()> {
    let mut first = [DONE];
    match from.read(&mut first).context("read from a pipe")? {
        0 => bail!("the child died without a report"),
        _ if first == [DONE] => Ok(()),
        _ => {
            let mut words = first.to_vec();
            from.read_to_end(&mut words).context("read from a pipe")?;
            Err(anyhow!("{}", String::from_utf8_lossy(&words)))
        }
    }
}

fn enter(answered: &mut File, mut mapped: File) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare(CLONE_NEWUSER)")?;
    answered.write_all(&[DONE]).context("write to a pipe")?;
    if mapped.read(&mut [0]).context("read from a pipe")? == 0 {
        bail!("the maps were not written");
    }
    Ok(())
}

fn become_root(launcher: Pid) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).context("setresgid(0)")?;
    setresuid(uid, uid, uid).context("setresuid(0)")?;
    prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    if Pid::parent() != launcher {
        bail!("the launcher is gone");
    }
    Ok(())
}
