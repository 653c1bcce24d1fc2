//! The branches of a union: the directories that are stacked.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstatfs, openat};
use rustix::io::Errno;

use crate::beneath::{self, DIRECTORY, Result};
use crate::spelling::{BranchOption, Rights, right_text};
use crate::whiteout;

/// `f_type` of an overlay, a file system stacked on others (statfs(2)).
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;

/// One directory of the stack, held open: it stays the same even if a mount
/// hides it, also that of the union itself.
pub(crate) struct Branch {
    /// The absolute path, for the listing only: nothing is opened by it.
    pub(crate) path: PathBuf,
    pub(crate) access: Rights,
    /// Whether `.wh.` names in it hide files of the branches below.
    pub(crate) whiteouts: bool,
    pub(crate) root: OwnedFd,
}

impl Branch {
    /// Opens the directory. A writable one is locked (flock(2)), so that no
    /// second union writes to it, and unfinished work of an earlier server is
    /// removed from it.
    pub(crate) fn open(option: &BranchOption) -> anyhow::Result<Self> {
        let given = &option.path;
        let path = given
            .canonicalize()
            .with_context(|| format!("branch {given:?}"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            openat(CWD, &path, flags, Mode::empty()).with_context(|| format!("open({path:?})"))?;
        let branch = Branch {
            path,
            access: option.access,
            whiteouts: option.whiteouts,
            root,
        };
        if branch.writable() {
            branch.claim()?;
        }
        Ok(branch)
    }

    fn claim(&self) -> anyhow::Result<()> {
        let path = &self.path;
        // The server of a union that was just unmounted ends a moment later.
        let mut patience = 50;
        loop {
            match flock(&self.root, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if patience > 0 => sleep(Duration::from_millis(20)),
                Err(Errno::WOULDBLOCK) => {
                    bail!("branch {path:?} is written by another union already")
                }
                locked => break locked.with_context(|| format!("flock({path:?})"))?,
            }
            patience -= 1;
        }
        whiteout::clear_temporary(&self.root)
            .with_context(|| format!("remove unfinished copies in {path:?}"))
    }

    /// Whether the union may write to the branch.
    pub(crate) fn writable(&self) -> bool {
        self.access == Rights::Rw
    }

    /// Opens a directory of the branch, for `*at` calls.
    pub(crate) fn dir(&self, path: &Path) -> Result<OwnedFd> {
        self.open_at(path, DIRECTORY)
    }

    /// Opens any file of the branch with `O_PATH`.
    pub(crate) fn place(&self, path: &Path) -> Result<OwnedFd> {
        self.open_at(path, OFlags::PATH)
    }

    /// Opens any file of the branch.
    pub(crate) fn open_at(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        beneath::open(self.root.as_fd(), path, flags)
    }

    /// The branch as `PATH=rw`, in the format of `/sys/fs/aufs/si_*/brN`.
    pub(crate) fn listing(&self) -> Vec<u8> {
        let mut line = self.path.as_os_str().as_encoded_bytes().to_vec();
        line.push(b'=');
        line.extend_from_slice(right_text(self.access, self.whiteouts).as_bytes());
        line
    }

    /// Whether its file system is stacked on others, as overlayfs is:
    /// passthrough then needs one more level.
    pub(crate) fn is_stacked(&self) -> bool {
        fstatfs(&self.root).is_ok_and(|fs| fs.f_type as u64 == OVERLAYFS_SUPER_MAGIC)
    }
}

/// Opens all branches.
///
/// # Errors
/// Names a branch that is missing, is not a directory, is written by another
/// union, or lies inside another branch. AUFS calls the last overlapped and
/// rejects it too.
pub(crate) fn open_all(options: &[BranchOption]) -> anyhow::Result<Vec<Branch>> {
    let branches = options
        .iter()
        .map(Branch::open)
        .collect::<anyhow::Result<Vec<_>>>()?;
    for (i, one) in branches.iter().enumerate() {
        for (j, other) in branches.iter().enumerate() {
            if i != j && one.path.starts_with(&other.path) {
                bail!("branch {:?} overlaps branch {:?}", one.path, other.path);
            }
        }
    }
    Ok(branches)
}
