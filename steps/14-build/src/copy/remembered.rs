//! Digests of files, from one build to the next: to read a large context again
//! takes longer than to build it.
//!
//! ```text
//! ROOT/build/digests/HEX     by context: what its files were, and their digests
//! ```
//!
//! A digest holds for a file as long as its status says that nothing has changed:
//! device, inode number, size, times, mode and owner. Who writes to a file may set
//! its time of modification back, but not that of its last change of status
//! (`st_ctim`), which only the kernel sets (inode(7)). But the kernel's clock has a
//! grain: a file that is written twice within one has the same time before and
//! after. So a digest is remembered only if the file was left alone for longer than
//! that when the digest was taken: a later write is then seen by its time.
//!
//! Two things are out of its sight: a write through a mapping that was made before
//! and whose page is still dirty (mmap(2): the time may change as late as at
//! msync(2)), and a file system that does not keep `st_ctim` itself. Of the latter
//! nothing is remembered.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use engine::image::digest::Digest;
use kit::atomic_file::write_file;
use kit::own::{make, read_own, remove_file};
use rustix::fs::{Stat, fstatfs};
use sha2::{Digest as _, Sha256};

/// What the file begins with.
const HEAD: &[u8; 16] = b"drydock digest 1";

/// Longer than the grain of any clock: ext4 with small inodes counts seconds.
const GRAIN: Duration = Duration::from_secs(2);

/// The most files of a context that are remembered: 18 MB.
const MOST: usize = 200_000;

/// The most contexts.
const CONTEXTS: usize = 32;

/// File systems whose `st_ctim` the kernel sets at each change, by `f_type`
/// (statfs(2)): ext2 to ext4, XFS, Btrfs, tmpfs, overlay, F2FS, ZFS, bcachefs.
const KNOWN: [u32; 8] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0x794c_7630,
    0xf2f5_2010,
    0x2fc1_2fc1,
    0xca45_1a4e,
];

/// Bytes of a status, and of a digest.
const STATUS: usize = 60;
const DIGEST: usize = 32;

/// What says that a file is the same.
type Status = [u8; STATUS];

type Digests = HashMap<Status, [u8; DIGEST]>;

/// What is remembered of a context.
#[derive(Debug)]
pub struct Remembered {
    path: PathBuf,
    before: OnceLock<Digests>,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    digests: Digests,
    /// Whether one of them was not known before.
    is_new: bool,
    /// By device: whether its file system is one of those that are known.
    known: HashMap<u64, bool>,
}

