//! Volumes: directories that outlive containers, and that several may share.
//!
//! ```text
//! ROOT/volumes/NAME/_data          the files, as a container sees them
//! ROOT/volumes/NAME/volume.json    its description: when it was made, and whether
//!                                  it is anonymous
//! ```
//!
//! A volume lies outside of every layer: what is written to it appears in no
//! diff, needs no copy_up, and outlives the container.

pub mod beside;
pub mod mounts;
pub mod options;

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::container::observer;
use anyhow::{Context, Result, bail};
use kit::atomic_file::write_file;
use kit::lock::{self, Lock, Turn, hold};
use kit::own::{make, read_own, require_own};
use kit::warn;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use union::layers::store::sweep_drafts;
use union::layers::trash;
use union::tree::remove::remove;

/// The description of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// The name: 64 random hexadecimal digits if it is anonymous.
    pub name: String,
    /// The directory of its files on the host.
    #[serde(default)]
    pub mountpoint: PathBuf,
    /// The time of its creation, RFC 3339; empty if unknown.
    pub created_at: String,
    /// Whether the user gave it no name.
    pub anonymous: bool,
    /// The id of the container that it was made for and is removed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// The volumes below a state directory.
#[derive(Clone, Debug)]
pub struct Volumes {
    directory: PathBuf,
}

impl Volumes {
    /// The volumes below the state directory `root`. Creates nothing yet.
    pub fn new(root: &Path) -> Self {
        Volumes {
            directory: root.join("volumes"),
        }
    }

    /// The directory of a volume's files, whether the volume exists or not.
    pub fn data(&self, name: &str) -> PathBuf {
        self.directory_of(name).join("_data")
    }

