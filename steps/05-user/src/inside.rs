//! Work on files of mapped users, by an ordinary user: what a container's users
//! have made belongs to the caller's subordinate IDs, and the caller may not
//! touch it. Root of a user namespace that maps them all may
//! (user_namespaces(7), “Capabilities”).

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, pipe2, setresgid, setresuid};
use process::{say, sys};

use crate::UserArgs;
use crate::caller::Caller;
use crate::choice::mapping;
use crate::ids::Ids;
use crate::write_maps;

/// Does `work` in a process of its own, as root of a user namespace in which root
/// is the caller and the others are the caller's ranges in /etc/subuid and
/// /etc/subgid. The process ends with this one.
///
/// # Errors
/// The work's own, in words; where the caller has no ranges, or may not have such
/// a namespace; where the caller has threads.
pub fn as_mapped_root(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let args = UserArgs {
        map_auto: true,
        ..UserArgs::default()
    };
    let caller = Caller::look()?;
    let mut mappings = Vec::new();
    for ids in [Ids::User, Ids::Group] {
        mappings.extend(mapping(&args, ids, &caller)?);
    }
    let pipe = || pipe2(OFlag::O_CLOEXEC).context("pipe2");
    let ((answer, answered), (mapped, map)) = (pipe()?, pipe()?);
    let launcher = Pid::this();
    let ForkResult::Parent { child } = sys::fork()? else {
        drop((answer, map));
        let mut answered = File::from(answered);
        let done = become_root(launcher, &mut answered, mapped.into()).and_then(|()| work());
        let told = match done {
            Ok(()) => answered.write_all(&[DONE]),
            Err(error) => answered.write_all(format!("{error:#}").as_bytes()),
        };
        sys::exit(u8::from(told.is_err()))
    };
    drop((answered, mapped));
    let mut answer = File::from(answer);
    let mut done = expect(&mut answer);
    if done.is_ok() {
        say!("process {child} is root of a user namespace of its own");
        done = mappings
            .iter()
            .try_for_each(|mapping| write_maps::write_map(child, mapping))
            .and_then(|()| File::from(map).write_all(&[DONE]).context("tell the child"))
            .and_then(|()| expect(&mut answer));
    } else {
        drop(map);
    }
    // It ends when its pipe does.
    drop(answer);
    match waitpid(child, None).with_context(|| format!("waitpid({child})"))? {
        WaitStatus::Signaled(_, signal, _) if done.is_err() => bail!("the child died of {signal}"),
        _ => done,
    }
}

/// The byte that says that a part is done.
const DONE: u8 = 0;

fn expect(from: &mut File) -> Result<()> {
    let mut first = [DONE];
    match from.read(&mut first).context("read from a pipe")? {
        0 => bail!("the child died without a word"),
        _ if first == [DONE] => Ok(()),
        _ => {
            let mut words = first.to_vec();
            from.read_to_end(&mut words).context("read from a pipe")?;
            Err(anyhow!("{}", String::from_utf8_lossy(&words)))
        }
    }
}

fn become_root(launcher: Pid, answered: &mut File, mut mapped: File) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare(CLONE_NEWUSER)")?;
    answered.write_all(&[DONE]).context("write to a pipe")?;
    if mapped.read(&mut [0]).context("read from a pipe")? == 0 {
        bail!("the maps were not written");
    }
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).context("setresgid(0)")?;
    setresuid(uid, uid, uid).context("setresuid(0)")?;
    prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    if Pid::parent() != launcher {
        bail!("the launcher is gone");
    }
    Ok(())
}