impl Remembered {
    /// What is remembered of the files in `directory`. Reads nothing yet.
    pub fn of(root: &Path, directory: &Path) -> Self {
        let name = Digest::of(directory.as_os_str().as_encoded_bytes());
        Remembered {
            path: root.join("build/digests").join(name.hex()),
            before: OnceLock::new(),
            now: Mutex::default(),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn before(&self) -> &Digests {
        self.before.get_or_init(|| match read(&self.path) {
            Ok(digests) => digests,
            // They are taken again.
            Err(error) => {
                kit::say!("{error:#}");
                Digests::new()
            }
        })
    }

    /// The digest of a file's content: the one that is remembered, or the one that
    /// `take` takes.
    // ANCHOR: remembered
    pub fn digest(
        &self,
        file: BorrowedFd<'_>,
        stat: &Stat,
        take: impl FnOnce() -> Result<Digest>,
    ) -> Result<Digest> {
        if !self.is_known(file, stat.st_dev)? {
            return take();
        }
        let status = status_of(stat);
        if let Some(digest) = self.before().get(&status) {
            self.now().digests.insert(status, *digest);
            return Digest::from_hex(&hex(digest));
        }
        // Before the file is read: what is written from now on has a later time.
        let is_old = is_old(stat, SystemTime::now());
        let digest = take()?;
        if is_old {
            let mut now = self.now();
            now.digests.insert(status, bytes_of(&digest)?);
            now.is_new = true;
        }
        Ok(digest)
    }
    // ANCHOR_END: remembered

    fn is_known(&self, file: BorrowedFd<'_>, device: u64) -> Result<bool> {
        if let Some(known) = self.now().known.get(&device) {
            return Ok(*known);
        }
        let kind = fstatfs(file).context("fstatfs")?.f_type;
        let known = KNOWN.contains(&(kind as u32));
        self.now().known.insert(device, known);
        Ok(known)
    }

    /// Writes what this build has taken, with what was known before. What another
    /// build of the same context writes at the same time may be lost.
    pub fn write(&self) -> Result<()> {
        let mut now = self.now();
        let Some(directory) = self.path.parent() else {
            return Ok(());
        };
        if !now.is_new {
            return match now.digests.is_empty() {
                true => Ok(()),
                false => touch(&self.path),
            };
        }
        let mut digests = std::mem::take(&mut now.digests);
        drop(now);
        // Of a file that has changed there is one with the same number.
        let inode = |status: &Status| <[u8; 16]>::try_from(&status[..16]).unwrap_or_default();
        let numbers: std::collections::HashSet<[u8; 16]> = digests.keys().map(inode).collect();
        let others = self.before().iter();
        let others: Vec<_> = others
            .filter(|(status, _)| !numbers.contains(&inode(status)))
            .collect();
        if digests.len() + others.len() <= MOST {
            digests.extend(others);
        }
        let mut bytes = HEAD.to_vec();
        for (status, digest) in digests.iter().take(MOST) {
            bytes.extend_from_slice(status);
            bytes.extend_from_slice(digest);
        }
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        if let Some(build) = directory.parent() {
            make(build, 0o711)?;
        }
        make(directory, 0o700)?;
        write_file(&self.path, bytes)?;
        forget(directory)
    }
}

/// Whether a file has been left alone for longer than the clock's grain.
// ANCHOR: is_old
fn is_old(stat: &Stat, now: SystemTime) -> bool {
    let seconds = Duration::from_secs(u64::try_from(stat.st_ctime).unwrap_or(u64::MAX / 2));
    let changed = seconds + Duration::from_nanos(u64::from(stat.st_ctime_nsec as u32));
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    // A time in the future is that of a clock that was set back.
    now.checked_sub(changed).is_some_and(|age| age > GRAIN)
}
// ANCHOR_END: is_old

fn status_of(stat: &Stat) -> Status {
    let mut status = [0; STATUS];
    let parts: [&[u8]; 10] = [
        &stat.st_dev.to_le_bytes(),
        &stat.st_ino.to_le_bytes(),
        &(stat.st_size as u64).to_le_bytes(),
        &stat.st_mtime.to_le_bytes(),
        &(stat.st_mtime_nsec as u32).to_le_bytes(),
        &stat.st_ctime.to_le_bytes(),
        &(stat.st_ctime_nsec as u32).to_le_bytes(),
        &stat.st_mode.to_le_bytes(),
        &stat.st_uid.to_le_bytes(),
        &stat.st_gid.to_le_bytes(),
    ];
    let mut rest = &mut status[..];
    for part in parts {
        let (place, after) = rest.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = after;
    }
    status
}

/// Reads a file that is whole, the caller's, and writable for nobody else.
fn read(path: &Path) -> Result<Digests> {
    let largest = HEAD.len() + MOST * (STATUS + DIGEST) + DIGEST;
    let Some(bytes) = read_own(path, largest as u64)? else {
        return Ok(Digests::new());
    };
    let damaged = || format!("{path:?} is damaged: the digests are taken again");
    let (bytes, sum) = bytes.split_last_chunk::<DIGEST>().with_context(damaged)?;
    anyhow::ensure!(Sha256::digest(bytes)[..] == sum[..], damaged());
    let records = bytes.strip_prefix(HEAD).with_context(damaged)?;
    let records = records.chunks_exact(STATUS + DIGEST);
    anyhow::ensure!(records.remainder().is_empty(), damaged());
    let mut digests = Digests::with_capacity(records.len());
    for record in records {
        if let (Ok(status), Ok(digest)) = (record[..STATUS].try_into(), record[STATUS..].try_into())
        {
            digests.insert(status, digest);
        }
    }
    Ok(digests)
}

/// Says that a file is used.
fn touch(path: &Path) -> Result<()> {
    match File::options().write(true).open(path) {
        Ok(file) => file
            .set_modified(SystemTime::now())
            .with_context(|| format!("futimens({path:?})")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("open {path:?}")),
    }
}

/// Removes what is remembered of the contexts that were not built for longest.
fn forget(directory: &Path) -> Result<()> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("read {directory:?}"))? {
        let path = entry.with_context(|| format!("read {directory:?}"))?.path();
        if let Ok(used) = path.symlink_metadata().and_then(|found| found.modified()) {
            all.push((used, path));
        }
    }
    all.sort();
    for (_, path) in all.iter().rev().skip(CONTEXTS) {
        remove_file(path)?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    let bytes = bytes.iter();
    bytes
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}

fn bytes_of(digest: &Digest) -> Result<[u8; DIGEST]> {
    let mut bytes = [0; DIGEST];
    let hex = digest.hex();
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        let digits = hex.get(at..at + 2).context("a short digest")?;
        *byte = u8::from_str_radix(digits, 16).context("a digest")?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::fstat;

    use super::*;

    /// A file whose status says that it is a minute old.
    fn old(file: &File) -> Stat {
        let mut stat = fstat(file).unwrap();
        stat.st_ctime -= 60;
        stat
    }

    fn ask(remembered: &Remembered, file: &File, stat: &Stat, text: &str) -> Digest {
        let take = || Ok(Digest::of(text.as_bytes()));
        remembered.digest(file.as_fd(), stat, take).unwrap()
    }

    #[test]
    fn what_is_old_is_remembered_and_what_is_damaged_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let file = File::create_new(root.join("file")).unwrap();
        let (young, old) = (fstat(&file).unwrap(), old(&file));
        let open = || Remembered::of(root, Path::new("/context"));

        let first = open();
        assert_eq!(ask(&first, &file, &young, "one"), Digest::of(b"one"));
        first.write().unwrap();
        assert!(!first.path.exists(), "a young file is remembered");

        if !first.is_known(file.as_fd(), young.st_dev).unwrap() {
            return;
        }
        assert_eq!(ask(&first, &file, &old, "one"), Digest::of(b"one"));
        first.write().unwrap();
        assert_eq!(ask(&open(), &file, &old, "two"), Digest::of(b"one"));
        // Every part of the status counts.
        for change in [
            |stat: &mut Stat| stat.st_ino += 1,
            |stat: &mut Stat| stat.st_size += 1,
            |stat: &mut Stat| stat.st_mtime_nsec ^= 1,
            |stat: &mut Stat| stat.st_ctime_nsec ^= 1,
            |stat: &mut Stat| stat.st_mode ^= 1,
            |stat: &mut Stat| stat.st_uid += 1,
        ] {
            let mut other = old;
            change(&mut other);
            assert_eq!(ask(&open(), &file, &other, "two"), Digest::of(b"two"));
        }

        let whole = fs::read(&first.path).unwrap();
        let mut changed = whole.clone();
        changed[HEAD.len() + STATUS] ^= 1;
        for damaged in [&whole[..whole.len() - 1], &whole[..40], &[], &changed] {
            fs::write(&first.path, damaged).unwrap();
            assert_eq!(ask(&open(), &file, &old, "two"), Digest::of(b"two"));
        }
        fs::write(&first.path, &whole).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(&first.path, mode).unwrap();
        assert_eq!(ask(&open(), &file, &old, "two"), Digest::of(b"two"));
    }

    #[test]
    fn the_future_is_not_old() {
        let file = tempfile::tempfile().unwrap();
        let mut stat = fstat(&file).unwrap();
        let now = SystemTime::now();
        assert!(!is_old(&stat, now));
        assert!(is_old(&stat, now + GRAIN * 2));
        stat.st_ctime += 3600;
        assert!(!is_old(&stat, now));
        stat.st_ctime = -1;
        assert!(!is_old(&stat, now));
    }
}
