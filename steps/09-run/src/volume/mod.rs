//! Volumes: directories that outlive containers, and that several may share.
//!
//! ```text
//! ROOT/volumes/NAME/_data          what a container sees
//! ROOT/volumes/NAME/volume.json    when it was made, and whether anybody named it
//! ```
//!
//! A volume lies outside of every layer: what is written to it is in no diff,
//! costs no copy-up, and stays when the container goes.

pub mod mounts;
pub mod tool;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use union::store::{make, write_file};
use union::tree::remove::remove;

use crate::names::random_hex;

/// What is known about a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Where its files are on the host.
    #[serde(default)]
    pub mountpoint: PathBuf,
    /// When it was made, as RFC 3339 has it.
    pub created_at: String,
    /// Whether it was made for one container, and goes with it.
    pub anonymous: bool,
}

/// The volumes below a state directory.
#[derive(Clone, Debug)]
pub struct Volumes {
    directory: PathBuf,
}

/// Checks that `name` can be the name of a volume or of a container: a file
/// name that says nothing to a shell.
///
/// # Errors
/// Says what a name is made of.
pub fn check_name(name: &str) -> Result<()> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() > 128
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.chars().all(usual)
    {
        bail!(
            "{name:?} is no name: use letters, digits, _ . and -, the first a letter or digit, at \
             most 128"
        );
    }
    Ok(())
}

impl Volumes {
    /// The volumes below the state directory `root`. Nothing is made yet.
    pub fn new(root: &Path) -> Self {
        Volumes {
            directory: root.join("volumes"),
        }
    }

    /// Where a volume's files are, whether there is one of that name or not.
    pub fn data(&self, name: &str) -> PathBuf {
        self.directory.join(name).join("_data")
    }

    /// Makes a volume if there is none of that name, and says which it is.
    /// Without a name it gets one at random, and is anonymous.
    ///
    /// # Errors
    /// For what is no name, and those of mkdir(2).
    pub fn create(&self, name: Option<&str>) -> Result<String> {
        let (name, anonymous) = match name {
            Some(name) => (name.to_owned(), false),
            None => (random_hex(32)?, true),
        };
        self.create_as(&name, anonymous)?;
        Ok(name)
    }

    /// The same, under a name that was drawn already.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_as(&self, name: &str, anonymous: bool) -> Result<()> {
        check_name(name)?;
        // Files in a volume keep owners and set-user-ID bits: nobody else enters.
        make(&self.directory, 0o700)?;
        let directory = self.directory.join(name);
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => {
                let volume = Volume {
                    name: name.to_owned(),
                    mountpoint: PathBuf::new(),
                    created_at: now(),
                    anonymous,
                };
                let json = serde_json::to_string(&volume).context("write JSON")?;
                write_file(&directory.join("volume.json"), &json)?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("mkdir({directory:?})")),
        }
        // Also for one whose maker was killed between the two.
        make(&self.data(name), 0o755)
    }

    /// What is known about a volume.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn get(&self, name: &str) -> Result<Volume> {
        check_name(name)?;
        let data = self.data(name);
        if !data.is_dir() {
            bail!("there is no volume {name:?}: see drydock volume ls");
        }
        let path = self.directory.join(name).join("volume.json");
        let mut volume = match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).with_context(|| format!("parse {path:?}"))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Volume {
                name: name.to_owned(),
                mountpoint: PathBuf::new(),
                created_at: String::new(),
                anonymous: false,
            },
            Err(error) => return Err(error).with_context(|| format!("read {path:?}")),
        };
        volume.mountpoint = data;
        Ok(volume)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// Those of reading the directory and the files in it.
    pub fn all(&self) -> Result<Vec<Volume>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("read {:?}", self.directory));
            }
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.context("read the volumes")?.file_name();
            names.extend(name.into_string().ok());
        }
        names.sort();
        names
            .iter()
            .filter(|name| self.data(name).is_dir())
            .map(|name| self.get(name))
            .collect()
    }

    /// Removes a volume and all that is in it. Whether somebody uses it is for
    /// the caller to know.
    ///
    /// # Errors
    /// If there is none, and those of removing.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.get(name)?;
        remove(&self.directory.join(name))
    }

    /// Holds a volume, so that nobody else fills or empties it: flock(2).
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub fn hold(&self, name: &str) -> Result<File> {
        let directory = self.directory.join(name);
        let file = File::open(&directory).with_context(|| format!("open({directory:?})"))?;
        file.lock()
            .with_context(|| format!("flock({directory:?})"))?;
        Ok(file)
    }
}

/// This moment, as RFC 3339 has it, to the second.
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

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
