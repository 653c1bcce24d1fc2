//! The part of the machine that a program under test must not change: programs,
//! mounts, and what the kernel starts by itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::proc;
use crate::workspace;

/// Programs of the machine that checks call, and places from which others could
/// take precedence.
const SYSTEM: [&str; 6] = [
    "/bin",
    "/sbin",
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.preload",
];

/// Sysctls that name what the kernel executes by itself, as root: core(5), and
/// `Documentation/admin-guide/sysctl/kernel.rst`.
const HELPERS: [&str; 2] = ["sys/kernel/core_pattern", "sys/kernel/modprobe"];

/// Directories in which a check, and what it starts, may leave files and
/// mounts: later checks call nothing in them.
pub(super) const SCRATCH: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// A record of everything that must not change.
#[derive(PartialEq, Eq)]
pub(super) struct Picture {
    files: BTreeMap<PathBuf, Content>,
    mounts: Vec<String>,
    helpers: Vec<String>,
}

#[derive(PartialEq, Eq)]
enum Content {
    File(u32, Vec<u8>),
    Link(PathBuf),
    Other(u32),
}

impl Picture {
    /// Records the present state.
    pub(super) fn take(proc: &OwnedFd) -> Result<Picture> {
        let mut files = BTreeMap::new();
        let ours = [workspace::bin(), workspace::rootfs("busybox")];
        for path in SYSTEM.iter().map(PathBuf::from).chain(ours) {
            look(&path, &mut files)?;
        }
        let mut mounts: Vec<String> = proc::read(proc, "self/mountinfo")?
            .lines()
            .filter_map(mounted)
            .collect();
        mounts.sort();
        let helpers = HELPERS.map(|file| {
            let value = proc::read(proc, file).unwrap_or_default();
            format!("{file} {}", value.trim())
        });
        Ok(Picture {
            files,
            mounts,
            helpers: helpers.into(),
        })
    }

    /// Compares with a later picture. The error names a change.
    pub(super) fn compare(&self, now: &Picture) -> Result<()> {
        let names = |picture: &Picture| picture.files.keys().cloned().collect::<Vec<_>>();
        let changed = names(self)
            .into_iter()
            .chain(names(now))
            .find(|file| self.files.get(file) != now.files.get(file));
        if let Some(file) = changed {
            bail!("{} was changed", file.display());
        }
        if let Some(mount) = differing(&self.mounts, &now.mounts) {
            bail!("the machine's mounts were changed: {mount}");
        }
        if let Some(helper) = differing(&self.helpers, &now.helpers) {
            bail!("what the kernel starts by itself was changed: {helper}");
        }
        Ok(())
    }
}

/// The file system and the mount point in a line of proc_pid_mountinfo(5);
/// `None` if it is in a scratch directory.
fn mounted(line: &str) -> Option<String> {
    let (before, after) = line.split_once(" - ")?;
    let words: Vec<&str> = before.split(' ').collect();
    let at = words.get(4)?;
    let scratch = SCRATCH.iter().any(|dir| {
        at.strip_prefix(dir)
            .is_some_and(|rest| rest.starts_with('/'))
    });
    let kind = after.split(' ').next()?;
    (!scratch).then(|| format!("{kind} {} on {at}", words[3]))
}

/// Records `path` and everything below it.
fn look(path: &Path, files: &mut BTreeMap<PathBuf, Content>) -> Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        meta => meta.with_context(|| format!("stat {}", path.display()))?,
    };
    let mode = meta.permissions().mode();
    let content = if meta.is_symlink() {
        let target = fs::read_link(path).with_context(|| format!("readlink {}", path.display()))?;
        Content::Link(target)
    } else if meta.is_file() {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Content::File(mode, bytes)
    } else {
        if meta.is_dir() && !path.ends_with("lib/modules") {
            for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
                let entry = entry.with_context(|| format!("list {}", path.display()))?;
                look(&entry.path(), files)?;
            }
        }
        Content::Other(mode)
    };
    files.insert(path.to_owned(), content);
    Ok(())
}

/// A line that only one of the two lists contains.
fn differing<'a>(before: &'a [String], now: &'a [String]) -> Option<&'a String> {
    let gone = before.iter().find(|line| !now.contains(line));
    gone.or_else(|| now.iter().find(|line| !before.contains(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_checks_do_not_count() {
        let line = |at: &str| format!("30 25 0:26 / {at} rw shared:1 - tmpfs tmpfs rw");
        assert_eq!(mounted(&line("/proc")).as_deref(), Some("tmpfs / on /proc"));
        assert_eq!(mounted(&line("/tmp")).as_deref(), Some("tmpfs / on /tmp"));
        assert!(mounted(&line("/tmp/drydock-check-x/m")).is_none());
    }

    #[test]
    fn a_change_is_named() -> Result<()> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("probe"), "1")?;
        let picture = || -> Result<_> {
            let mut files = BTreeMap::new();
            look(dir.path(), &mut files)?;
            Ok(files)
        };
        let before = picture()?;
        assert!(before == picture()?);
        fs::write(dir.path().join("probe"), "2")?;
        assert!(before != picture()?);
        Ok(())
    }
}
