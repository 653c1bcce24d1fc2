//! What the checks of step 05 have in common: users, their programs, maps.

use std::fs;
use std::path::Path;
use std::process::Command;

use check::prelude::*;

/// What the kernel calls who is not mapped: /proc/sys/kernel/overflowuid.
pub(crate) const NOBODY: u32 = 65534;

/// The UID, and the GID, of an ordinary user that no solution can know.
pub(crate) fn somebody(c: &Check) -> u32 {
    20_000 + c.number(20_000) as u32
}

/// A call of the step's program by this user. `more` are options of
/// `probe as`: groups, another /etc.
pub(crate) fn called_by(c: &Check, uid: u32, more: &[&str]) -> Result<Step> {
    let bin = c.programs_for_all()?;
    Ok(c.other_program("probe")
        .args(["as", "--uid", &uid.to_string()])
        .args(more)
        .args(["--"])
        .args([bin.join("step-05")])
        .env(
            "PATH",
            format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()),
        ))
}

/// Makes a whole tree somebody's.
pub(crate) fn give(tree: &Path, uid: u32) -> Result<()> {
    let status = Command::new("chown")
        .args(["-R", "-h", &format!("{uid}:{uid}")])
        .arg(tree)
        .status()
        .context("run chown -R")?;
    anyhow::ensure!(status.success(), "chown -R {uid} {tree:?}: {status}");
    Ok(())
}

/// The four UIDs, or GIDs, of a process as the host sees them, if they are one.
pub(crate) fn on_host(pid: i32, field: &str) -> Result<u32> {
    let ids = host::status_field(pid, field).unwrap_or_default();
    let first = ids.split(' ').next().unwrap_or_default();
    match first.parse() {
        Ok(id) if ids.split(' ').all(|other| other == first) => Ok(id),
        _ => Err(failed(
            format!("one {field} on the host"),
            format!("{ids:?}"),
        )),
    }
}

pub(crate) fn user_namespace(seen: &Seen) -> Result<u64> {
    seen.namespaces
        .get("user")
        .copied()
        .ok_or_else(|| failed("a user namespace in /proc/self/ns", "none"))
}

pub(crate) fn hosts_user_namespace() -> Result<u64> {
    Ok(host::namespaces("self")?["user"])
}

pub(crate) fn setgroups_of(pid: i32) -> Result<String> {
    let file = format!("/proc/{pid}/setgroups");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    Ok(text.trim().to_owned())
}

pub(crate) fn map(first: u32, outside: u32, count: u32) -> [u64; 3] {
    [first, outside, count].map(u64::from)
}

pub(crate) fn option(first: u32, outside: u32, count: u32) -> String {
    format!("{first}:{outside}:{count}")
}
