//! Images come: from archives and layouts, by name or because they are run.

use std::fs::{File, Metadata};
use std::io::{self, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use process::say;
use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};
use union::detect;
use union::store::remove_file;
use union::{Kind, StorageDriver};

use super::Images;
use super::blob::Blob;
use super::config::{Config, ImageConfig, architecture};
use super::digest::Digest;
use super::name::Name;
use super::parts::Parts;
use super::record::{Layer, Record, chain_or_empty};
use super::source::{self, Source};
use super::store::Lock;
use super::verify::{Expected, checked};

/// Which image a file was when it was last looked at, and how one sees that it
/// is the same file still: whoever changes it changes its ctime (inode(7)).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    image: Digest,
    file: [i64; 7],
}

impl Images {
    /// Loads the images at `path`, or those that come over standard input, and
    /// gives them the names that they bring along, or `name`.
    ///
    /// # Errors
    /// If there are none, or something about one is wrong: it is then not there.
    pub fn load(
        &self,
        path: Option<&Path>,
        name: Option<&Name>,
        kind: Kind,
    ) -> Result<Vec<(Digest, Vec<Name>)>> {
        let (path, tag) = match path.map(|path| (path, path.to_str())) {
            Some((path, Some(text))) if !path.exists() => match source::path_and_tag(text) {
                Some((path, tag)) => (Some(path), tag),
                None => bail!("{path:?}: there is no such file"),
            },
            other => (other.map(|(path, _)| path.to_owned()), None),
        };
        let lock = self.changing(kind)?;
        let source = self.source(path.as_deref(), &lock)?;
        let Source::Images(files) = source else {
            bail!("this is a root file system, not an image: drydock import gives it a name");
        };
        let images = source::images(&files, tag)?;
        if name.is_some() && images.len() > 1 {
            bail!("one name for {} images: give PATH:TAG", images.len());
        }
        let driver = detect::open(kind, &self.root)?;
        let mut loaded = Vec::new();
        for parts in images {
            let record = self.keep(&parts, &*driver, &lock)?;
            let names = match name {
                Some(name) => vec![name.clone()],
                None => names_of(&parts, path.as_deref()),
            };
            for name in &names {
                self.store.name(name, &record.id, &lock)?;
            }
            loaded.push((record.id, names));
        }
        Ok(loaded)
    }

