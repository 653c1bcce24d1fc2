//! The records of all containers: found, written, removed.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use process::say;
use union::Kind;
use union::store::{make, remove_file, write_file};

use super::{Record, Status, short};
use crate::places::Places;
use crate::volume::{Volumes, now};

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

    /// Takes a name for a container: whoever makes the link first has it. What
    /// a dead launcher has left does not stand in the way.
    ///
    /// # Errors
    /// If another container has that name.
    pub fn take_name(&self, name: &str, id: &str) -> Result<bool> {
        let link = self.name_path(name);
        let holder = short(id);
        match symlink(holder, &link) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(&self.places.state.join("names"), 0o700)?;
                symlink(holder, &link).with_context(|| format!("symlink({link:?})"))?;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            made => made
                .map(|()| true)
                .with_context(|| format!("symlink({link:?})")),
        }
    }

    /// The short id of who has a name; `None` for nobody.
    ///
    /// # Errors
    /// Those of readlink(2).
    pub fn holder(&self, name: &str) -> Result<Option<String>> {
        let link = self.name_path(name);
        match fs::read_link(&link) {
            Ok(id) => Ok(Some(short(&id.to_string_lossy()).to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("readlink({link:?})")),
        }
    }

    /// Gives a name back.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn give_name_back(&self, name: &str, id: &str) -> Result<()> {
        match self.holder(name)? {
            Some(holder) if holder == short(id) => remove_file(&self.name_path(name)),
            _ => Ok(()),
        }
    }

    /// Writes a record: it is there whole or not at all.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_string_pretty(record).context("write JSON")?;
        write_file(&self.path(&record.id), &json)
    }

    /// Forgets a container.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn forget(&self, id: &str, name: &str) -> Result<()> {
        remove_file(&self.path(id))?;
        self.give_name_back(name, id)
    }

    /// Every container, the youngest first.
    ///
    /// # Errors
    /// Those of reading, and for a record that is damaged.
    pub fn all(&self) -> Result<Vec<Record>> {
        let directory = &self.places.state;
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {directory:?}")),
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("read {directory:?}"))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                records.extend(read(&path)?);
            }
        }
        records.sort_by(|a: &Record, b| (&b.started_at, &b.id).cmp(&(&a.started_at, &a.id)));
        Ok(records)
    }

    /// The container that is meant by a name, an id, or the beginning of one.
    ///
    /// # Errors
    /// If it is none, or could be several.
    pub fn find(&self, reference: &str) -> Result<Record> {
        let all = self.all()?;
        if let Some(named) = all.iter().find(|record| record.name == reference) {
            return Ok(named.clone());
        }
        let mut begun = all
            .iter()
            .filter(|record| !reference.is_empty() && record.id.starts_with(reference));
        match (begun.next(), begun.next()) {
            (Some(record), None) => Ok(record.clone()),
            (Some(_), Some(_)) => bail!("{reference:?} is the beginning of several ids: say more"),
            _ => bail!("there is no container {reference:?}: see drydock ps -a"),
        }
    }

    /// Notices the containers whose launcher was killed. The kernel has ended
    /// them with it; those that were to be removed are, and the others have
    /// exited.
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
            say!("the launcher of {} is gone", record.name);
            if record.auto_remove {
                self.remove(&record)?;
            } else {
                record.status = Status::Exited;
                record.pid = 0;
                record.finished_at = Some(now());
                self.write(&record)?;
            }
        }
        Ok(())
        // ANCHOR_END: exercise_sweep
    }
    // ANCHOR_END: sweep

    /// Removes a container that does not run: its layers, its anonymous
    /// volumes, its record.
    ///
    /// # Errors
    /// Those of removing; the record goes last, so it can be tried again.
    pub fn remove(&self, record: &Record) -> Result<()> {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == record.driver)
            .with_context(|| format!("there is no storage driver {:?}", record.driver))?;
        let driver = union::detect::open(kind, &self.places.root)?;
        union::isolation::remove_container(&*driver, &record.id.parse()?)?;
        driver.store().forget(&record.id.parse()?)?;
        let volumes = Volumes::new(&self.places.root);
        for volume in record.volumes.iter().filter(|volume| volume.anonymous) {
            if volumes.data(&volume.name).is_dir() {
                volumes.remove(&volume.name)?;
            }
        }
        self.forget(&record.id, &record.name)
    }
}

/// A record, unless it has gone meanwhile.
pub(super) fn read(path: &Path) -> Result<Option<Record>> {
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .with_context(|| format!("{path:?} is damaged: remove it")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {path:?}")),
    }
}
