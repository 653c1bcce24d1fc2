//! Containers on disk: a directory for each below `--root`.
//!
//! ```text
//! ROOT/ID/              flock(2): held while the container is changed
//!     state.json        what it is: written before anything is made for it
//!     config.json       the configuration with which it was created
//!     start.fifo        the gate at which it waits
//!     report.fifo
//! ```
//!
//! Nothing but `state.json` says that a container exists, and it is replaced as
//! a whole. It is there before the first group is made, and removed after all
//! else, so that whoever comes after a crash knows what to remove. What can
//! change without us, the state of the process, is asked of the kernel and
//! written nowhere.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cgroups::NamedGroup;
use kit::atomic_file::write_file;
use kit::lock::{self, Turn};
use kit::own::{make, read_own, remove_file, require_own};
use kit::{ProcessIdentity, say, warn};
use nix::unistd::geteuid;
use process::gate;
use serde::{Deserialize, Serialize};

use crate::config::{Config, VERSION, read};
use crate::launch::rdt;
use crate::systemd::unit::Scope;

const STATE: &str = "state.json";
/// The largest state in bytes.
const LARGEST: u64 = 1 << 20;

/// What is known of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// As RFC 3339.
    pub created: String,
    pub owner: u32,
    pub cgroup: NamedGroup,
    /// The scope whose group it is, if systemd has made it.
    #[serde(default)]
    pub scope: Option<Scope>,
    /// The groups of resctrl that are its own.
    #[serde(default)]
    pub rdt: Vec<PathBuf>,
    /// Who creates it, and is to be ended by whoever will not wait for that.
    #[serde(default)]
    pub creator: Option<ProcessIdentity>,
    /// The first process, once it exists.
    pub process: Option<ProcessIdentity>,
    /// Whether its processes are in a PID namespace of their own, which ends
    /// with the first.
    pub own_pids: bool,
    /// Whether a process of it may have `CAP_SYS_PTRACE`, and so look into a
    /// process of the runtime that enters its namespaces.
    pub may_trace: bool,
}

/// The state of a container (runtime.md “State”), and `paused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// The state in the form of the specification, with runc's additions.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OciState {
    pub oci_version: String,
    pub id: String,
    pub pid: i32,
    pub status: Status,
    pub bundle: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// The directory of all containers.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// A container of the store.
#[derive(Debug)]
pub(crate) struct Container {
    pub dir: PathBuf,
    pub record: Record,
    /// Held while the container is changed.
    lock: Option<File>,
}

/// How long somebody else may change a container before that is an error.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The error for an ID that is none. Peers read these words.
pub(crate) const UNKNOWN: &str = "container does not exist";

impl Store {
    /// The store in `root`: by default a directory of the user's.
    pub(crate) fn new(root: Option<PathBuf>) -> Result<Store> {
        let root = match root {
            Some(root) => std::path::absolute(&root).with_context(|| format!("--root {root:?}"))?,
            None if is_roots()? => "/run/drydock-runtime".into(),
            None => std::env::var_os("XDG_RUNTIME_DIR")
                .map(PathBuf::from)
                .filter(|dir| dir.is_absolute())
                .context("XDG_RUNTIME_DIR is not set: give a directory by --root")?
                .join("drydock-runtime"),
        };
        Ok(Store { root })
    }

