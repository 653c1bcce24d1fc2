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
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::atomic_file::write_new;
use kit::lock::{Lock, LockFile, Turn, hold, is_at, try_alone};
use kit::own::{make, open_own, remove_file, require_own};
use kit::warn;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::kind::Kind;
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
        if !try_alone(&note, &new)? {
            bail!("flock({new:?}): somebody holds it");
        }
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
            if try_alone(&file, &path)? && is_at(&file, &path)? {
                dead.push((id, file));
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

/// Removes what killed processes have left of files that they wrote
/// ([`write_file`]) in `directory`, which the caller has for [`Turn::Judging`].
///
/// # Errors
/// Those of reading the directory. What cannot be removed is told, and no error.
pub fn sweep_drafts(directory: &Path) -> Result<()> {
    trash::sweep(directory).map(drop)
}
