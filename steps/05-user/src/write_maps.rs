//! Writing the maps, from outside, while the child waits: user_namespaces(7),
//! “Defining user and group ID mappings”.
//!
//! The child could write only a map of one ID itself. For more, the writer must
//! have `CAP_SETUID` or `CAP_SETGID` in the *parent* namespace, which the child
//! gave up when it was born in the new one. And the child must not go on before
//! the maps are written. Until then there is no ID that it could take:
//! setresuid(2) fails with `EINVAL`, because 0 is not mapped yet, and
//! setgroups(2), since Linux 3.19, with `EPERM`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use kit::say;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, write};

use crate::caller::Caller;
use crate::choice::{Mapping, Writer};
use crate::diagnose;
use crate::map::{IdMap, file_content};

// ANCHOR: write_map
/// Writes `mapping` for the new user namespace of `child`. A map can be written
/// once; a second write fails with `EPERM`. An error of newuidmap(1) or
/// newgidmap(1) includes the cause, if a known one applies.
pub fn write_map(child: Pid, mapping: &Mapping) -> Result<()> {
    let Mapping { ids, maps, writer } = mapping;
    say!(
        "{} of process {child}: {}",
        ids.file(),
        file_content(maps).trim_end().replace('\n', ", ")
    );
    match writer {
        Writer::Privileged | Writer::Own => write_file(child, ids.file(), &file_content(maps)),
        Writer::Helper(program) => run_helper(program, child, maps)
            .or_else(|error| bail!("{error:#}; {}", why_helper_failed(mapping)?)),
    }
}
// ANCHOR_END: write_map

// ANCHOR: deny_setgroups
/// Denies setgroups(2) to everybody in the namespace of `child`, for good.
/// Since Linux 3.19 the kernel takes a gid_map from an unprivileged writer only
/// after this. Otherwise a process could drop a group that bars it from a file:
/// a mode such as 0705 gives the group less than others. An older kernel has no
/// such file and does not require it.
pub fn deny_setgroups(child: Pid) -> Result<()> {
    say!("setgroups of process {child}: deny");
    match write_file(child, "setgroups", "deny") {
        Err(error) if error.downcast_ref() == Some(&Errno::ENOENT) => Ok(()),
        written => written,
    }
}
// ANCHOR_END: deny_setgroups

/// Writes the file in one write(2): the kernel takes the whole map or nothing.
fn write_file(child: Pid, file: &str, content: &str) -> Result<()> {
    let path = format!("/proc/{child}/{file}");
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    open(path.as_str(), flags, Mode::empty())
        .and_then(|file| write(file, content.as_bytes()))
        .map(drop)
        .with_context(|| format!("write {content:?} to {path}"))
}

fn run_helper(program: &Path, child: Pid, maps: &[IdMap]) -> Result<()> {
    let output = Command::new(program)
        .arg(child.to_string())
        .args(
            maps.iter()
                .flat_map(|map| [map.inside, map.outside, map.count])
                .map(|number| number.to_string()),
        )
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("execute {}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    match complaint.lines().last() {
        Some(line) => bail!("{line}"),
        None => bail!("{} failed: {}", program.display(), output.status),
    }
}

fn why_helper_failed(mapping: &Mapping) -> Result<String> {
    diagnose::helper_refused(mapping, &Caller::look()?)
}