    fn directory_of(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory in which a container mounts its volumes, in a mount
    /// namespace of its own, if its users may not enter the state directory.
    fn everybodys_place(&self) -> PathBuf {
        self.directory.with_file_name("shown")
    }

    /// Creates a volume unless it exists, and returns its name. Without a name
    /// it gets a random one, and is anonymous.
    ///
    /// # Errors
    /// If `name` is not valid.
    pub fn create(&self, name: Option<&str>) -> Result<String> {
        let (name, anonymous) = match name {
            Some(name) => (name.to_owned(), false),
            None => (kit::random::hex::<32>()?, true),
        };
        self.take(&name, anonymous, None)?;
        Ok(name)
    }

    /// Creates a volume unless it exists, and locks it: nobody removes it while
    /// the returned file is open. A new volume appears complete and locked.
    /// `container` is the container that an anonymous volume is removed with.
    ///
    /// # Errors
    /// If `name` is not valid.
    // ANCHOR: take
    pub fn take(&self, name: &str, anonymous: bool, container: Option<&str>) -> Result<File> {
        kit::name::check(name)?;
        // Files in a volume keep owners and set-user-ID bits: only the caller
        // enters.
        make(&self.directory, 0o700)?;
        let directory = self.directory.join(name);
        loop {
            if let Some(held) = lock::directory(&directory, Turn::Making)? {
                // Also for a volume that lacks it.
                make(&self.data(name), 0o755)?;
                return Ok(held);
            }
            let volume = Volume {
                name: name.to_owned(),
                mountpoint: PathBuf::new(),
                created_at: kit::time::now(),
                anonymous,
                container: container.map(str::to_owned),
            };
            if let Some(held) = self.make_new(&volume)? {
                observer::object("volume", name, "create", &[("driver", "local")]);
                return Ok(held);
            }
        }
    }
    // ANCHOR_END: take

    /// Makes a volume under another name, locks it and renames it; `None` if
    /// somebody else was faster.
    fn make_new(&self, volume: &Volume) -> Result<Option<File>> {
        let _making = hold(&self.directory, Turn::Making)?;
        let draft = format!(".{}.{}", volume.name, std::process::id());
        let new = self.directory.join(draft);
        remove(&new)?;
        match self.fill_and_name(&new, volume) {
            Ok(held @ Some(_)) => Ok(held),
            Ok(None) => remove(&new).map(|()| None),
            Err(error) => {
                if let Err(left) = remove(&new) {
                    warn!("{left:#}: swept later");
                }
                Err(error)
            }
        }
    }

    /// Makes a volume in `new`, locks it and renames it; `None` if the name is
    /// taken.
    fn fill_and_name(&self, new: &Path, volume: &Volume) -> Result<Option<File>> {
        make(&new.join("_data"), 0o755)?;
        fs::set_permissions(new, Permissions::from_mode(0o700))
            .with_context(|| format!("chmod({new:?}, 700)"))?;
        let json = serde_json::to_string(volume).context("write JSON")?;
        write_file(&new.join("volume.json"), &json)?;
        let held = lock::directory(new, Turn::Making)?;
        let held = held.with_context(|| format!("{new:?} is gone"))?;
        let done = self.directory.join(&volume.name);
        match renameat_with(CWD, new, CWD, &done, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Some(held)),
            Err(Errno::EXIST) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("rename({new:?}, {done:?})")),
        }
    }

    /// The description of a volume. If `volume.json` is missing, the volume
    /// counts as named, and the time of its creation is unknown.
    ///
    /// # Errors
    /// If there is no volume of that name.
    pub fn get(&self, name: &str) -> Result<Volume> {
        kit::name::check(name)?;
        let data = self.data(name);
        if !data.is_dir() {
            bail!("there is no volume {name:?}: see drydock volume ls");
        }
        let path = self.directory.join(name).join("volume.json");
        let mut volume = match read_own(&path, LARGEST)? {
            Some(json) => serde_json::from_slice(&json)
                .with_context(|| format!("{path:?} is damaged: remove it"))?,
            None => Volume {
                name: name.to_owned(),
                mountpoint: PathBuf::new(),
                created_at: String::new(),
                anonymous: false,
                container: None,
            },
        };
        volume.mountpoint = data;
        Ok(volume)
    }

    /// All volumes, sorted by name. One whose description is damaged is skipped
    /// with a warning.
    ///
    /// # Errors
    /// If the directory is not the caller's, or root's, alone.
    pub fn all(&self) -> Result<Vec<Volume>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("read {:?}", self.directory));
            }
        };
        require_own(&self.directory)?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.context("read the volumes")?.file_name();
            names.extend(name.into_string().ok());
        }
        names.retain(|name| kit::name::check(name).is_ok() && self.data(name).is_dir());
        names.sort();
        let mut volumes = Vec::new();
        for name in names {
            match self.get(&name) {
                Ok(volume) => volumes.push(volume),
                Err(error) => warn!("skipped: {error:#}"),
            }
        }
        Ok(volumes)
    }

    /// Removes a volume with its files; false if a container holds it. Whether
    /// a container that does not run has it, is for the caller to check. Files
    /// that cannot be removed cause a warning, not an error.
    ///
    /// # Errors
    /// If there is no volume of that name.
    pub fn remove(&self, name: &str) -> Result<bool> {
        self.get(name)?;
        self.remove_if_there(name)
    }

    /// Removes a volume as [`remove`](Self::remove) does; true also if there is
    /// none.
    pub fn remove_if_there(&self, name: &str) -> Result<bool> {
        kit::name::check(name)?;
        let directory = self.directory.join(name);
        let Some(held) = lock::open_directory(&directory)? else {
            return Ok(true);
        };
        if !lock::try_alone(&held, &directory)? {
            return Ok(false);
        }
        if !lock::is_at(&held, &directory)? {
            return Ok(true);
        }
        trash::discard(&directory)?;
        observer::object("volume", name, "destroy", &[("driver", "local")]);
        Ok(true)
    }

    /// Removes what killed processes have left: incomplete volumes, and volumes
    /// that were made for a container that is not `known`. What cannot be
    /// removed causes a warning, not an error.
    pub fn sweep(&self, known: &dyn Fn(&str) -> Result<bool>) -> Result<()> {
        if !self.directory.is_dir() {
            return Ok(());
        }
        let held = hold(&self.directory, Turn::Judging)?;
        sweep_drafts(&self.directory)?;
        drop(held);
        for volume in self.all()? {
            if let Some(container) = &volume.container
                && !known(container)?
            {
                // If it is just being made, its launcher holds it, and it
                // stays.
                self.remove_if_there(&volume.name)?;
            }
        }
        Ok(())
    }

    /// Whether a removal has failed, and is to be tried again.
    pub fn has_remains(&self) -> Result<bool> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            entries => entries.with_context(|| format!("read {:?}", self.directory))?,
        };
        for entry in entries {
            let name = entry
                .with_context(|| format!("read {:?}", self.directory))?
                .file_name();
            if trash::is_remains(&name) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until nobody else fills the volume, and keeps others from filling
    /// it.
    pub fn fill_alone(&self, name: &str) -> Result<Lock> {
        hold(&self.directory_of(name), Turn::Judging)
    }
}

/// The largest description of a volume, in bytes.
const LARGEST: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_made_once_listed_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(root.path());
        assert!(volumes.all().unwrap().is_empty());
        assert_eq!(volumes.create(Some("one")).unwrap(), "one");
        fs::write(volumes.data("one").join("file"), "x").unwrap();
        volumes.create(Some("one")).unwrap();
        let anonymous = volumes.create(None).unwrap();
        let all = volumes.all().unwrap();
        assert_eq!(all.len(), 2);
        assert!(volumes.get(&anonymous).unwrap().anonymous);
        assert!(!volumes.get("one").unwrap().anonymous);
        assert!(volumes.data("one").join("file").exists());
        volumes.remove("one").unwrap();
        assert!(volumes.get("one").is_err());
        for name in ["", "..", "a/b", ".x", "-x"] {
            assert!(volumes.create(Some(name)).is_err(), "{name}");
        }
    }
}
