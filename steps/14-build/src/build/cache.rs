//! The cache: which layer an instruction has made of which image.
//!
//! ```text
//! DIR/images/keep/HEX      by key: the layer, and those below it
//! DIR/images/keep/lease-*  the layers of a build that is running, locked by it
//! DIR/build/why/HEX        by Dockerfile: what its instructions were made of
//! ```
//!
//! The key of an instruction is a digest of everything that its layer depends on:
//! the layer below, the instruction with its variables replaced, the environment
//! of a command, the files that are copied (their content, mode, owner and links,
//! not their times). What a command reads from the network, or from the clock, is
//! not in it: `--no-cache` is for that.
//!
//! A record keeps its layer from being swept. It is written while the images are
//! locked, together with the layer.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};
use engine::image::Images;
use engine::image::digest::{Digest, chain};
use engine::image::store::{ImageLock, names};
use kit::atomic_file::write_file;
use kit::own::{make, remove_file};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use union::Kind;
use union::detect::has_layer;

use crate::build::image::Made;

/// What is noted of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The chain IDs of the layer, last, and of all below it.
    #[serde(default)]
    pub layers: Vec<Digest>,
    /// The layer; `None` before it is made.
    #[serde(default)]
    pub made: Option<Made>,
    /// The instruction, for people.
    pub text: String,
}

impl Record {
    /// The record of a layer that has been made.
    pub fn with(&self, made: &Made, diff_ids: &[Digest]) -> Record {
        Record {
            layers: chain(diff_ids),
            made: Some(made.clone()),
            text: self.text.clone(),
        }
    }
}

/// The cache of a state directory.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    directory: PathBuf,
}

impl Cache {
    /// The cache beside the images. Creates nothing yet.
    pub fn new(images: &Images) -> Self {
        Cache {
            root: images.root().to_owned(),
            directory: images.store.keeping(),
        }
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.directory.join(key.hex())
    }

    /// Writes a record. The caller has locked the images.
    pub fn write(&self, key: &Digest, record: &Record) -> Result<()> {
        make(&self.directory, 0o700)?;
        let json = serde_json::to_vec(record).context("write JSON")?;
        write_file(&self.path(key), json)
    }

    /// The layer that an instruction has made, if it is there in the store of
    /// `kind`. Notes that it was used.
    pub fn find(&self, key: &Digest, kind: Kind) -> Result<Option<Made>> {
        let path = self.path(key);
        let Some(record) = self.read(key)? else {
            return Ok(None);
        };
        let Some(top) = record.layers.last() else {
            return Ok(None);
        };
        if !has_layer(&self.root, kind, &top.layer_id()?) {
            return Ok(None);
        }
        let file = match File::options().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("open {path:?}")),
        };
        file.set_modified(SystemTime::now())
            .with_context(|| format!("futimens({path:?})"))?;
        Ok(record.made)
    }

    fn read(&self, key: &Digest) -> Result<Option<Record>> {
        let path = self.path(key);
        let json = match std::fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {path:?}")),
        };
        match serde_json::from_slice(&json) {
            Ok(record) => Ok(Some(record)),
            // What is damaged is built again.
            Err(error) => {
                kit::say!("{path:?}: {error}");
                Ok(None)
            }
        }
    }

    /// All records, with their keys and when they were last used.
    pub fn all(&self) -> Result<Vec<(Digest, Record, SystemTime)>> {
        let mut all = Vec::new();
        for name in names(&self.directory)? {
            let Ok(key) = Digest::from_hex(&name) else {
                continue;
            };
            let Some(record) = self.read(&key)? else {
                continue;
            };
            let path = self.path(&key);
            if let Ok(metadata) = path.metadata() {
                let used = metadata.modified().context("stat")?;
                all.push((key, record, used));
            }
        }
        Ok(all)
    }

    /// Forgets a record. The next sweep removes the layer, if nobody else has it.
    pub fn forget(&self, key: &Digest, _lock: &ImageLock) -> Result<()> {
        remove_file(&self.path(key))
    }

    /// Keeps these layers as long as the lease lives, or this process does.
    pub fn lease(&self, layers: &[Digest], _lock: &ImageLock) -> Result<Lease> {
        make(&self.directory, 0o700)?;
        let path = self
            .directory
            .join(format!("lease-{}", kit::random::hex::<8>()?));
        let record = serde_json::json!({ "layers": layers });
        write_file(&path, record.to_string())?;
        let file = File::open(&path).with_context(|| format!("open {path:?}"))?;
        kit::lock::try_alone(&file, &path)?;
        Ok(Lease { path, _file: file })
    }

    /// When the oldest build that is running has begun; `None` if none is.
    pub fn oldest_lease(&self, _lock: &ImageLock) -> Result<Option<SystemTime>> {
        let mut oldest = None;
        for name in names(&self.directory)? {
            if !name.starts_with("lease-") {
                continue;
            }
            let path = self.directory.join(&name);
            let Ok(file) = File::open(&path) else {
                continue;
            };
            if kit::lock::try_alone(&file, &path)? {
                // Its build was killed.
                remove_file(&path)?;
                continue;
            }
            let begun = file.metadata().and_then(|found| found.modified());
            let begun = begun.with_context(|| format!("stat({path:?})"))?;
            oldest = Some(oldest.map_or(begun, |oldest: SystemTime| oldest.min(begun)));
        }
        Ok(oldest)
    }
}

