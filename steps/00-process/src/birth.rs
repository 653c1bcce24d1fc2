//! The creation of the child: clone(2) into the namespaces of the isolations.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;

use anyhow::{Context, Error, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, pipe2};

use crate::failure::Report;
use crate::isolation::Isolation;
use kit::sys;

// ANCHOR: clone_child
/// Clones the child into the new namespaces that the isolations request, and
/// into the namespaces of other processes that they join.
pub(crate) fn clone_child(isolations: &[Box<dyn Isolation>]) -> Result<ForkResult> {
    // ANCHOR: exercise_clone_the_child
    let clone = |more| {
        let namespaces = isolations
            .iter()
            .fold(more, |all, isolation| all | isolation.namespaces());
        let cgroup = isolations.iter().find_map(|isolation| isolation.cgroup());
        sys::clone3(namespaces, cgroup).map_err(|error| explained(error, isolations))
    };
    let joins: Vec<_> = isolations
        .iter()
        .filter_map(|isolation| Some((isolation, isolation.joins()?)))
        .collect();
    if joins.is_empty() {
        return clone(CloneFlags::empty());
    }
    by_messenger(|| {
        for (isolation, (process, kinds)) in joins {
            join(process, kinds)
                .map_err(|error| explained(error, isolations))
                .with_context(|| isolation.name())?;
        }
        clone(CloneFlags::CLONE_PARENT)
    })
    // ANCHOR_END: exercise_clone_the_child
}
// ANCHOR_END: clone_child

fn join(process: BorrowedFd<'_>, kinds: CloneFlags) -> Result<()> {
    let Err(errno) = setns(process, kinds) else {
        return Ok(());
    };
    let joined = Err(errno).with_context(|| format!("setns({})", sys::names(kinds)));
    match errno {
        Errno::ESRCH => joined.context("the process to be joined has ended"),
        Errno::EINVAL => joined.context(
            "a PID namespace can be joined only from itself or from an ancestor, and a namespace \
             by a pidfd only since Linux 5.8",
        ),
        _ => joined,
    }
}

// ANCHOR: by_messenger
/// Calls `clone` in a short-lived messenger process. The messenger enters the
/// namespaces to be joined and there clones the child as its own sibling
/// (`CLONE_PARENT`), that is, as the launcher's child.
///
/// The launcher cannot enter them itself, because it could never leave a user
/// namespace again (setns(2)). The child cannot enter them after its creation:
/// its new namespaces would belong to the launcher's user namespace instead of
/// the joined one (user_namespaces(7)), and a running process cannot move into
/// a PID namespace.
fn by_messenger(clone: impl FnOnce() -> Result<ForkResult>) -> Result<ForkResult> {
    let (message, tell) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
    let ForkResult::Parent { child: messenger } = sys::fork()? else {
        drop(message);
        let mut tell = File::from(tell);
        let told = match clone() {
            Ok(ForkResult::Child) => return Ok(ForkResult::Child),
            Ok(ForkResult::Parent { child }) => tell.write_all(child.to_string().as_bytes()),
            Err(error) => tell.write_all(&Report::Failed(error).encode()),
        };
        // An empty message tells the launcher that something failed.
        sys::exit(u8::from(told.is_err()))
    };
    drop(tell);
    let mut bytes = Vec::new();
    File::from(message)
        .read_to_end(&mut bytes)
        .context("read from the messenger's pipe")?;
    waitpid(messenger, None).with_context(|| format!("waitpid({messenger})"))?;
    if let Some(pid) = str::from_utf8(&bytes).ok().and_then(|s| s.parse().ok()) {
        let child = Pid::from_raw(pid);
        return Ok(ForkResult::Parent { child });
    }
    Err(match Report::decode(&bytes) {
        Some(Report::Failed(error)) => error,
        _ => anyhow!("the process that joins the namespaces died"),
    })
}
// ANCHOR_END: by_messenger

/// Adds the remedy to an error of clone(2) or setns(2). The answer of an
/// isolation takes precedence over the general one.
fn explained(error: Error, isolations: &[Box<dyn Isolation>]) -> Error {
    let Some(errno) = error.downcast_ref::<Errno>() else {
        return error;
    };
    let known = isolations
        .iter()
        .find_map(|isolation| isolation.why_refused(*errno));
    let remedy = match (known, errno) {
        (Some(known), _) => known,
        (None, Errno::EPERM) => "namespaces need root: use sudo, or step-05, whose user namespace \
                                 needs none, or the virtual machine (just vm)"
            .to_owned(),
        (None, Errno::ENOSPC | Errno::EUSERS) => "a limit on namespaces is reached: see the \
                                                  max_*_namespaces files in /proc/sys/user"
            .to_owned(),
        _ => return error,
    };
    anyhow!("{error:#}; {remedy}")
}
