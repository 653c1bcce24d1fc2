//! The state directory: where a driver keeps its layers, who may change it at a
//! moment, and which containers are alive.
//!
//! ```text
//! DIR/                    --root; /var/lib/drydock, or rootless $XDG_DATA_HOME/drydock
//!   overlay2/             a directory a driver, as the driver lays it out
//!   run/overlay2.lock     held while layers come and go
//!   run/overlay2/ID       held as long as the launcher of container ID lives
//! ```

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::driver::Kind;
use crate::layer_id::LayerId;

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

/// The right to change a store; given back when dropped, also by death.
#[derive(Debug)]
pub struct Lock {
    _file: File,
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

    /// Waits until nobody else changes the store: flock(2).
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn lock(&self) -> Result<Lock> {
        let path = self.run.join(format!("{}.lock", self.kind));
        let file = open_lock(&path)?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("flock({path:?}, LOCK_EX)"));
                }
            }
        }
    }

    /// Notes that a container runs, as long as the caller lives or until the
    /// note is dropped by [`forget`](Self::forget).
    ///
    /// # Errors
    /// If a container of that id runs.
    pub fn note(&self, id: &LayerId) -> Result<File> {
        let path = self.note_path(id);
        loop {
            let file = open_lock(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => bail!(
                    "a container called {id} runs already: choose another --name, or end that one"
                ),
                Err(errno) => return Err(errno).with_context(|| format!("flock({path:?})")),
            }
            // Somebody may have removed the file between open and flock: then
            // it is a lock that nobody else can see.
            if same_file(&file, &path)? {
                return Ok(file);
            }
        }
    }

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
    /// Those of reading the notes.
    pub fn dead(&self) -> Result<Vec<(LayerId, File)>> {
        let run = self.run.join(self.kind.as_str());
        let mut dead = Vec::new();
        for entry in fs::read_dir(&run).with_context(|| format!("read {run:?}"))? {
            let name = entry.with_context(|| format!("read {run:?}"))?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<LayerId>().ok()) else {
                continue;
            };
            let path = run.join(&name);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| format!("open({path:?})")),
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if same_file(&file, &path)? => dead.push((id, file)),
                Ok(()) | Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(errno).with_context(|| format!("flock({path:?})")),
            }
        }
        Ok(dead)
    }

    fn note_path(&self, id: &LayerId) -> PathBuf {
        self.run.join(self.kind.as_str()).join(id)
    }
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("open({path:?}, O_CREAT)"))
}

fn same_file(file: &File, path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
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
/// then rename(2). Others may write the same file at the same time.
///
/// # Errors
/// Those of writing.
pub fn write_file(path: &Path, content: &str) -> Result<()> {
    let new = path.with_added_extension(format!("{}.new", std::process::id()));
    let mut file = File::create(&new).with_context(|| format!("open({new:?}, O_CREAT)"))?;
    file.write_all(content.as_bytes())
        .with_context(|| format!("write {new:?}"))?;
    fs::rename(&new, path).with_context(|| format!("rename({new:?}, {path:?})"))
}
