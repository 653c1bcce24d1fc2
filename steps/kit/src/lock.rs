//! Locks: flock(2), given back when the file is closed, also by death.
//!
//! What others may sweep is found by its name. So between its name and its owner
//! there must be no moment: who makes it has its directory shared, and who looks
//! for what is left has it alone ([`hold`]). What is there then without an owner
//! has lost it, and is not about to get one.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

/// The right to change something; given back when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// What a directory of things that others may sweep is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// To make something in it, together with others who do.
    Making,
    /// To tell what has lost its owner, while nobody makes anything.
    Judging,
}

/// The file in such a directory that is locked. No id and no name begins so.
pub const HELD: &str = ".lock";

/// Waits until `directory` is free for this turn, by its file `.lock`. To be held
/// for the moment of making or looking only, and not by one who waits for another
/// lock meanwhile.
///
/// # Errors
/// Those of open(2) and flock(2).
pub fn hold(directory: &Path, turn: Turn) -> Result<Lock> {
    LockFile::of(directory)?.wait(turn)
}

/// The file of such a lock, open and not locked: for a child that may wait for its
/// turn and may not enter the directory.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// The file `.lock` in `directory`, made if there is none.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn of(directory: &Path) -> Result<Self> {
        Self::open(directory.join(HELD))
    }

    /// The file `path`, made if there is none.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(&path)
            .with_context(|| format!("open({path:?}, O_CREAT)"))?;
        Ok(LockFile { file, path })
    }

    /// Waits for this turn.
    ///
    /// # Errors
    /// Those of flock(2).
    pub fn wait(self, turn: Turn) -> Result<Lock> {
        wait(&self.file, turn, &self.path)?;
        Ok(Lock { _file: self.file })
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens a directory that others may remove, and waits for it; `None` if it is
/// not there, or was removed, or replaced by another one, while this waited.
///
/// # Errors
/// Those of open(2) and flock(2).
pub fn directory(path: &Path, turn: Turn) -> Result<Option<File>> {
    let Some(file) = open_directory(path)? else {
        return Ok(None);
    };
    wait(&file, turn, path)?;
    Ok(is_at(&file, path)?.then_some(file))
}

/// The same without waiting; also `None` if somebody holds it.
///
/// # Errors
/// As there.
pub fn directory_alone(path: &Path) -> Result<Option<File>> {
    let Some(file) = open_directory(path)? else {
        return Ok(None);
    };
    let alone = try_alone(&file, path)? && is_at(&file, path)?;
    Ok(alone.then_some(file))
}

/// Opens a directory, and follows no link in the place of it; `None` if there is
/// none.
///
/// # Errors
/// Those of open(2).
pub fn open_directory(path: &Path) -> Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file.into())),
        // ENODEV: a control group that goes.
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("open({path:?}, O_DIRECTORY)")),
    }
}

/// Takes a lock that nobody shares, if nobody has it; whether that was so.
///
/// # Errors
/// Those of flock(2).
pub fn try_alone(file: &File, path: &Path) -> Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno).with_context(|| format!("flock({path:?}, LOCK_EX | LOCK_NB)")),
    }
}

/// Waits for the lock of an open file, through signals.
///
/// # Errors
/// Those of flock(2).
pub fn wait(file: &File, turn: Turn, path: &Path) -> Result<()> {
    let operation = match turn {
        Turn::Making => FlockOperation::LockShared,
        Turn::Judging => FlockOperation::LockExclusive,
    };
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).with_context(|| format!("flock({path:?})")),
        }
    }
}

/// Whether `path` still means the file that was opened there.
///
/// # Errors
/// Those of fstat(2).
pub fn is_at(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().context("fstat")?;
    Ok(match fs::symlink_metadata(path) {
        Ok(there) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
        Err(_) => false,
    })
}
