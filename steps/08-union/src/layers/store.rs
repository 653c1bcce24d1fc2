//! The state directory: where a driver keeps its layers, who may change it at a
//! moment, and which containers are alive.
//!
//! ```text
//! DIR/                    --root; /var/lib/drydock, or rootless $XDG_DATA_HOME/drydock
//!   overlay2/             a directory a driver, as the driver lays it out
//!   run/overlay2.lock     held while layers come and go
//!   run/overlay2/ID       held as long as the launcher of container ID lives
//! ```
//!
//! What others may sweep is found by its name. So between its name and its owner
//! there must be no moment: who makes it has its directory shared, and who looks
//! for what is left has it alone ([`hold`]). What is there then without an owner
//! has lost it, and is not about to get one.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use process::warn;
use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::driver::Kind;
use crate::layers::id::LayerId;
use crate::layers::trash;

/// The directory for state where none is given.
///
/// # Errors
/// Where an unprivileged caller has neither `XDG_DATA_HOME` nor `HOME`.
pub fn default_root() -> Result<PathBuf> {
    if geteuid().is_root() {
        return Ok("/var/lib/drydock".into());
    }
    let data = env::var_os("XDG_DATA_HOME")
        .filter(|dir| Path::new(dir).is_absolute())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".local/share")));
    match data {
        Some(data) => Ok(data.join("drydock")),
        None => bail!("no place for state: set XDG_DATA_HOME or HOME, or give --root DIR"),
    }
}

/// A driver's part of the state directory.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    run: PathBuf,
    kind: Kind,
}

/// The right to change a store, or a directory; given back when dropped, also by
/// death.
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
pub(crate) const HELD: &str = ".lock";

/// Waits until `directory` is free for this turn: flock(2) on its file `.lock`.
/// To be held for the moment of making or looking only, and not by one who waits
/// for another lock meanwhile.
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

    fn open(path: PathBuf) -> Result<Self> {
        let file = open_lock(&path)?;
        Ok(LockFile { file, path })
    }

    /// Waits for this turn.
    ///
    /// # Errors
    /// Those of flock(2).
    pub fn wait(self, turn: Turn) -> Result<Lock> {
        let operation = match turn {
            Turn::Making => FlockOperation::LockShared,
            Turn::Judging => FlockOperation::LockExclusive,
        };
        loop {
            match flock(&self.file, operation) {
                Ok(()) => return Ok(Lock { _file: self.file }),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("flock({:?})", self.path));
                }
            }
        }
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Store {
    /// The store of a driver below the state directory `root`, made if there is
    /// none. Nobody but its owner may enter: files in layers keep the owners
    /// and set-user-ID bits that they have in their container.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn open(root: &Path, kind: Kind) -> Result<Self> {
        make(root, 0o711)?;
        // The container's root lies below: who is root there may be anybody here.
        let root = root
            .canonicalize()
            .with_context(|| format!("realpath({root:?})"))?;
        require_own(&root)?;
        let directory = root.join(kind.as_str());
        make(&directory, 0o710)?;
        let run = root.join("run");
        make(&run, 0o700)?;
        make(&run.join(kind.as_str()), 0o700)?;
        Ok(Store {
            directory,
            run,
            kind,
        })
    }

    /// The driver's directory, absolute and without links.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A directory that everybody can reach as far as they can reach the state
    /// directory, and in which there is nothing: where a container mounts its root
    /// whose users may not go through the store. Each does so in its own mount
    /// namespace.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn everybodys_place(&self) -> Result<PathBuf> {
        let place = self.run.with_file_name("merged");
        make(&place, 0o711)?;
        Ok(place)
    }

    /// Waits until nobody else changes the store: flock(2).
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn lock(&self) -> Result<Lock> {
        let path = self.run.join(format!("{}.lock", self.kind));
        LockFile::open(path)?.wait(Turn::Judging)
    }

    /// Notes that a container runs, and what is to become of it, as long as the
    /// caller lives or until the note is dropped by [`forget`](Self::forget). It
    /// appears locked and whole.
    ///
    /// # Errors
    /// If a container of that id runs.
    // ANCHOR: note
    pub fn note(&self, id: &LayerId, what: &str) -> Result<File> {
        let path = self.note_path(id);
        // Nobody looks for the dead meanwhile.
        let _making = hold(&self.notes(), Turn::Making)?;
        let new = self.notes().join(format!(".{id}.{}", std::process::id()));
        write_new(&new, what)?;
        let note = open_own(&new)?
            .with_context(|| format!("open({new:?}): ENOENT: somebody has removed it"))?;
        flock(&note, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("flock({new:?})"))?;
        match renameat_with(CWD, &new, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(note),
            Err(errno) => {
                remove_file(&new)?;
                if errno == Errno::EXIST && !self.is_held(id)? {
                    bail!(
                        "what is left of a container called {id} cannot be removed: choose another \
                         --name, or see why (step-08 layer rm {id})"
                    );
                }
                if errno == Errno::EXIST {
                    bail!(
                        "a container called {id} runs already: choose another --name, or end that \
                         one"
                    );
                }
                Err(errno).with_context(|| format!("rename({new:?}, {path:?})"))
            }
        }
    }
    // ANCHOR_END: note

    /// Ends a note.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn forget(&self, id: &LayerId) -> Result<()> {
        remove_file(&self.note_path(id))
    }

    /// The containers whose launcher died before it had cleaned up, each with
    /// its note, held.
    ///
    /// # Errors
    /// Those of reading the notes. One that is none is named, and passed over.
    // ANCHOR: dead
    pub fn dead(&self) -> Result<Vec<(LayerId, File)>> {
        let run = self.notes();
        let _judging = hold(&run, Turn::Judging)?;
        trash::sweep(&run)?;
        let mut dead = Vec::new();
        for entry in fs::read_dir(&run).with_context(|| format!("read {run:?}"))? {
            let name = entry.with_context(|| format!("read {run:?}"))?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<LayerId>().ok()) else {
                continue;
            };
            let path = run.join(&name);
            let file = match open_own(&path) {
                Ok(Some(file)) => file,
                Ok(None) => continue,
                Err(error) => {
                    warn!("passed over: {error:#}");
                    continue;
                }
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if same_file(&file, &path)? => dead.push((id, file)),
                Ok(()) | Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(errno).with_context(|| format!("flock({path:?})")),
            }
        }
        Ok(dead)
    }
    // ANCHOR_END: dead

    /// Whether the launcher of a container lives, or somebody removes what a
    /// dead one has left: its note is held.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn is_held(&self, id: &LayerId) -> Result<bool> {
        let path = self.note_path(id);
        let Some(file) = open_own(&path)? else {
            return Ok(false);
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(errno).with_context(|| format!("flock({path:?})")),
        }
    }

    fn notes(&self) -> PathBuf {
        self.run.join(self.kind.as_str())
    }

    fn note_path(&self, id: &LayerId) -> PathBuf {
        self.notes().join(id)
    }
}