    /// The directory of programs that are kept from one start to the next. No
    /// ID begins with a dot.
    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join(".seccomp")
    }

    /// Makes a container without a record, and locks it.
    ///
    /// # Errors
    /// If there is one of this ID. What a killed `create` has left before its
    /// record existed is taken over.
    pub(crate) fn create(&self, id: &str) -> Result<Draft> {
        check_id(id)?;
        make(&self.root, 0o711)?;
        require_own(&self.root)?;
        let dir = self.root.join(id);
        loop {
            match DirBuilder::new().mode(0o700).create(&dir) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("mkdir {dir:?}"));
                }
                _ => {}
            }
            let Some(lock) = lock::open_directory(&dir)? else {
                continue;
            };
            // Its maker, or somebody who ends it, is at work.
            ensure!(
                lock::try_alone(&lock, &dir)?,
                "container with id exists: {id}"
            );
            if !lock::is_at(&lock, &dir)? {
                continue;
            }
            require_own(&dir)?;
            ensure!(
                read_own(&dir.join(STATE), LARGEST)?.is_none(),
                "container with id exists: {id}"
            );
            return Ok(Draft { dir, lock });
        }
    }

    /// The container of an ID, to look at.
    ///
    /// # Errors
    /// [`UNKNOWN`].
    pub(crate) fn look(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let dir = self.root.join(id);
        match read_record(&dir)? {
            Some(record) => Ok(Container {
                dir,
                record,
                lock: None,
            }),
            None => bail!("{UNKNOWN}: {id}"),
        }
    }

    /// The container of an ID, to change: waits until nobody else changes it.
    ///
    /// # Errors
    /// [`UNKNOWN`]; or if somebody else changes it for longer than [`PATIENCE`],
    /// because a hook hangs.
    pub(crate) fn change(&self, id: &str) -> Result<Container> {
        match self.change_within(id, PATIENCE)? {
            Some(container) => Ok(container),
            None => bail!("container {id} is being changed by another process, which does not end"),
        }
    }

    /// The container of an ID, to change; `None` if somebody else changes it for
    /// longer than `patience`.
    ///
    /// # Errors
    /// [`UNKNOWN`].
    pub(crate) fn change_within(&self, id: &str, patience: Duration) -> Result<Option<Container>> {
        check_id(id)?;
        let dir = self.root.join(id);
        let Some(lock) = lock::open_directory(&dir)? else {
            bail!("{UNKNOWN}: {id}");
        };
        if !lock::try_within(&lock, &dir, patience)? {
            return Ok(None);
        }
        match read_record(&dir)? {
            Some(record) if lock::is_at(&lock, &dir)? => Ok(Some(Container {
                dir,
                record,
                lock: Some(lock),
            })),
            _ => bail!("{UNKNOWN}: {id}"),
        }
    }

    /// Removes what a killed `create` or `delete` has left of an ID.
    pub(crate) fn remove_remains(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let dir = self.root.join(id);
        // ANCHOR: exercise_remains
        match lock::directory(&dir, Turn::Judging)? {
            Some(lock) if read_record(&dir)?.is_none() => remove(&dir, lock),
            _ => Ok(()),
        }
        // ANCHOR_END: exercise_remains
    }

    /// All containers, by their IDs.
    pub(crate) fn list(&self) -> Result<Vec<Container>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("list {:?}", self.root))?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("list {:?}", self.root))?;
            let name = entry.file_name();
            let Some(id) = name.to_str().filter(|name| check_id(name).is_ok()) else {
                continue;
            };
            // It may have been deleted meanwhile.
            if let Ok(container) = self.look(id) {
                all.push(container);
            }
        }
        all.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        Ok(all)
    }
}

fn read_record(dir: &Path) -> Result<Option<Record>> {
    match read_own(&dir.join(STATE), LARGEST)? {
        Some(text) => read::parse(&text, STATE).map(Some),
        None => Ok(None),
    }
}

/// Whether the host's directory for running programs is the caller's. To an
/// ordinary user who is root in a user namespace, as podman's are, it is not.
fn is_roots() -> Result<bool> {
    let calls_itself_root = std::env::var_os("USER").is_some_and(|user| user == "root");
    Ok(geteuid().is_root() && (calls_itself_root || !in_user_namespace()?))
}

/// Whether this process is in another user namespace than the host's first one.
pub(crate) fn in_user_namespace() -> Result<bool> {
    let map = std::fs::read_to_string("/proc/self/uid_map").context("read /proc/self/uid_map")?;
    let numbers: Vec<&str> = map.split_whitespace().collect();
    Ok(numbers != ["0", "0", "4294967295"])
}

/// A container that nobody knows of: its directory, locked.
#[derive(Debug)]
pub(crate) struct Draft {
    dir: PathBuf,
    lock: File,
}

impl Draft {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Records the container: from here on it exists.
    // ANCHOR: record
    pub(crate) fn record(self, record: Record, config: &Config) -> Result<Container> {
        // ANCHOR: exercise_record
        let container = Container {
            dir: self.dir,
            record,
            lock: Some(self.lock),
        };
        container.save_config(config)?;
        container.save()?;
        Ok(container)
        // ANCHOR_END: exercise_record
    }
    // ANCHOR_END: record

    /// Removes it.
    pub(crate) fn discard(self) -> Result<()> {
        remove(&self.dir, self.lock)
    }
}

/// Removes the directory of a container: its record last. Bears a second call
/// after a crash in between.
fn remove(dir: &Path, lock: File) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {dir:?}"))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {dir:?}"))?;
        if entry.file_name() != STATE {
            remove_file(&entry.path())?;
        }
    }
    remove_file(&dir.join(STATE))?;
    fs::remove_dir(dir).with_context(|| format!("rmdir {dir:?}"))?;
    drop(lock);
    Ok(())
}