    /// Makes an image of a root file system: a tar at `path` or on standard
    /// input, or a directory.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn import(
        &self,
        path: Option<&Path>,
        name: &Name,
        config: Config,
        kind: Kind,
    ) -> Result<Digest> {
        let lock = self.changing(kind)?;
        let source = match path.filter(|path| path.is_dir()) {
            Some(directory) => {
                let file = self.spool(&lock)?;
                union::archive::write::whole(
                    &union::tree::Tree::open(directory)?,
                    &mut io::BufWriter::new(&file),
                )?;
                self.source_of(Blob::of(file, format!("{directory:?}"))?, &lock)?
            }
            None => self.source(path, &lock)?,
        };
        let Source::RootFileSystem(blob, content) = source else {
            bail!("this is an image, not a root file system: drydock load keeps it");
        };
        let config = ImageConfig::plain(content.diff_id, config);
        let parts = root_file_system(blob, &config)?;
        let driver = detect::open(kind, &self.root)?;
        let record = self.keep(&parts, &*driver, &lock)?;
        self.store.name(name, &record.id, &lock)?;
        Ok(record.id)
    }

    /// The image in the archive or layout at `path`, as it is now.
    pub(super) fn from_path(&self, path: &Path, tag: Option<&str>, kind: Kind) -> Result<Record> {
        let path = path
            .canonicalize()
            .with_context(|| format!("realpath({path:?})"))?;
        let bytes = path.as_os_str().as_bytes();
        let key = Digest::of(&[bytes, b":", tag.unwrap_or_default().as_bytes()].concat());
        let file = identity(&path)?;
        if let Some(record) = self.seen(&key, &file)? {
            return Ok(record);
        }
        let lock = self.changing(kind)?;
        // Somebody else may have been as far meanwhile.
        if let Some(record) = self.seen(&key, &file)? {
            return Ok(record);
        }
        say!("{path:?} was not seen before, or has changed: unpack it");
        let parts = match self.source(Some(&path), &lock)? {
            Source::RootFileSystem(blob, content) => {
                let config = ImageConfig::plain(content.diff_id, Config::of_a_root_file_system());
                root_file_system(blob, &config)?
            }
            Source::Images(files) => one(source::images(&files, tag)?, &path)?,
        };
        let record = self.keep(&parts, &*detect::open(kind, &self.root)?, &lock)?;
        let seen = Seen {
            image: record.id.clone(),
            file,
        };
        let json = serde_json::to_vec(&seen).context("write a note as JSON")?;
        self.store.note_source(&key, &json, &lock)?;
        Ok(record)
    }

    fn seen(&self, key: &Digest, file: &[i64; 7]) -> Result<Option<Record>> {
        match self.store.source::<Seen>(key)? {
            Some(seen) if seen.file == *file => self.store.record(&seen.image),
            _ => Ok(None),
        }
    }

    /// The lock, and what a killed process has left in the store of `kind`
    /// taken away.
    pub(super) fn changing(&self, kind: Kind) -> Result<Lock> {
        let lock = self.store.lock()?;
        self.sweep(kind, &lock)?;
        Ok(lock)
    }

    fn source(&self, path: Option<&Path>, lock: &Lock) -> Result<Source> {
        let Some(path) = path else {
            return self.source_of(self.standard_input(lock)?, lock);
        };
        Source::at(path, &|| self.spool(lock), self.room()?)
    }

    fn source_of(&self, blob: Blob, lock: &Lock) -> Result<Source> {
        Source::of(blob, &|| self.spool(lock), self.room()?)
    }

    /// Standard input as a file: itself, if it is one.
    fn standard_input(&self, lock: &Lock) -> Result<Blob> {
        let stdin = io::stdin();
        let copy = rustix::io::dup(&stdin).context("dup(0)")?;
        let mut file = File::from(copy);
        let is_file = file.metadata().context("fstat(0)")?.is_file();
        if !is_file || file.stream_position().context("lseek(0)")? != 0 {
            let mut spool = self.spool(lock)?;
            io::copy(&mut file, &mut spool).context("copy standard input to a file")?;
            file = spool;
        }
        Blob::of(file, "standard input".into())
    }

    /// A file without a name.
    pub(super) fn spool(&self, _lock: &Lock) -> Result<File> {
        let path = self.root.join("images/spool");
        remove_file(&path)?;
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("open({path:?}, O_CREAT)"))?;
        remove_file(&path)?;
        Ok(file)
    }

    /// The bytes that are free where images are kept.
    fn room(&self) -> Result<u64> {
        let stat = statvfs(&self.root).with_context(|| format!("statvfs({:?})", self.root))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Unpacks the layers that are not there yet, and keeps the record.
    fn keep(&self, parts: &Parts, driver: &dyn StorageDriver, lock: &Lock) -> Result<Record> {
        let config = parts.config()?;
        if !config.architecture.is_empty() && config.architecture != architecture() {
            say!(
                "the image is made for {}, this is {}",
                config.architecture,
                architecture()
            );
        }
        let diff_ids = config.rootfs.diff_ids;
        let mut layers: Vec<Layer> = Vec::new();
        for (n, chain) in chain_or_empty(&diff_ids).into_iter().enumerate() {
            let id = chain.layer_id()?;
            let below = layers
                .last()
                .map(|layer| layer.chain.layer_id())
                .transpose()?;
            let size = if detect::has_layer(&self.root, driver.kind(), &id) {
                say!("layer {id} is there");
                self.size_of(&chain, driver)?
            } else if let (Some((blob, digest)), Some(diff_id)) =
                (parts.layers.get(n), diff_ids.get(n))
            {
                let expected = Expected {
                    digest: digest.clone(),
                    diff_id: Some(diff_id.clone()),
                    at_most: self.room()?,
                };
                say!("unpack layer {id} from {}", blob.what());
                checked(blob, &expected, |from| {
                    driver.import(&id, below.as_ref(), from)
                })
                .with_context(|| format!("layer {} of {}", n + 1, diff_ids.len()))?
                .size
            } else {
                driver.create(&id, None)?;
                0
            };
            layers.push(Layer { chain, size });
        }
        let record = Record {
            id: Digest::of(&parts.config),
            layers,
            created: config.created,
            config: config.config,
        };
        self.store.keep(&record, &parts.config, lock)?;
        Ok(record)
    }

    /// The size of a layer that is there.
    fn size_of(&self, chain: &Digest, driver: &dyn StorageDriver) -> Result<u64> {
        let records = self.store.records()?;
        let mut layers = records.iter().flat_map(|record| &record.layers);
        match layers.find(|layer| layer.chain == *chain) {
            Some(layer) => Ok(layer.size),
            None => driver.usage(&chain.layer_id()?),
        }
    }
}

fn root_file_system(blob: Blob, config: &ImageConfig) -> Result<Parts> {
    Ok(Parts {
        names: Vec::new(),
        config: serde_json::to_vec(config).context("write the configuration as JSON")?,
        layers: vec![(blob, None)],
    })
}

fn one(mut images: Vec<Parts>, path: &Path) -> Result<Parts> {
    if images.len() > 1 {
        let names: Vec<&String> = images.iter().flat_map(|parts| &parts.names).collect();
        bail!("{path:?} holds several images, {names:?}: say which as PATH:TAG");
    }
    images
        .pop()
        .with_context(|| format!("{path:?} holds no image"))
}

/// What an image is to be called: a bare tag is put behind the name of the file.
fn names_of(parts: &Parts, path: Option<&Path>) -> Vec<Name> {
    let stem = path.and_then(Path::file_name).map(|name| {
        let name = name.to_string_lossy();
        name.split('.').next().unwrap_or_default().to_owned()
    });
    let full = |name: &String| -> Option<Name> {
        if name.contains([':', '/']) {
            return name.parse().ok();
        }
        format!("{}:{name}", stem.as_deref()?).parse().ok()
    };
    parts.names.iter().filter_map(full).collect()
}

/// How one sees that a file, or the index of a layout, is what it was.
fn identity(path: &Path) -> Result<[i64; 7]> {
    let file = match path.is_dir() {
        true => path.join("index.json"),
        false => path.to_owned(),
    };
    let metadata: Metadata = file.metadata().with_context(|| format!("stat({file:?})"))?;
    Ok([
        metadata.dev() as i64,
        metadata.ino() as i64,
        metadata.size() as i64,
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ])
}
