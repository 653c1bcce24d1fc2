//! The state directory: a driver's layers, the lock for changing them, and the
//! containers that are alive.
//!
//! ```text
//! DIR/                    --root; /var/lib/drydock, or rootless $XDG_DATA_HOME/drydock
//!   overlay2/             one directory per driver, in the driver's own layout
//!   run/overlay2.lock     locked while layers are created and removed
//!   run/overlay2/ID       locked as long as the launcher of container ID lives
//!   merged                the root of containers whose users may not enter the store
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

/// The default state directory: /var/lib/drydock for root, else `drydock` in
/// `XDG_DATA_HOME` or in `~/.local/share`.
///
/// # Errors
/// If an unprivileged caller has neither `XDG_DATA_HOME` nor `HOME`.
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
    /// Opens the store of a driver below the state directory `root`, and
    /// creates it if it does not exist. Other users may not enter: files in
    /// layers keep the owners and set-user-ID bits that they have in their
    /// container.
    pub fn open(root: &Path, kind: Kind) -> Result<Self> {
        make(root, 0o711)?;
        // The container's root lies below: its root user may be any user of the
        // host.
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

    /// The driver's directory, absolute and without symbolic links.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Creates an empty directory that everybody can reach who can reach the
    /// state directory. A container whose users may not enter the store mounts
    /// its root there, each in its own mount namespace.
    pub fn everybodys_place(&self) -> Result<PathBuf> {
        let place = self.run.with_file_name("merged");
        make(&place, 0o711)?;
        Ok(place)
    }

    /// Locks the store for a change; waits until nobody else changes it
    /// (flock(2)).
    pub fn lock(&self) -> Result<Lock> {
        let path = self.run.join(format!("{}.lock", self.kind));
        LockFile::open(path)?.wait(Turn::Judging)
    }

    /// Writes the note of a running container. Its lock says that the launcher
    /// lives, its content `what` what to do with the layers afterwards. The
    /// note appears complete and locked; the caller holds the lock as long as
    /// it lives, and [`forget`](Self::forget) removes the note.
    ///
    /// # Errors
    /// If a container with that id runs.
    // ANCHOR: note
    pub fn note(&self, id: &LayerId, what: &str) -> Result<File> {
        let path = self.note_path(id);
        // Nobody looks for dead containers meanwhile.
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
                        "the remains of a container {id} cannot be removed: choose another \
                         --name, or see why (step-08 layer rm {id})"
                    );
                }
                if errno == Errno::EXIST {
                    bail!(
                        "a container {id} is already running: choose another --name, or stop that \
                         one"
                    );
                }
                Err(errno).with_context(|| format!("rename({new:?}, {path:?})"))
            }
        }
    }
    // ANCHOR_END: note

    /// Removes the note of a container.
    pub fn forget(&self, id: &LayerId) -> Result<()> {
        remove_file(&self.note_path(id))
    }

    /// The containers whose launcher died before it cleaned up, each with its
    /// note, locked. A file that is not a valid note is skipped with a warning.
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
                    warn!("skipped: {error:#}");
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

    /// Whether a container's note is locked: its launcher lives, or another
    /// process removes the remains of a dead container.
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

/// Removes the drafts that killed processes have left of files that they wrote
/// ([`write_file`](kit::atomic_file::write_file)) in `directory`. The caller
/// holds the directory for [`Turn::Judging`]. A draft that cannot be removed is
/// a warning, not an error.
pub fn sweep_drafts(directory: &Path) -> Result<()> {
    trash::sweep(directory).map(drop)
}
