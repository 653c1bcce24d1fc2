//! Loading of images, from archives, layouts and root file systems.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kit::{say, warn};
use union::detect;
use union::{Kind, LayerId, StorageDriver};

use crate::image::config::{Config, ImageConfig, architecture, normal_architecture};
use crate::image::digest::{Checksum, Digest};
use crate::image::input::Spool;
use crate::image::layers::ImageLayers;
use crate::image::name::Name;
use crate::image::record::{ImageRecord, Layer, chain_or_empty};
use crate::image::source::blob::Blob;
use crate::image::source::parts::Parts;
use crate::image::source::verify::{Expected, checked};
use crate::image::source::{self, Source, Wanted};
use crate::image::store::ImageLock;

/// Loads images: unpacks their layers, and keeps their records.
#[derive(Clone, Copy)]
pub struct Loader<'a> {
    pub(super) layers: ImageLayers<'a>,
    pub(super) spool: Spool<'a>,
    /// Is told of each layer that is unpacked, or was before: its number, from
    /// 0.
    pub unpacked: Option<&'a dyn Fn(usize)>,
    /// The sizes of layers that [`Loader::unpack`] has unpacked, by chain ID.
    pub sizes: Option<&'a BTreeMap<Digest, u64>>,
}

/// Sees the parts of each image before it is kept, and may change them.
pub type Look<'a> = &'a mut dyn FnMut(&mut Parts, &ImageLock) -> Result<()>;