impl Container {
    /// Writes the record.
    pub(crate) fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.record).context("serialise the state")?;
        write_file(&self.dir.join(STATE), text)
    }

    /// Lets others change it.
    pub(crate) fn unlock(&mut self) {
        self.lock = None;
    }

    /// Replaces its configuration.
    pub(crate) fn save_config(&self, config: &Config) -> Result<()> {
        let text = serde_json::to_vec(config).context("serialise the configuration")?;
        write_file(&self.dir.join(read::CONFIG), text)
    }

    /// Waits until nobody else changes it; `None` if it no longer exists.
    pub(crate) fn lock_again(mut self) -> Result<Option<Container>> {
        if self.lock.is_none() {
            self.lock = lock::directory(&self.dir, Turn::Judging)?;
        }
        let there = read_record(&self.dir)?.is_some_and(|record| {
            // Not another one of the same name.
            record.created == self.record.created && record.process == self.record.process
        });
        Ok((self.lock.is_some() && there).then_some(self))
    }

    /// The configuration with which it was created.
    pub(crate) fn config(&self) -> Result<Config> {
        let config = self.config_if_left()?;
        config.context("the container is being removed: it has no configuration any more")
    }

    /// The same; `None` if a `delete` was killed when it had removed that, after
    /// the hooks.
    pub(crate) fn config_if_left(&self) -> Result<Option<Config>> {
        match read_own(&self.dir.join(read::CONFIG), 32 << 20)? {
            Some(text) => read::parse(&text, read::CONFIG).map(Some),
            None => Ok(None),
        }
    }

    /// The first process, if it lives.
    pub(crate) fn process(&self) -> Option<ProcessIdentity> {
        self.record.process.filter(ProcessIdentity::is_alive)
    }

    /// Its state, according to the kernel.
    // ANCHOR: status
    pub(crate) fn status(&self) -> Result<Status> {
        // ANCHOR: exercise_status
        if self.record.process.is_none() && self.lock.is_none() {
            // Somebody is creating it, or was killed in the attempt.
            let creating = match lock::open_directory(&self.dir)? {
                Some(file) => !lock::try_alone(&file, &self.dir)?,
                None => false,
            };
            return Ok(match creating {
                true => Status::Creating,
                false => Status::Stopped,
            });
        }
        if self.process().is_none() {
            return Ok(Status::Stopped);
        }
        if self.record.cgroup.is_frozen()? {
            return Ok(Status::Paused);
        }
        Ok(match gate::waits(&self.dir)? {
            true => Status::Created,
            false => Status::Running,
        })
        // ANCHOR_END: exercise_status
    }
    // ANCHOR_END: status

    /// Its state in the form of the specification.
    pub(crate) fn state(&self, status: Status) -> Result<OciState> {
        let config = self.config_if_left()?.unwrap_or_default();
        let record = &self.record;
        Ok(OciState {
            oci_version: VERSION.to_owned(),
            id: record.id.clone(),
            pid: match status {
                Status::Stopped => 0,
                _ => record.process.map_or(0, |process| process.pid),
            },
            status,
            bundle: record.bundle.clone(),
            rootfs: Some(record.rootfs.clone()),
            created: Some(record.created.clone()),
            annotations: config.annotations,
            owner: Some(match record.owner {
                0 => "root".to_owned(),
                uid => uid.to_string(),
            }),
        })
    }

    /// Removes everything that the runtime has made on the host, and the record.
    /// Bears a second call after a crash in between.
    pub(crate) fn remove(mut self) -> Result<()> {
        say!("remove the container {}", self.record.id);
        // Without systemd the group ends all the same.
        if let Some(scope) = &self.record.scope
            && let Err(error) = scope.stop()
        {
            warn!("{error:#}");
        }
        self.record.cgroup.end()?;
        rdt::remove(&self.record.rdt)?;
        let lock = self.lock.take().context("the container is not locked")?;
        remove(&self.dir, lock)
    }
}

/// Checks an ID: runc's rule. It is the name of a directory.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    ensure!(
        !id.is_empty() && id.len() <= 200 && id.chars().all(usual) && !id.starts_with('.'),
        "invalid container id {id:?}: use letters, digits, _ + - and ., the first not a dot, at \
         most 200"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record {
            id: id.into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: String::new(),
            owner: 0,
            cgroup: NamedGroup::default(),
            scope: None,
            rdt: Vec::new(),
            creator: None,
            process: None,
            own_pids: true,
            may_trace: false,
        }
    }

    #[test]
    fn an_id_is_a_name() {
        for good in ["a", "a-b_c.d+e", "0123456789abcdef"] {
            check_id(good).unwrap();
        }
        let long = "a".repeat(201);
        for bad in ["", ".", "..", ".a", "a/b", "../a", "a b", "ä", &long] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_container_exists_once_and_what_is_left_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(Some(dir.path().join("root"))).unwrap();
        assert!(store.look("a").unwrap_err().to_string().contains(UNKNOWN));
        // As if `create` had been killed before its record existed.
        drop(store.create("a").unwrap());
        let draft = store.create("a").unwrap();
        let second = store.create("a").unwrap_err().to_string();
        assert!(second.contains("exists"), "{second}");
        let container = draft.record(record("a"), &Config::default()).unwrap();
        assert_eq!(store.look("a").unwrap().status().unwrap(), Status::Creating);
        drop(container);
        assert_eq!(store.look("a").unwrap().status().unwrap(), Status::Stopped);
        assert!(store.create("a").is_err());
        assert_eq!(store.list().unwrap().len(), 1);
        store.change("a").unwrap().remove().unwrap();
        assert!(store.list().unwrap().is_empty());
        store.create("a").unwrap().discard().unwrap();
    }

    #[test]
    fn a_dead_process_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(Some(dir.path().to_owned())).unwrap();
        let dead = Record {
            process: Some(ProcessIdentity {
                pid: std::process::id() as i32,
                start: 1,
            }),
            ..record("a")
        };
        let draft = store.create("a").unwrap();
        let container = draft.record(dead, &Config::default()).unwrap();
        assert_eq!(container.status().unwrap(), Status::Stopped);
        assert_eq!(container.state(Status::Stopped).unwrap().pid, 0);
    }
}
