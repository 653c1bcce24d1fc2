//! A trial mount of overlay: there is no other way to know whether it works
//! below a directory. The file system may lack what an upperdir needs (extended
//! attributes, whiteouts, d_type), and whether an unprivileged user may mount
//! depends on the kernel's version, build and settings.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use kit::sys;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, pipe};

use super::options::{Attributes, Stack};
use super::stack::StackView;
use crate::driver::View;
use crate::layers::trash;
use crate::mounts::private;
use crate::tree::remove::remove;
use kit::lock::{Turn, hold};
use kit::own::make;

/// Why overlay does not work below `root`; `None` if it does. Mounts in a
/// private mount namespace and leaves nothing behind.
pub(crate) fn refused(root: &Path) -> Result<Option<String>> {
    make(root, 0o711)?;
    let run = root.join("run");
    make(&run, 0o700)?;
    // One trial at a time: the remains of another one are those of a killed
    // process.
    let _alone = hold(&run, Turn::Judging)?;
    trash::sweep(&run)?;
    let trial = run.join(".trial");
    for name in [
        "l/lower",
        "l/other",
        "upper/diff",
        "upper/work",
        "upper/merged",
    ] {
        make(&trial.join(name), 0o700)?;
    }
    let found = fork_and_try(&trial);
    remove(&trial)?;
    found
}

fn fork_and_try(trial: &Path) -> Result<Option<String>> {
    let (reader, writer) = pipe().context("pipe")?;
    let ForkResult::Parent { child } = sys::fork()? else {
        drop(reader);
        let told = match try_it(trial) {
            Ok(()) => Ok(()),
            Err(error) => fs::File::from(writer).write_all(format!("{error:#}").as_bytes()),
        };
        sys::exit(u8::from(told.is_err()))
    };
    drop(writer);
    let mut reason = String::new();
    fs::File::from(reader)
        .read_to_string(&mut reason)
        .context("read from a pipe")?;
    match waitpid(child, None).with_context(|| format!("waitpid({child})"))? {
        WaitStatus::Exited(_, 0) if reason.is_empty() => Ok(None),
        WaitStatus::Exited(..) if !reason.is_empty() => Ok(Some(reason)),
        other => Ok(Some(format!("the trial ended with {other:?}"))),
    }
}

fn try_it(trial: &Path) -> Result<()> {
    private::enter()?;
    let stack = Stack {
        lower: vec!["l/lower".into(), "l/other".into()],
        upper: Some("upper".parse()?),
    };
    let mut view = StackView::new(trial, stack, Attributes::of_caller()?);
    view.detached().map(drop)
}