impl Loader<'_> {
    /// Loads the images at `path`, or from standard input, and names them:
    /// `name`, or the names that they bring along.
    ///
    /// # Errors
    /// If there are none, or one is damaged. That one is not kept.
    pub fn load(
        &self,
        path: Option<&Path>,
        name: Option<&Name>,
        kind: Kind,
    ) -> Result<Vec<(Digest, Vec<Name>)>> {
        self.load_seen(path, name, kind, &mut |_, _| Ok(()))
    }

    /// Loads images as [`Loader::load`] does, and shows each to `look` before it
    /// is kept.
    pub fn load_seen(
        &self,
        path: Option<&Path>,
        name: Option<&Name>,
        kind: Kind,
        look: Look<'_>,
    ) -> Result<Vec<(Digest, Vec<Name>)>> {
        let (path, tag) = match path.map(|path| (path, path.to_str())) {
            Some((path, Some(text))) if !path.exists() => match source::path_and_tag(text) {
                Some((path, tag)) => (Some(path), tag),
                None => bail!("{path:?}: there is no such file"),
            },
            other => (other.map(|(path, _)| path.to_owned()), None),
        };
        let lock = self.changing(kind)?;
        let source = self.spool.source(path.as_deref(), Wanted::Images, &lock)?;
        let Source::Images(files) = source else {
            bail!("this is a root file system, not an image: use drydock import");
        };
        let images = source::images(&files, tag)?;
        if name.is_some() && images.len() > 1 {
            bail!(
                "one name for {} images: select one by PATH:TAG",
                images.len()
            );
        }
        let driver = detect::open(kind, self.layers.root)?;
        let mut loaded = Vec::new();
        for mut parts in images {
            look(&mut parts, &lock)?;
            let record = self.keep(&parts, &*driver, &lock)?;
            let names = match name {
                Some(name) => vec![name.clone()],
                None => names_of(&parts, path.as_deref()),
            };
            for name in &names {
                self.give_name(name, &record.id, &lock)?;
            }
            loaded.push((record.id, names));
        }
        Ok(loaded)
    }

    /// Makes an image of a root file system: a tar at `path` or on standard
    /// input, or a directory.
    pub fn import(
        &self,
        path: Option<&Path>,
        name: &Name,
        config: Config,
        kind: Kind,
    ) -> Result<Digest> {
        self.import_seen(path, name, config, kind, &mut |_, _| Ok(()))
    }

    /// Imports as [`Loader::import`] does, and shows the image to `look` before
    /// it is kept.
    pub fn import_seen(
        &self,
        path: Option<&Path>,
        name: &Name,
        config: Config,
        kind: Kind,
        look: Look<'_>,
    ) -> Result<Digest> {
        let lock = self.changing(kind)?;
        let source = match path.filter(|path| path.is_dir()) {
            Some(directory) => {
                let file = self.spool.file(&lock)?;
                union::archive::write::whole(
                    &union::tree::Tree::open(directory)?,
                    &mut io::BufWriter::new(&file),
                )?;
                self.spool.source_of(
                    Blob::of(file, format!("{directory:?}"))?,
                    Wanted::Files,
                    &lock,
                )?
            }
            None => self.spool.source(path, Wanted::Files, &lock)?,
        };
        let Source::RootFileSystem(blob, content) = source else {
            bail!("this is no root file system");
        };
        let config = ImageConfig::plain(content.diff_id, config);
        let mut parts = root_file_system(blob, &config)?;
        look(&mut parts, &lock)?;
        let driver = detect::open(kind, self.layers.root)?;
        let record = self.keep(&parts, &*driver, &lock)?;
        self.give_name(name, &record.id, &lock)?;
        Ok(record.id)
    }

    /// Gives a name to the image `id`. Warns, as docker(1) does, if another
    /// image loses it.
    fn give_name(&self, name: &Name, id: &Digest, lock: &ImageLock) -> Result<()> {
        let before = self.layers.store.named(name)?;
        self.layers.store.name(name, id, lock)?;
        if let Some(before) = before.filter(|before| before.id != *id) {
            warn!(
                "the image {name} already exists, renaming the old one with ID {} to empty string",
                before.id
            );
        }
        Ok(())
    }

    /// The bytes that may be unpacked: those that are free. The state directory
    /// must exist, as [`Loader::changing`] makes it.
    pub fn room(&self) -> Result<u64> {
        self.spool.room()
    }

    /// Locks the images for changes, with layers in the store of `kind`.
    pub fn changing(&self, kind: Kind) -> Result<ImageLock> {
        self.layers.changing(kind)
    }

    /// Removes the layers in the store of `kind` that belong to no image, as
    /// [`Loader::changing`] does.
    pub fn sweep(&self, kind: Kind, lock: &ImageLock) -> Result<()> {
        self.layers.sweep(kind, lock)
    }

    /// Unpacks a layer on the one below it, and verifies it: its content is a
    /// blob, with the digest that this must have. Returns its size in bytes.
    pub fn unpack(
        &self,
        (blob, digest): &(Blob, Option<Checksum>),
        diff_id: &Digest,
        id: &LayerId,
        below: Option<&LayerId>,
        driver: &dyn StorageDriver,
        _lock: &ImageLock,
    ) -> Result<u64> {
        let expected = Expected {
            digest: digest.clone(),
            diff_id: Some(diff_id.clone()),
            at_most: self.spool.room()?,
        };
        say!("unpack layer {id} from {}", blob.what());
        let content = checked(blob, &expected, |from| driver.import(id, below, from))?;
        Ok(content.size)
    }

    /// Unpacks the layers that are missing, and keeps the record.
    pub fn keep(
        &self,
        parts: &Parts,
        driver: &dyn StorageDriver,
        lock: &ImageLock,
    ) -> Result<ImageRecord> {
        let (config, diff_ids) = parts.config()?;
        let made_for = normal_architecture(&config.architecture);
        if !made_for.is_empty() && made_for != architecture() {
            say!(
                "the image is made for {}, this is {}",
                config.architecture,
                architecture()
            );
        }
        let mut layers: Vec<Layer> = Vec::new();
        for (n, chain) in chain_or_empty(&diff_ids).into_iter().enumerate() {
            let id = chain.layer_id()?;
            let below = layers
                .last()
                .map(|layer| layer.chain.layer_id())
                .transpose()?;
            let size = if detect::has_layer(self.layers.root, driver.kind(), &id) {
                say!("layer {id} is there");
                match self.sizes.and_then(|sizes| sizes.get(&chain)) {
                    Some(size) => *size,
                    None => self.layers.size_of(&chain, driver)?,
                }
            } else if let (Some(layer), Some(diff_id)) = (parts.layers.get(n), diff_ids.get(n)) {
                self.unpack(layer, diff_id, &id, below.as_ref(), driver, lock)
                    .with_context(|| format!("layer {} of {}", n + 1, diff_ids.len()))?
            } else {
                driver.create(&id, None)?;
                0
            };
            layers.push(Layer { chain, size });
            if let Some(unpacked) = self.unpacked {
                unpacked(n);
            }
        }
        let record = ImageRecord {
            id: Digest::of(&parts.config),
            layers,
            created: config.created,
            config: config.config,
        };
        self.layers.store.keep(&record, &parts.config, lock)?;
        Ok(record)
    }
}

pub(super) fn root_file_system(blob: Blob, config: &ImageConfig) -> Result<Parts> {
    Ok(Parts {
        names: Vec::new(),
        manifest: None,
        config: serde_json::to_vec(config).context("write the configuration as JSON")?,
        layers: vec![(blob, None)],
    })
}

/// The names of an image. A bare tag is appended to the name of the file. A
/// name that is not valid here is skipped, with a message.
fn names_of(parts: &Parts, path: Option<&Path>) -> Vec<Name> {
    let stem = path.and_then(Path::file_name).map(|name| {
        let name = name.to_string_lossy();
        name.split('.').next().unwrap_or_default().to_owned()
    });
    let full = |name: &String| -> Option<Name> {
        let full = match source::is_bare_tag(name) {
            false => name.clone(),
            true => format!("{}:{name}", stem.as_deref()?.to_lowercase()),
        };
        let parsed: Result<Name> = full.parse();
        if let Err(error) = &parsed {
            kit::errln!("drydock: the image is not called {full:.100?}: {error:#}");
        }
        parsed.ok()
    };
    let mut names: Vec<Name> = Vec::new();
    for name in parts.names.iter().filter_map(full) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