/// Layers that are kept for a build.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    _file: File,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(error) = remove_file(&self.path) {
            kit::warn!("{error:#}");
        }
    }
}

/// What an instruction's layer depends on, part by part, so that a difference can
/// be named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The layer below.
    pub below: Option<Digest>,
    /// What the instruction says, after its variables were replaced.
    pub text: String,
    /// Its environment, by name; the values' digests.
    pub variables: BTreeMap<String, Digest>,
    /// Other things: the user, the network, the mounts.
    pub besides: BTreeMap<String, String>,
    /// The files, each with its digest.
    pub files: Vec<(String, Digest)>,
}

impl Inputs {
    /// Everything in one digest.
    // ANCHOR: key
    pub fn key(&self) -> Result<Digest> {
        // ANCHOR: exercise_key
        let json = serde_json::to_vec(self).context("write JSON")?;
        let mut hash = Sha256::new();
        // A change of what a step does with the same inputs is a change, too.
        hash.update(b"drydock build 1\n");
        hash.update(&json);
        Ok(Digest::finished(hash))
        // ANCHOR_END: exercise_key
    }
    // ANCHOR_END: key

    /// What has changed since `before`, in words.
    // ANCHOR: why
    pub fn changed_since(&self, before: &Inputs) -> Option<String> {
        // ANCHOR: exercise_changed_since
        for name in self.variables.keys().chain(before.variables.keys()) {
            let (now, then) = (self.variables.get(name), before.variables.get(name));
            if now != then {
                return Some(match (now, then) {
                    (Some(_), None) => format!("variable {name} is new"),
                    (None, _) => format!("variable {name} is gone"),
                    (Some(_), Some(_)) => format!("variable {name} changed"),
                });
            }
        }
        let known: BTreeMap<_, _> = before.files.iter().map(|(name, of)| (name, of)).collect();
        let now: BTreeMap<_, _> = self.files.iter().map(|(name, of)| (name, of)).collect();
        for (name, digest) in &now {
            match known.get(name) {
                None => return Some(format!("{name} is new")),
                Some(then) if then != digest => return Some(format!("{name} changed")),
                Some(_) => {}
            }
        }
        if let Some((name, _)) = known.iter().find(|(name, _)| !now.contains_key(*name)) {
            return Some(format!("{name} is gone"));
        }
        if self.text != before.text {
            return Some("the instruction changed".into());
        }
        for name in self.besides.keys().chain(before.besides.keys()) {
            if self.besides.get(name) != before.besides.get(name) {
                return Some(format!("{name} changed"));
            }
        }
        if self.below != before.below {
            return Some("the layer below changed".into());
        }
        None
        // ANCHOR_END: exercise_changed_since
    }
    // ANCHOR_END: why
}
