//! Records of containers: what there is to know about one, in a file of its own.
//!
//! ```text
//! STATE/ID.json        the record, replaced as a whole (rename(2))
//! STATE/names/NAME     a symbolic link to ID: who has the name (symlink(2))
//! ```
//!
//! Only the launcher writes a record while the container lives. It may be
//! killed: then the record says that a process runs which is no more. So it
//! names the launcher by its PID and its start, and whoever reads it looks
//! whether that process is still there.

pub mod keeper;
pub mod tool;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use net::owner::Owner;
use process::say;
use serde::{Deserialize, Serialize};
use union::Kind;
use union::store::{make, remove_file, write_file};

use crate::places::Places;
use crate::volume::{Volumes, now};

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its command runs, or is about to.
    Running,
    /// Its command has ended.
    Exited,
}

/// A volume that a container has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedVolume {
    /// The volume's name.
    pub name: String,
    /// Its place in the container.
    pub target: PathBuf,
    /// Whether it goes with the container.
    pub anonymous: bool,
}

/// What is known about a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits; the first 12 will do.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image's name, as it was asked for.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// What runs, and its arguments.
    pub command: Vec<String>,
    /// What it does.
    pub status: Status,
    /// The PID of its first process, as the host sees it; 0 when there is none.
    pub pid: i32,
    /// The process that started it and waits for it.
    pub launcher: Owner,
    /// When it was started, as RFC 3339 has it.
    pub started_at: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// With which status; none while it runs, and where nobody was left to see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// Whether it goes when its command ends.
    pub auto_remove: bool,
    /// The storage driver of its layers.
    pub driver: String,
    /// Its volumes.
    pub volumes: Vec<UsedVolume>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How it is asked to end.
    pub stop_signal: String,
    /// How many seconds it is given for that.
    pub stop_timeout: u64,
    /// The words by which it was started, after `drydock`.
    pub options: Vec<String>,
}

impl Record {
    /// The first 12 digits of the id.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Whether the container runs: also what a record says is true only as long
    /// as its writer lives.
    pub fn is_running(&self) -> bool {
        self.status == Status::Running && self.launcher.is_alive()
    }
}

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

    fn path(&self, id: &str) -> PathBuf {
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
        match symlink(id, &link) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(&self.places.state.join("names"), 0o700)?;
                symlink(id, &link).with_context(|| format!("symlink({link:?})"))?;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            made => made
                .map(|()| true)
                .with_context(|| format!("symlink({link:?})")),
        }
    }

    /// Who has a name; `None` for nobody.
    ///
    /// # Errors
    /// Those of readlink(2).
    pub fn holder(&self, name: &str) -> Result<Option<String>> {
        let link = self.name_path(name);
        match fs::read_link(&link) {
            Ok(id) => Ok(Some(id.to_string_lossy().into_owned())),
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
            Some(holder) if holder == id => remove_file(&self.name_path(name)),
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
fn read(path: &Path) -> Result<Option<Record>> {
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .with_context(|| format!("{path:?} is damaged: remove it")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {path:?}")),
    }
}
