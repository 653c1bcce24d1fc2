//! The files in which images are kept.
//!
//! ```text
//! DIR/images/lock          locked while images are added or removed
//! DIR/images/config/HEX    a configuration, as it came, named by its digest
//! DIR/images/record/HEX    what a start needs of that image
//! DIR/images/name/NAME     a link to the record of the image with that name
//! DIR/images/source/HEX    the image in a file elsewhere, when it was last used
//! ```
//!
//! The layers are in the stores of the drivers, under their chain ids. Each
//! file is written under another name and then renamed, the name of the image
//! last. A killed process leaves only layers that belong to no image, and the
//! next change of the store removes them. The files are synchronised against a
//! loss of power, the layers are not.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kit::own::{make, remove_file};
use kit::warn;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::image::digest::Digest;
use crate::image::name::Name;
use crate::image::record::ImageRecord;

/// The files of the images.
#[derive(Clone, Debug)]
pub struct ImageStore {
    directory: PathBuf,
}

/// The right to change the store. It is released when dropped, also by the
/// death of the process.
#[derive(Debug)]
pub struct ImageLock {
    _file: File,
}

impl ImageStore {
    /// The images below the state directory `root`. Creates nothing yet.
    pub fn new(root: &Path) -> Self {
        ImageStore {
            directory: root.join("images"),
        }
    }

    /// Waits until nobody else changes the store, and locks it. Creates it if
    /// it is missing.
    pub fn lock(&self) -> Result<ImageLock> {
        if let Some(root) = self.directory.parent() {
            // The drivers' mode: containers' roots lie below.
            make(root, 0o711)?;
        }
        for part in ["", "config", "record", "name", "source"] {
            make(&self.directory.join(part), 0o700)?;
        }
        let path = self.directory.join("lock");
        let file = File::create(&path).with_context(|| format!("open({path:?}, O_CREAT)"))?;
        file.lock()
            .with_context(|| format!("flock({path:?}, LOCK_EX)"))?;
        Ok(ImageLock { _file: file })
    }

    /// The record of an image, if there is one.
    pub fn record(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        read(&self.directory.join("record").join(id.hex()))
    }

    /// The configuration of an image, as it came.
    pub fn config(&self, id: &Digest) -> Result<Vec<u8>> {
        let path = self.directory.join("config").join(id.hex());
        fs::read(&path).with_context(|| format!("read {path:?}"))
    }

    /// The record of the image with that name, if there is one.
    pub fn named(&self, name: &Name) -> Result<Option<ImageRecord>> {
        read(&self.directory.join("name").join(name.file_name()))
    }

    /// The records of all images, sorted by id.
    pub fn records(&self) -> Result<Vec<ImageRecord>> {
        let records = self.each_record()?;
        records.into_iter().collect()
    }

    /// The records that can be read, sorted by id. Warns of the others: a
    /// damaged one does not hide the rest.
    pub fn readable_records(&self) -> Result<Vec<ImageRecord>> {
        let records = self.each_record()?.into_iter();
        Ok(records
            .filter_map(|record| record.inspect_err(|error| warn!("{error:#}")).ok())
            .collect())
    }

    /// The result of reading each record. One that has just been removed is
    /// skipped.
    fn each_record(&self) -> Result<Vec<Result<ImageRecord>>> {
        let ids = names(&self.directory.join("record"))?;
        Ok(ids
            .iter()
            .filter_map(|name| Digest::from_hex(name).ok())
            .filter_map(|id| self.record(&id).transpose())
            .collect())
    }

