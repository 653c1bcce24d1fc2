//! The records of all containers: finds, writes and removes them.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::ProcessIdentity;
use kit::atomic_file::write_file;
use kit::lock::{Lock, Turn, hold};
use kit::own::{is_there, make, read_own, remove_file, require_own};
use kit::process_identity::{is_taken, looks_for_the_dead};
use kit::{say, warn};
use union::detect::container_layers;
use union::layers::store::{Store, sweep_drafts};
use union::{Kind, LayerId};

use crate::cli::places::Places;
use crate::container::observer::{Happening, Telling};
use crate::container::{Record, Status, short};
use crate::volume::Volumes;

/// The records in a state directory.
#[derive(Clone, Debug)]
pub struct Records {
    places: Places,
}

impl Records {
    /// The records in `places`. Creates nothing yet.
    pub fn new(places: &Places) -> Self {
        Records {
            places: places.clone(),
        }
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn path(&self, id: &str) -> PathBuf {
        self.places.state.join(format!("{id}.json"))
    }

    fn name_path(&self, name: &str) -> PathBuf {
        self.places.state.join("names").join(name)
    }

    /// Locks the directory for this turn, and creates it if it is missing.
    fn hold(&self, turn: Turn) -> Result<Lock> {
        let state = &self.places.state;
        make(&state.join("names"), 0o700)?;
        require_own(state)?;
        hold(state, turn)
    }

    /// Takes a name for a container. Returns whether it was free: of several
    /// launchers only the first makes the link. The link names the launcher, by
    /// which a sweep recognises the name of a container that was never born,
    /// and says whether the container outlives its launcher.
    ///
    /// # Errors
    /// If the state directory is not the caller's, or root's, alone.
    pub fn take_name(&self, name: &str, record: &Record) -> Result<bool> {
        let link = self.name_path(name);
        let ProcessIdentity { pid, start } = record.launcher;
        // Up to 59 bytes ext4 keeps in the inode: no block to take and to give
        // back, which on a disk with `discard` waits for the device. Only of a
        // container that is kept somebody needs the whole id, for its record.
        let outlives = !record.spec.auto_remove || record.status == Status::Created;
        let text = match outlives {
            false => format!("{} {pid} {start}", record.short_id()),
            true => format!("{} {pid} {start} kept", record.spec.id),
        };
        let _making = self.hold(Turn::Making)?;
        match symlink(text, &link) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).with_context(|| format!("symlink({link:?})")),
        }
    }

    /// The short id of the container with that name; `None` if the name is
    /// free.
    pub fn holder(&self, name: &str) -> Result<Option<String>> {
        Ok(self.link(name)?.map(|text| short(&text).to_owned()))
    }

    /// The text of a name's link.
    fn link(&self, name: &str) -> Result<Option<String>> {
        let link = self.name_path(name);
        match fs::read_link(&link) {
            Ok(text) => Ok(Some(text.to_string_lossy().into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("readlink({link:?})")),
        }
    }

    /// Writes a record, as a whole or not at all.
    pub fn write(&self, record: &Record) -> Result<()> {
        let _making = self.hold(Turn::Making)?;
        self.put(record)
    }

    /// Changes a record, of which others may change another part at the same
    /// time. Returns it as it is now.
    ///
    /// # Errors
    /// If there is none.
    pub fn change(&self, id: &str, change: &mut dyn FnMut(&mut Record)) -> Result<Record> {
        let _judging = self.hold(Turn::Judging)?;
        let mut record = read(&self.path(id))?
            .with_context(|| format!("the container {} has been removed", short(id)))?;
        change(&mut record);
        self.put(&record)?;
        Ok(record)
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// If the name is taken, or none.
    pub fn rename(&self, reference: &str, name: &str) -> Result<()> {
        kit::name::check(name).context("the new name")?;
        let id = self.find(reference)?.spec.id;
        let _judging = self.hold(Turn::Judging)?;
        let mut record = read(&self.path(&id))?
            .with_context(|| format!("the container {reference} has been removed"))?;
        if record.spec.name == name {
            bail!("renaming a container with the same name as its current name");
        }
        let text = self
            .link(&record.spec.name)?
            .with_context(|| format!("the name {:?} has no link", record.spec.name))?;
        let link = self.name_path(name);
        match symlink(text, &link) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("the name {name:?} belongs to another container: choose another one")
            }
            Err(error) => return Err(error).with_context(|| format!("symlink({link:?})")),
        }
        // Killed here, it has two names, of which a sweep removes the one that
        // is not in its record.
        let before = std::mem::replace(&mut record.spec.name, name.to_owned());
        self.put(&record)?;
        remove_file(&self.name_path(&before))
    }

    fn put(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_string_pretty(record).context("write JSON")?;
        write_file(&self.path(&record.spec.id), &json)
    }

    /// The file of a container's record.
    pub fn file(&self, id: &str) -> PathBuf {
        self.path(id)
    }

    /// Reads a container's record; `None` if there is none.
    pub fn read(&self, id: &str) -> Result<Option<Record>> {
        read(&self.path(id))
    }

    /// The directory of what later steps keep of a container, such as its log.
    /// It is removed with the record. Nothing says that it exists.
    pub fn directory(&self, id: &str) -> PathBuf {
        self.places.state.join(id)
    }

    /// The directory of the files that are mounted on those in a container's
    /// /etc: `ID-hosts`. Their network removes them, unless the machine stops.
    pub(crate) fn etc(&self) -> PathBuf {
        self.places.root.join("etc")
    }

    /// Removes a container's directory and record, and its name if it still has
    /// it.
    pub fn forget(&self, id: &str, name: &str) -> Result<()> {
        let _making = self.hold(Turn::Making)?;
        // It may have been renamed since.
        let now = read(&self.path(id))?.map(|record| record.spec.name);
        let name = now.as_deref().unwrap_or(name);
        remove_directory(&self.directory(id))?;
        remove_file(&self.path(id))?;
        match self.holder(name)? {
            Some(holder) if holder == short(id) => remove_file(&self.name_path(name)),
            _ => Ok(()),
        }
    }

    /// The records of all containers, the youngest first. One that is damaged,
    /// or not trusted, is skipped with a warning.
    ///
    /// # Errors
    /// If the state directory is not the caller's, or root's, alone.
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
                Err(error) => warn!("skipped: {error:#}"),
            }
        }
        records
            .sort_by(|a: &Record, b| (&b.started_at, &b.spec.id).cmp(&(&a.started_at, &a.spec.id)));
        Ok(records)
    }

    /// The container with that name, id, or beginning of an id.
    ///
    /// # Errors
    /// If there is none, or the beginning fits several.
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
            (Some(_), Some(_)) => bail!("{reference:?} is ambiguous: several ids begin with it"),
            _ => bail!("there is no container {reference:?}: see drydock ps -a"),
        }
    }

    /// Finds containers whose launcher was killed: the kernel has ended them
    /// with it. Removes those with `--rm`, and marks the others as exited. Then
    /// removes names, drafts, layers and volumes of containers that were never
    /// born. Warns of what cannot be removed, and goes on. Returns the records,
    /// the youngest first.
    // ANCHOR: sweep
    pub fn sweep(&self) -> Result<Vec<Record>> {
        for mut record in self.all()? {
            if !record.claims_to_run() || record.launcher.is_alive() {
                continue;
            }
            say!("the launcher of {} is gone", record.spec.name);
            if record.spec.auto_remove {
                self.tell(&record, KILLED, Telling::UnlessTold);
                if let Err(error) = self.remove(&record) {
                    warn!("container {} stays: {error:#}", record.spec.name);
                }
            } else {
                record.status = Status::Exited;
                record.pid = 0;
                record.finished_at = Some(kit::time::now());
                // A full disk must not keep anybody from looking at containers,
                // and from removing the one that has filled it.
                if let Err(error) = self.mark(&record) {
                    warn!(
                        "container {} has ended, and its record does not say so: {error:#}",
                        record.spec.name
                    );
                }
            }
        }
        self.sweep_unborn()
    }
    // ANCHOR_END: sweep

    /// Writes the record of a dead launcher's container, unless somebody else
    /// has done so or has removed it.
    fn mark(&self, record: &Record) -> Result<()> {
        let _judging = self.hold(Turn::Judging)?;
        match read(&self.path(&record.spec.id))? {
            Some(now) if now.claims_to_run() => {
                self.tell_of(&now, KILLED, Telling::UnlessTold);
                self.put(record)
            }
            _ => Ok(()),
        }
    }

    /// Removes what is left of launchers that were killed before they wrote a
    /// record.
    fn sweep_unborn(&self) -> Result<Vec<Record>> {
        if !is_there(&self.places.state)? {
            return Ok(Vec::new());
        }
        let records = {
            let _judging = self.hold(Turn::Judging)?;
            sweep_drafts(&self.places.state)?;
            let records = self.all()?;
            self.sweep_names(&records)?;
            self.sweep_etc(&records)?;
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
        Volumes::new(&self.places.root).sweep(&|id| is_there(&self.path(id)))?;
        Ok(records)
    }

    /// Removes files of containers without a record, unless they have a name: it
    /// comes before everything else, and stays as long as its launcher lives.
    fn sweep_etc(&self, records: &[Record]) -> Result<()> {
        let directory = self.etc();
        if !is_there(&directory)? {
            return Ok(());
        }
        let id_of = |name: &str| name.split('-').next().unwrap_or_default().to_owned();
        let mut lost = names_in(&directory)?;
        lost.retain(|name| !records.iter().any(|record| record.spec.id == id_of(name)));
        if lost.is_empty() {
            return Ok(());
        }
        let mut held = Vec::new();
        for name in names_in(&self.places.state.join("names"))? {
            held.extend(self.holder(&name)?);
        }
        for name in lost {
            if !held.iter().any(|holder| holder == short(&id_of(&name))) {
                remove_file(&directory.join(name))?;
            }
        }
        Ok(())
    }

    /// Removes layers without a record, unless their launcher still runs.
    fn remove_unborn(&self, kind: Kind, id: &LayerId) -> Result<()> {
        // In this order: before a launcher releases its note, it has written a
        // record or removed its layers.
        if Store::open(&self.places.root, kind)?.is_held(id)? || is_there(&self.path(id.as_str()))?
        {
            return Ok(());
        }
        let driver = union::detect::open(kind, &self.places.root)?;
        say!("no launcher and no record: remove the layers of container {id}");
        union::remove_container(&*driver, id)
    }

    /// Whether a killed launcher has left a container that is to be removed:
    /// one with `--rm`, or without a record. Such a launcher may have been
    /// killed while it had nothing but a name, or after everything else was
    /// removed. Also whether a volume was left that could not be removed.
    ///
    /// Among many containers only some starts look for the dead
    /// ([`looks_for_the_dead`]).
    pub fn has_dead(&self) -> Result<bool> {
        let names = names_in(&self.places.state.join("names"))?;
        let looks = looks_for_the_dead(names.len())?;
        let has_dead = looks && self.has_dead_among(&names)?;
        Ok(has_dead || Volumes::new(&self.places.root).has_remains()?)
    }

    /// Whether one of these names is that of a dead launcher whose container is
    /// to be removed.
    fn has_dead_among(&self, names: &[String]) -> Result<bool> {
        let links = names.iter().filter_map(|name| self.link(name).ok()?);
        let links: Vec<String> = links.collect();
        // One look at the directory instead of one at each record.
        let recorded: HashSet<String> = match links.iter().any(|text| text.ends_with(" kept")) {
            true => names_in(&self.places.state)?.into_iter().collect(),
            false => HashSet::new(),
        };
        for text in links {
            let id = text.split(' ').next().unwrap_or_default();
            let kept = text.ends_with(" kept");
            if kept && recorded.contains(&format!("{id}.json")) {
                continue;
            }
            // By PID only, which is fast. A PID that now belongs to another
            // process is noticed by the next full sweep.
            if owner(&text).is_none_or(|owner| !is_taken(owner.pid)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the names of containers without a record, unless their launcher
    /// still runs and may write one.
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
                    warn!("skipped: {error:#}");
                    continue;
                }
            };
            let id = text.split(' ').next().unwrap_or_default();
            let owner = owner(&text);
            let known = records
                .iter()
                .any(|record| record.spec.name == name && record.short_id() == short(id));
            if !known && !owner.is_some_and(|owner| owner.is_alive()) {
                say!("the name {name:?} has no container");
                remove_file(&self.name_path(name))?;
            }
        }
        Ok(())
    }

    /// Removes a container that does not run: its layers, its anonymous
    /// volumes, its record. The record goes last, so that a failed removal can
    /// be repeated. Others may remove the same container at the same time.
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
        let record = self.latest(record);
        self.forget(&record.spec.id, &record.spec.name)?;
        self.tell_of(&record, Happening::Destroyed, Telling::UnlessTold);
        Ok(())
    }

    /// Whether the note of a container is locked: its launcher holds it as long
    /// as it lives.
    pub fn is_held(&self, record: &Record) -> Result<bool> {
        let store = Store::open(&self.places.root, record.spec.driver)?;
        store.is_held(&record.spec.id.parse()?)
    }
}