/// Refuses a directory that others may have put things into: it belongs to the
/// caller or to root, and nobody else may write to it.
///
/// # Errors
/// Says whose it is, and what can be done. Those of stat(2).
pub fn require_own(directory: &Path) -> Result<()> {
    let stat = fs::metadata(directory).with_context(|| format!("stat({directory:?})"))?;
    if let Some(why) = not_ours(&stat) {
        bail!("the state in {directory:?} is not to be trusted: {why}, or give another directory");
    }
    Ok(())
}

fn not_ours(stat: &fs::Metadata) -> Option<String> {
    let own = geteuid().as_raw();
    let (uid, mode) = (stat.uid(), stat.mode());
    if uid != own && uid != 0 {
        return Some(format!(
            "it belongs to user {uid}, not to user {own} or root: chown it"
        ));
    }
    (mode & 0o022 != 0).then(|| {
        format!(
            "others may write to it (mode {:03o}): chmod go-w it",
            mode & 0o777
        )
    })
}

/// Opens a file that the engine keeps, to read and write it; `None` if there is
/// none. Neither a link is followed nor a FIFO waited for.
///
/// # Errors
/// If it is no regular file, or is not the caller's or root's alone.
pub fn open_own(path: &Path) -> Result<Option<File>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits() as i32)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            bail!("{path:?} is a symbolic link, not a file of the engine's: remove it")
        }
        Err(error) => return Err(error).with_context(|| format!("open({path:?})")),
    };
    let stat = file
        .metadata()
        .with_context(|| format!("fstat({path:?})"))?;
    if !stat.is_file() {
        bail!("{path:?} is not a regular file: remove it");
    }
    if let Some(why) = not_ours(&stat) {
        bail!("{path:?} is not to be trusted: {why}, or remove it");
    }
    Ok(Some(file))
}

/// All of a file that the engine keeps, which has `most` bytes at most; `None`
/// if there is none.
///
/// # Errors
/// As [`open_own`]; if there is more of it.
pub fn read_own(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open_own(path)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {path:?}"))?;
    if bytes.len() as u64 > most {
        bail!("{path:?} has more than {most} bytes, which no file of the engine's has: remove it");
    }
    Ok(Some(bytes))
}

/// Removes what killed processes have left of files that they wrote
/// ([`write_file`]) in `directory`, which the caller has for [`Turn::Judging`].
///
/// # Errors
/// Those of reading the directory. What cannot be removed is told, and no error.
pub fn sweep_drafts(directory: &Path) -> Result<()> {
    trash::sweep(directory).map(drop)
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path)
        .with_context(|| format!("open({path:?}, O_CREAT)"))
}

/// Whether `path` still means the file that was opened there.
///
/// # Errors
/// Those of fstat(2).
pub fn same_file(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().context("fstat")?;
    Ok(match fs::symlink_metadata(path) {
        Ok(there) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
        Err(_) => false,
    })
}

/// Makes a directory and those above it, if they are not there.
///
/// # Errors
/// Those of mkdir(2).
pub fn make(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("mkdir({path:?})"))
}

/// Removes a file, if it is there.
///
/// # Errors
/// Those of unlink(2).
pub fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("unlink({path:?})"))
        }
        _ => Ok(()),
    }
}

/// Writes a file so that it is there whole or not at all: under another name,
/// then rename(2). Others may write the same file at the same time. The other
/// name begins with a dot, which no id and no name does: what a killed process
/// leaves of it is known by that.
///
/// # Errors
/// Those of writing; nothing is left of it then.
pub fn write_file(path: &Path, content: &str) -> Result<()> {
    let name = path
        .file_name()
        .with_context(|| format!("{path:?} has no name"))?;
    let mut draft = std::ffi::OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(draft);
    let written = write_new(&new, content).and_then(|()| {
        fs::rename(&new, path).with_context(|| format!("rename({new:?}, {path:?})"))
    });
    match written {
        Ok(()) => Ok(()),
        Err(error) => match remove_file(&new) {
            Ok(()) => Err(error),
            Err(more) => Err(error.context(format!("and what there is of it stays: {more:#}"))),
        },
    }
}

fn write_new(new: &Path, content: &str) -> Result<()> {
    // What is there is of a killed process with the same PID.
    remove_file(new)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)
        .with_context(|| format!("open({new:?}, O_CREAT)"))?;
    file.write_all(content.as_bytes())
        .with_context(|| format!("write {new:?}"))
}
