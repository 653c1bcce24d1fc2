//! Locks: flock(2), released when the file is closed, also by the death of its
//! process.
//!
//! Several processes make entries in a directory, and any of them may remove
//! the entries whose owner has died. The making of an entry and the claim of
//! its owner must look like one act. A process that makes an entry therefore
//! holds a shared lock on the directory, and a process that looks for abandoned
//! entries holds an exclusive lock ([`hold`]). An entry without an owner is
//! then abandoned for good.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;

use crate::SignalSet;
use crate::sys::signals::signalfd;

/// A lock that is held. Dropping it releases it.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Releases the lock, also if a child has a copy of its descriptor.
    pub fn release(self) -> Result<()> {
        flock(&self.file, FlockOperation::Unlock).context("flock(LOCK_UN)")
    }
}

/// The mode in which a directory is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Shared: to make entries, as others may at the same time.
    Making,
    /// Exclusive: to find abandoned entries, while nobody makes any.
    Judging,
}

/// The lock file of such a directory. No ID and no name begins with a dot.
pub const HELD: &str = ".lock";

/// Waits for the lock of `directory`, on its file `.lock`. Hold it only while
/// making or examining entries, and not while waiting for another lock.
pub fn hold(directory: &Path, turn: Turn) -> Result<Lock> {
    LockFile::of(directory)?.wait(turn)
}

/// A lock file, open but not locked: for a child that may wait for the lock but
/// may not enter the directory.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Opens the file `.lock` in `directory`. Makes it if it is missing.
    pub fn of(directory: &Path) -> Result<Self> {
        Self::open(directory.join(HELD))
    }

    /// Opens the file `path`. Makes it if it is missing.
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

    /// Waits for the lock.
    pub fn wait(self, turn: Turn) -> Result<Lock> {
        wait(&self.file, turn, &self.path)?;
        Ok(Lock { file: self.file })
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens a directory that others may remove, and waits for its lock. Returns
/// `None` if it does not exist, or was removed or replaced during the wait.
pub fn directory(path: &Path, turn: Turn) -> Result<Option<File>> {
    let Some(file) = open_directory(path)? else {
        return Ok(None);
    };
    wait(&file, turn, path)?;
    Ok(is_at(&file, path)?.then_some(file))
}

/// Opens a directory, without following a link in its place. Returns `None` if
/// it does not exist.
pub fn open_directory(path: &Path) -> Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file.into())),
        // ENODEV: a cgroup that is being removed.
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("open({path:?}, O_DIRECTORY)")),
    }
}

/// Takes an exclusive lock if it is free. Returns whether it was.
pub fn try_alone(file: &File, path: &Path) -> Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno).with_context(|| format!("flock({path:?}, LOCK_EX | LOCK_NB)")),
    }
}

/// Takes an exclusive lock if it becomes free within `patience`. Returns whether
/// it did. flock(2) has no time limit, so it is tried again and again.
pub fn try_within(file: &File, path: &Path, patience: Duration) -> Result<bool> {
    let end = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    while !try_alone(file, path)? {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(16));
    }
    Ok(true)
}

/// Waits for the lock of an open file. Signals do not interrupt the wait, but
/// for those of [`unless_pending`].
pub fn wait(file: &File, turn: Turn, path: &Path) -> Result<()> {
    let ending = SignalSet(ENDING.load(Ordering::Relaxed));
    if ending != SignalSet::EMPTY {
        return wait_unless_pending(file, turn, path, ending);
    }
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

/// The signals that end a wait for a lock in this process.
static ENDING: AtomicU64 = AtomicU64::new(SignalSet::EMPTY.0);

/// Runs `work`. Meanwhile a wait for a lock fails when one of `signals`, which
/// are blocked, is pending. The signal stays pending.
pub fn unless_pending<T>(signals: SignalSet, work: impl FnOnce() -> T) -> T {
    let before = ENDING.swap(signals.0, Ordering::Relaxed);
    let result = work();
    ENDING.store(before, Ordering::Relaxed);
    result
}

/// Waits for a lock or a signal. No system call waits for both: flock(2) does
/// not return for a blocked signal, and an unblocked one could arrive just
/// before the call. The lock is therefore tried again and again.
fn wait_unless_pending(file: &File, turn: Turn, path: &Path, ending: SignalSet) -> Result<()> {
    let operation = match turn {
        Turn::Making => FlockOperation::NonBlockingLockShared,
        Turn::Judging => FlockOperation::NonBlockingLockExclusive,
    };
    let mut signals = None;
    let mut milliseconds: u8 = 1;
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(errno) => return Err(errno).with_context(|| format!("flock({path:?})")),
        }
        let signals = match &signals {
            Some(signals) => signals,
            None => signals.insert(signalfd(ending)?),
        };
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(milliseconds)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => milliseconds = (milliseconds * 2).min(16),
            Ok(_) => bail!("flock({path:?}): a signal arrived while somebody held the lock"),
            Err(errno) => return Err(errno).context("poll"),
        }
    }
}

/// Whether `path` still names the file that was opened there.
pub fn is_at(file: &File, path: &Path) -> Result<bool> {
    let ours = file
        .metadata()
        .with_context(|| format!("fstat({path:?})"))?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("stat({path:?})")),
    }
}