/// What happens to a container whose launcher is killed: the kernel sends it
/// SIGKILL.
const KILLED: Happening = Happening::Died(137);

/// The launcher that the text of a link names.
fn owner(text: &str) -> Option<ProcessIdentity> {
    let mut words = text.split(' ').skip(1);
    Some(ProcessIdentity {
        pid: words.next()?.parse().ok()?,
        start: words.next()?.parse().ok()?,
    })
}

/// Removes a directory and the files in it, if it is there.
fn remove_directory(directory: &Path) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {directory:?}")),
    };
    for entry in entries {
        remove_file(&entry.with_context(|| format!("read {directory:?}"))?.path())?;
    }
    match fs::remove_dir(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("rmdir({directory:?})")),
    }
}

/// The names in a directory, without those that are not UTF-8.
fn names_in(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("read {directory:?}"))? {
        let entry = entry.with_context(|| format!("read {directory:?}"))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// Whether a file is a draft that is being written: its name begins with a dot.
fn is_draft(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The largest record, in bytes. Most of it is the command and its environment,
/// of which execve(2) takes 2 MiB by default.
const LARGEST: u64 = 16 << 20;

/// Reads a record; `None` if it has been removed.
///
/// # Errors
/// If it is damaged, or not trusted.
pub(super) fn read(path: &Path) -> Result<Option<Record>> {
    let Some(json) = read_own(path, LARGEST)? else {
        return Ok(None);
    };
    let record: Record =
        serde_json::from_slice(&json).with_context(|| format!("{path:?} is damaged: remove it"))?;
    record
        .check(path)
        .with_context(|| format!("{path:?} is not a record of a container: remove it"))?;
    Ok(Some(record))
}
