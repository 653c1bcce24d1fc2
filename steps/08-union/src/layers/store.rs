//! The state directory: a driver's layers, the lock for changing them, and the
//! containers that are alive.
//!
//! ```text
//! DIR/                    --root; /var/lib/drydock, or rootless $XDG_DATA_HOME/drydock
//!   overlay2/             one directory per driver, in the driver's own layout
//!   run/overlay2.lock     locked while layers are created and removed
//!   run/overlay2/ID       locked as long as the launcher of container ID lives
//!   run/overlay2/.ID.PID  another name of that file, with the launcher's PID
//!   merged                the root of containers whose users may not enter the store
//! ```

use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::atomic_file::write_new;
use kit::lock::{HELD, Lock, LockFile, Turn, hold, is_at, try_alone};
use kit::own::{make, open_own, remove_file, require_own};
use kit::process_identity::{ALL_ASKED, is_taken};
use kit::warn;
use nix::unistd::Pid;
use rustix::fs::{FlockOperation, flock};
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

/// The PIDs in the other names of notes, by their ids.
type Marks = HashMap<LayerId, Vec<i32>>;

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
        let new = self.mark_path(id, Pid::this().as_raw());
        write_new(&new, what)?;
        let note = open_own(&new)?
            .with_context(|| format!("open({new:?}): ENOENT: somebody has removed it"))?;
        if !try_alone(&note, &new)? {
            bail!("flock({new:?}): somebody holds it");
        }
        let Err(error) = fs::hard_link(&new, &path) else {
            return Ok(note);
        };
        remove_file(&new)?;
        if error.kind() != ErrorKind::AlreadyExists {
            return Err(error).with_context(|| format!("link({new:?}, {path:?})"));
        }
        if !self.is_held(id)? {
            bail!(
                "the remains of a container {id} cannot be removed: choose another --name, or see \
                 why (step-08 layer rm {id})"
            );
        }
        bail!("a container {id} is already running: choose another --name, or stop that one");
    }
    // ANCHOR_END: note

    /// Removes the note of a container. The other name of somebody else's note is
    /// removed by [`dead`](Self::dead).
    pub fn forget(&self, id: &LayerId) -> Result<()> {
        remove_file(&self.note_path(id))?;
        remove_file(&self.mark_path(id, Pid::this().as_raw()))
    }

    /// The containers whose launcher died before it cleaned up, each with its
    /// note, locked. A file that is not a valid note is skipped with a warning.
    /// Among many, only notes whose launcher's PID no process has are looked at: so
    /// a dead one is overlooked as long as its PID is another process's.
    // ANCHOR: dead
    pub fn dead(&self) -> Result<Vec<(LayerId, File)>> {
        let run = self.notes();
        let _judging = hold(&run, Turn::Judging)?;
        let (ids, mut marks) = self.noted()?;
        let many = ids.len() > ALL_ASKED;
        let mut dead = Vec::new();
        for id in ids {
            let marks = marks.remove(&id).unwrap_or_default();
            if many && marks.iter().any(|pid| is_taken(*pid)) {
                continue;
            }
            let path = self.note_path(&id);
            let file = match open_own(&path) {
                Ok(Some(file)) => file,
                Ok(None) => continue,
                Err(error) => {
                    warn!("skipped: {error:#}");
                    continue;
                }
            };
            if try_alone(&file, &path)? && is_at(&file, &path)? {
                for pid in marks {
                    remove_file(&self.mark_path(&id, pid))?;
                }
                dead.push((id, file));
            }
        }
        for (id, pids) in marks {
            for pid in pids {
                remove_file(&self.mark_path(&id, pid))?;
            }
        }
        Ok(dead)
    }
    // ANCHOR_END: dead

    /// How many containers have a note, about.
    pub fn containers(&self) -> Result<usize> {
        let run = self.notes();
        let names = fs::read_dir(&run).with_context(|| format!("read {run:?}"))?;
        // A note has two names.
        Ok(names.count() / 2)
    }

    /// The ids of all notes, and the PIDs in their other names. Removes whatever
    /// else begins with a dot.
    fn noted(&self) -> Result<(Vec<LayerId>, Marks)> {
        let run = self.notes();
        let mut ids = Vec::new();
        let mut marks = Marks::new();
        for entry in fs::read_dir(&run).with_context(|| format!("read {run:?}"))? {
            let name = entry.with_context(|| format!("read {run:?}"))?.file_name();
            let text = name.to_str().unwrap_or_default();
            if !text.starts_with('.') {
                ids.extend(text.parse::<LayerId>());
            } else if let Some((id, pid)) = marked(text) {
                marks.entry(id).or_default().push(pid);
            } else if name != HELD {
                trash::take(&run.join(&name));
            }
        }
        Ok((ids, marks))
    }

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

    fn mark_path(&self, id: &LayerId, pid: i32) -> PathBuf {
        self.notes().join(format!(".{id}.{pid}"))
    }
}

/// Reads the other name of a note, `.ID.PID`.
fn marked(name: &str) -> Option<(LayerId, i32)> {
    let (id, pid) = name.strip_prefix('.')?.rsplit_once('.')?;
    Some((id.parse().ok()?, pid.parse().ok()?))
}

/// Removes the drafts that killed processes have left of files that they wrote
/// ([`write_file`](kit::atomic_file::write_file)) in `directory`. The caller
/// holds the directory for [`Turn::Judging`]. A draft that cannot be removed is
/// a warning, not an error.
pub fn sweep_drafts(directory: &Path) -> Result<()> {
    trash::sweep(directory).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> LayerId {
        format!("box{number}").parse().unwrap()
    }

    fn files(store: &Store) -> Vec<String> {
        let entries = fs::read_dir(store.notes()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != HELD)
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_dead_are_found_among_few_and_among_many() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), Kind::Overlay2).unwrap();
        for number in [1, ALL_ASKED + 1] {
            let mut lives: Vec<File> = (0..number)
                .map(|number| store.note(&id(number), "remove").unwrap())
                .collect();
            assert!(store.dead().unwrap().is_empty());
            // A killed launcher: its lock is gone, and its PID belongs to nobody.
            lives.remove(0);
            let mark = store.mark_path(&id(0), Pid::this().as_raw());
            fs::rename(&mark, store.mark_path(&id(0), i32::MAX)).unwrap();
            let dead = store.dead().unwrap();
            let ids: Vec<&LayerId> = dead.iter().map(|(id, _)| id).collect();
            assert_eq!(ids, [&id(0)]);
            (0..number).for_each(|number| store.forget(&id(number)).unwrap());
            assert_eq!(files(&store), Vec::<String>::new());
        }
    }

    #[test]
    fn what_a_killed_launcher_left_beside_its_note_goes() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), Kind::Overlay2).unwrap();
        for name in [".box.4000000", ".box7.draft", ".box~0"] {
            fs::write(store.notes().join(name), "").unwrap();
        }
        assert!(store.dead().unwrap().is_empty());
        assert_eq!(files(&store), Vec::<String>::new());
    }
}