    /// All names, each with the id of its image.
    pub fn names(&self) -> Result<Vec<(Name, Digest)>> {
        let directory = self.directory.join("name");
        let mut named = Vec::new();
        for file_name in names(&directory)? {
            let path = directory.join(&file_name);
            let target = match fs::read_link(&path) {
                Ok(target) => target,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| format!("readlink({path:?})")),
            };
            let hex = target.file_name().and_then(|hex| hex.to_str());
            if let Some(name) = Name::of_file_name(&file_name)
                && let Some(Ok(id)) = hex.map(Digest::from_hex)
            {
                named.push((name, id));
            }
        }
        Ok(named)
    }

    /// Writes an image's configuration and record.
    pub fn keep(&self, record: &ImageRecord, config: &[u8], _lock: &ImageLock) -> Result<()> {
        self.write("config", record.id.hex(), config)?;
        let json = serde_json::to_vec(record).context("write the record as JSON")?;
        self.write("record", record.id.hex(), &json)
    }

    /// Gives a name to the image `id`, and takes it from any other.
    pub fn name(&self, name: &Name, id: &Digest, _lock: &ImageLock) -> Result<()> {
        let new = self.directory.join("new");
        let path = self.directory.join("name").join(name.file_name());
        remove_file(&new)?;
        symlink(Path::new("../record").join(id.hex()), &new)
            .with_context(|| format!("symlink({new:?})"))?;
        fs::rename(&new, &path).with_context(|| format!("rename({new:?}, {path:?})"))
    }

    /// Removes a name.
    pub fn unname(&self, name: &Name, _lock: &ImageLock) -> Result<()> {
        remove_file(&self.directory.join("name").join(name.file_name()))
    }

    /// Removes the record and configuration of an image that has no name any
    /// more.
    pub fn forget(&self, id: &Digest, _lock: &ImageLock) -> Result<()> {
        remove_file(&self.directory.join("record").join(id.hex()))?;
        remove_file(&self.directory.join("config").join(id.hex()))
    }

    /// The note about the file that `key` stands for, if there is one.
    pub fn source<T: DeserializeOwned>(&self, key: &Digest) -> Result<Option<T>> {
        read(&self.directory.join("source").join(key.hex()))
    }

    /// Writes a note about the file that `key` stands for.
    pub fn note_source(&self, key: &Digest, json: &[u8], _lock: &ImageLock) -> Result<()> {
        self.write("source", key.hex(), json)
    }

    /// The layers that directories were copied into, from the notes about them:
    /// `{"layer": …}`.
    pub fn copied_layers(&self) -> Result<Vec<String>> {
        let directory = self.directory.join("source");
        let mut layers = Vec::new();
        for name in names(&directory)? {
            let note: Option<serde_json::Value> = read(&directory.join(name))?;
            let layer = note.as_ref().and_then(|note| note.get("layer"));
            layers.extend(layer.and_then(|layer| layer.as_str()).map(str::to_owned));
        }
        Ok(layers)
    }

    /// The directory in which later steps say of layers that they are kept though
    /// no image has them: each file there is `{"layers": [CHAIN, …]}`.
    pub fn keeping(&self) -> PathBuf {
        self.directory.join("keep")
    }

    /// The IDs of these layers. A file whose name begins with `lease-` counts as
    /// long as a process holds its lock, and is removed afterwards.
    pub fn kept_layers(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Kept {
            layers: Vec<Digest>,
        }
        let directory = self.keeping();
        let mut layers = Vec::new();
        for name in names(&directory)? {
            let path = directory.join(&name);
            if name.starts_with("lease-") && !is_held(&path)? {
                remove_file(&path)?;
                continue;
            }
            match read::<Kept>(&path) {
                Ok(Some(kept)) => {
                    for layer in kept.layers {
                        layers.push(layer.layer_id()?.to_string());
                    }
                }
                Ok(None) => {}
                Err(error) => warn!("{error:#}"),
            }
        }
        Ok(layers)
    }

    fn write(&self, part: &str, name: &str, content: &[u8]) -> Result<()> {
        let new = self.directory.join("new");
        let path = self.directory.join(part).join(name);
        remove_file(&new)?;
        let mut file = File::create_new(&new).with_context(|| format!("open({new:?}, O_CREAT)"))?;
        file.write_all(content)
            .and_then(|()| file.sync_all())
            .with_context(|| format!("write {new:?}"))?;
        fs::rename(&new, &path).with_context(|| format!("rename({new:?}, {path:?})"))
    }
}

/// Reads a JSON file; `None` if there is none.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json)
            .with_context(|| format!("{path:?} is damaged"))
            .map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {path:?}")),
    }
}

/// The names in a directory, sorted; none if there is no directory.
pub fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {directory:?}")),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("read {directory:?}"))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Whether a process holds the lock of the file.
fn is_held(path: &Path) -> Result<bool> {
    match File::open(path) {
        Ok(file) => Ok(!kit::lock::try_alone(&file, path)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("open {path:?}")),
    }
}
