//! The records of all containers: found, written, removed.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::ProcessIdentity;
use kit::atomic_file::write_file;
use kit::lock::{Lock, Turn, hold};
use kit::own::{make, read_own, remove_file, require_own};
use kit::{say, warn};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use union::detect::container_layers;
use union::layers::lineage::is_there;
use union::layers::store::{Store, sweep_drafts};
use union::{Kind, LayerId};

use crate::cli::places::Places;
use crate::container::{Record, Status, short};
use crate::volume::Volumes;

/// All records below a state directory.
#[derive(Clone, Debug)]
pub struct Records {
    places: Places,
}

impl Records {
    /// The records in `places`. Nothing is made yet.
    pub fn new(places: &Places) -> Self {
        Records {
            places: places.clone(),
        }
    }

    pub(super) fn path(&self, id: &str) -> PathBuf {
        self.places.state.join(format!("{id}.json"))
    }

    fn name_path(&self, name: &str) -> PathBuf {
        self.places.state.join("names").join(name)
    }

    /// The directory, made if there is none, and held for this turn.
    fn hold(&self, turn: Turn) -> Result<Lock> {
        let state = &self.places.state;
        make(&state.join("names"), 0o700)?;
        require_own(state)?;
        hold(state, turn)
    }

    /// Takes a name for a container: whoever makes the link first has it. The link
    /// says by whom, so that one can be told whose container never came to be, and
    /// whether the name outlives its launcher.
    ///
    /// # Errors
    /// Those of symlink(2); a state directory of somebody else.
    pub fn take_name(&self, name: &str, record: &Record) -> Result<bool> {
        let link = self.name_path(name);
        let ProcessIdentity { pid, start } = record.launcher;
        let kept = match record.spec.auto_remove {
            true => "",
            false => " kept",
        };
        let text = format!("{} {pid} {start}{kept}", record.spec.id);
        let _making = self.hold(Turn::Making)?;
        match symlink(text, &link) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).with_context(|| format!("symlink({link:?})")),
        }
    }

    /// The short id of who has a name; `None` for nobody.
    ///
    /// # Errors
    /// Those of readlink(2).
    pub fn holder(&self, name: &str) -> Result<Option<String>> {
        Ok(self.link(name)?.map(|text| short(&text).to_owned()))
    }

    /// What the link of a name says.
    fn link(&self, name: &str) -> Result<Option<String>> {
        let link = self.name_path(name);
        match fs::read_link(&link) {
            Ok(text) => Ok(Some(text.to_string_lossy().into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("readlink({link:?})")),
        }
    }

    /// Writes a record: it is there whole or not at all.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, record: &Record) -> Result<()> {
        let _making = self.hold(Turn::Making)?;
        self.put(record)
    }

    fn put(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_string_pretty(record).context("write JSON")?;
        write_file(&self.path(&record.spec.id), &json)
    }

    /// Forgets a container.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn forget(&self, id: &str, name: &str) -> Result<()> {
        let _making = self.hold(Turn::Making)?;
        remove_file(&self.path(id))?;
        match self.holder(name)? {
            Some(holder) if holder == short(id) => remove_file(&self.name_path(name)),
            _ => Ok(()),
        }
    }

    /// Every container, the youngest first. A record that is damaged, or not to
    /// be trusted, is named on standard error, and passed over.
    ///
    /// # Errors
    /// Those of reading the directory; one of somebody else.
    pub fn all(&self) -> Result<Vec<Record>> {
        let directory = &self.places.state;
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {directory:?}")),
        };
        require_own(directory)?;
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("read {directory:?}"))?.path();
            let is_record = path.extension().is_some_and(|end| end == "json");
            if !is_record || is_draft(&path) {
                continue;
            }
            match read(&path) {
                Ok(record) => records.extend(record),
                Err(error) => warn!("passed over: {error:#}"),
            }
        }
        records
            .sort_by(|a: &Record, b| (&b.started_at, &b.spec.id).cmp(&(&a.started_at, &a.spec.id)));
        Ok(records)
    }

    /// The container that is meant by a name, an id, or the beginning of one.
    ///
    /// # Errors
    /// If it is none, or could be several.
    pub fn find(&self, reference: &str) -> Result<Record> {
        let all = self.all()?;
        if let Some(named) = all.iter().find(|record| record.spec.name == reference) {
            return Ok(named.clone());
        }
        let mut begun = all
            .iter()
            .filter(|record| !reference.is_empty() && record.spec.id.starts_with(reference));
        match (begun.next(), begun.next()) {
            (Some(record), None) => Ok(record.clone()),
            (Some(_), Some(_)) => bail!("{reference:?} is the beginning of several ids: say more"),
            _ => bail!("there is no container {reference:?}: see drydock ps -a"),
        }
    }

    /// Notices the containers whose launcher was killed. The kernel has ended
    /// them with it; those that were to be removed are, and the others have
    /// exited. Names, drafts, layers and volumes of containers that never came to
    /// be go. What cannot be removed is told, and keeps nobody else.
    ///
    /// # Errors
    /// Those of reading and writing.
    // ANCHOR: sweep
    pub fn sweep(&self) -> Result<()> {
        // ANCHOR: exercise_sweep
        for mut record in self.all()? {
            if record.status != Status::Running || record.launcher.is_alive() {
                continue;
            }
            say!("the launcher of {} is gone", record.spec.name);
            if record.spec.auto_remove {
                if let Err(error) = self.remove(&record) {
                    warn!("container {} stays: {error:#}", record.spec.name);
                }
            } else {
                record.status = Status::Exited;
                record.pid = 0;
                record.finished_at = Some(kit::time::now());
                self.mark(&record)?;
            }
        }
        self.sweep_unborn()
        // ANCHOR_END: exercise_sweep
    }
    // ANCHOR_END: sweep

    /// Writes the record of a dead launcher's container, unless another one did so
    /// or removed it.
    fn mark(&self, record: &Record) -> Result<()> {
        let _judging = self.hold(Turn::Judging)?;
        match read(&self.path(&record.spec.id))? {
            Some(now) if now.status == Status::Running => self.put(record),
            _ => Ok(()),
        }
    }

    /// Removes what launchers have left that were killed before they had written
    /// a record.
    fn sweep_unborn(&self) -> Result<()> {
        if !is_there(&self.places.state)? {
            return Ok(());
        }
        let records = {
            let _judging = self.hold(Turn::Judging)?;
            sweep_drafts(&self.places.state)?;
            let records = self.all()?;
            self.sweep_names(&records)?;
            records
        };
        let known = |id: &str| records.iter().any(|record| record.spec.id == id);
        for kind in Kind::ALL {
            for id in container_layers(&self.places.root, kind)? {
                if !known(id.as_str())
                    && let Err(error) = self.remove_unborn(kind, &id)
                {
                    warn!("the layers of container {id} stay: {error:#}");
                }
            }
        }
        Volumes::new(&self.places.root).sweep(&|id| is_there(&self.path(id)))
    }

    /// Removes layers without a record, unless their launcher is at work.
    fn remove_unborn(&self, kind: Kind, id: &LayerId) -> Result<()> {
        // In this order: a launcher that lets go of its note has written a record,
        // or removed its layers.
        if Store::open(&self.places.root, kind)?.is_held(id)? || is_there(&self.path(id.as_str()))?
        {
            return Ok(());
        }
        let driver = union::detect::open(kind, &self.places.root)?;
        say!("no launcher and no record: remove the layers of container {id}");
        union::remove_container(&*driver, id)
    }

    /// Whether a launcher was killed whose container should be gone with it, or has
    /// no record: it may have been killed before it had anything but a name, and
    /// after everything else was cleaned up.
    ///
    /// # Errors
    /// Those of reading the names.
    pub fn has_dead(&self) -> Result<bool> {
        let directory = self.places.state.join("names");
        for entry in fs::read_dir(&directory).with_context(|| format!("read {directory:?}"))? {
            let name = entry
                .with_context(|| format!("read {directory:?}"))?
                .file_name();
            let Some(text) = name.to_str().and_then(|name| self.link(name).ok()?) else {
                continue;
            };
            // By its PID only, which is quick. One that was given to another
            // process is found out by the whole look, at another time.
            let gone = owner(&text)
                .is_none_or(|owner| kill(Pid::from_raw(owner.pid), None) == Err(Errno::ESRCH));
            let kept = text.ends_with(" kept");
            let id = text.split(' ').next().unwrap_or_default();
            if gone && !(kept && is_there(&self.path(id))?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives back the names of containers that have no record, and no launcher
    /// that might be about to write one.
    fn sweep_names(&self, records: &[Record]) -> Result<()> {
        let directory = self.places.state.join("names");
        for entry in fs::read_dir(&directory).with_context(|| format!("read {directory:?}"))? {
            let name = entry
                .with_context(|| format!("read {directory:?}"))?
                .file_name();
            let Some(name) = name.to_str() else { continue };
            let text = match self.link(name) {
                Ok(Some(text)) => text,
                Ok(None) => continue,
                Err(error) => {
                    warn!("passed over: {error:#}");
                    continue;
                }
            };
            let id = text.split(' ').next().unwrap_or_default();
            let owner = owner(&text);
            let known = records
                .iter()
                .any(|record| record.spec.name == name && record.short_id() == short(id));
            if !known && !owner.is_some_and(|owner| owner.is_alive()) {
                say!("the name {name:?} is nobody's");
                remove_file(&self.name_path(name))?;
            }
        }
        Ok(())
    }

    /// Removes a container that does not run: its layers, its anonymous
    /// volumes, its record. Others may do the same at the same time.
    ///
    /// # Errors
    /// Those of removing; the record goes last, so it can be tried again.
    pub fn remove(&self, record: &Record) -> Result<()> {
        let driver = union::detect::open(record.spec.driver, &self.places.root)?;
        let id: LayerId = record.spec.id.parse()?;
        union::remove_container(&*driver, &id)?;
        if !driver.store().is_held(&id)? {
            driver.store().forget(&id)?;
        }
        let volumes = Volumes::new(&self.places.root);
        for volume in record.spec.volumes().filter(|volume| volume.anonymous) {
            volumes.remove_if_there(volume.name)?;
        }
        self.forget(&record.spec.id, &record.spec.name)
    }

    /// Whether the note of a container is held: by its launcher, as long as that
    /// lives.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn is_held(&self, record: &Record) -> Result<bool> {
        let store = Store::open(&self.places.root, record.spec.driver)?;
        store.is_held(&record.spec.id.parse()?)
    }
}

/// The launcher that the link of a name tells of.
fn owner(text: &str) -> Option<ProcessIdentity> {
    let mut words = text.split(' ').skip(1);
    Some(ProcessIdentity {
        pid: words.next()?.parse().ok()?,
        start: words.next()?.parse().ok()?,
    })
}

/// Whether a name begins as that of a file that is being written.
fn is_draft(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The most that a record may have, in bytes: the arguments of a command have
/// two megabytes at most, and are in it twice.
const LARGEST: u64 = 16 << 20;

/// A record, unless it has gone meanwhile.
///
/// # Errors
/// If it is damaged, or not to be trusted.
pub(super) fn read(path: &Path) -> Result<Option<Record>> {
    let Some(json) = read_own(path, LARGEST)? else {
        return Ok(None);
    };
    let record: Record =
        serde_json::from_slice(&json).with_context(|| format!("{path:?} is damaged: remove it"))?;
    record
        .check(path)
        .with_context(|| format!("{path:?} is no record of a container: remove it"))?;
    Ok(Some(record))
}
