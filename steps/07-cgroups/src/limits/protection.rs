//! Memory protection: `memory.low` of v2 is limited by that of every group
//! above (cgroup-v2.rst, "limited by memory.low values of all ancestor
//! cgroups"). Below a group with 0, a container's reservation has no effect.
//!
//! A group that we made gets the sum of its containers' reservations. The
//! others are not ours to change: they must protect enough, or it is an error.

use std::path::Path;

use anyhow::{Context, Result, bail};
use kit::say;

use crate::group::file;
use crate::group::parent::{Parent, directories, ours};
use crate::host::hierarchy::Version;

const FILE: &str = "memory.low";

/// Makes every group above `group` protect at least as much as `group`.
///
/// # Errors
/// Names the group that protects less and is not ours to change.
pub(crate) fn raise_above(group: &Path) -> Result<()> {
    let wanted = low(group)?;
    // The root group has no such file.
    let above = group.ancestors().skip(1);
    for dir in above.take_while(|dir| dir.join(FILE).exists()) {
        if ours(dir) {
            if let Some(parent) = Parent::existing(dir)? {
                sum_up(&parent)?;
            }
        } else if low(dir)? < wanted {
            bail!(
                "it would have no effect, because {} protects less: echo {wanted} > {}/{FILE}, or \
                 with systemd: systemctl set-property --runtime {} MemoryLow={wanted}",
                dir.display(),
                dir.display(),
                dir.file_name().unwrap_or_default().display()
            );
        }
    }
    Ok(())
}

/// Leaves a parent. The first above that stays is given what the groups in it
/// still reserve.
pub(crate) fn leave(parent: Parent, version: Version) -> Result<()> {
    match parent.leave(version)? {
        Some(stays) => sum_up(&stays),
        None => Ok(()),
    }
}

/// Sets the protection of a group that we made to the sum of the groups in it.
fn sum_up(parent: &Parent) -> Result<()> {
    let file = parent.dir.join(FILE);
    if !file.exists() {
        return Ok(());
    }
    let mut sum: u64 = 0;
    for below in directories(&parent.dir)? {
        sum = sum.saturating_add(low(&below)?);
    }
    if low(&parent.dir)? != sum {
        say!("write {sum} to {}", file.display());
        file::write(&file, &sum.to_string())?;
    }
    Ok(())
}

/// The bytes that a group protects; `u64::MAX` for `max`. A missing group
/// protects 0.
fn low(dir: &Path) -> Result<u64> {
    match file::read_if_there(&dir.join(FILE))?.as_deref() {
        None => Ok(0),
        Some("max") => Ok(u64::MAX),
        Some(text) => text
            .parse()
            .with_context(|| format!("{text:?} in {}/{FILE}", dir.display())),
    }
}
