//! Images: a stack of layers and a configuration.
//!
//! | module | what |
//! |---|---|
//! | this file | finding an image, and making it ready |
//! | [`name`], [`digest`], [`config`], [`record`] | names, digests, and the documents about an image |
//! | [`document`] | JSON as Go reads it |
//! | [`store`] | the files in which images are kept |
//! | [`load`], [`path`], [`input`] | loading: by command, by path, from standard input |
//! | [`source`] | the contents of an archive or a directory, verified while they stream |
//! | [`layers`] | the layers of images, in the stores of the drivers |
//! | [`directory`] | a root file system as an image |
//! | [`remove`] | removal |

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use union::detect::has_layer;
use union::{Kind, LayerId};

pub mod config;
pub mod digest;
mod directory;
pub mod document;
mod input;
pub(crate) mod layers;
pub mod load;
pub mod name;
mod path;
pub mod record;
pub mod remove;
pub mod source;
pub mod store;

use config::Config;
use digest::Digest;
use input::Spool;
use layers::ImageLayers;
use load::Loader;
use name::Name;
use record::ImageRecord;
use remove::Removed;
use store::ImageStore;

/// An image that is ready to be run.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration, `sha256:…`; for a directory, which has
    /// none, the id of its layer.
    pub id: String,
    /// The reference that it was found by, for messages.
    pub name: String,
    /// The topmost layer, in the store of the driver that it was made ready
    /// for.
    pub top: LayerId,
    /// The defaults of the containers made of it.
    pub config: Config,
}

/// The images below a state directory.
#[derive(Clone, Debug)]
pub struct Images {
    root: PathBuf,
    /// Their names, records and configurations.
    pub store: ImageStore,
}

impl Images {
    /// The images below the state directory `root`. Nothing is created there
    /// before an image is loaded.
    pub fn open(root: &Path) -> Result<Self> {
        let root =
            std::path::absolute(root).with_context(|| format!("the path of --root {root:?}"))?;
        Ok(Images {
            store: ImageStore::new(&root),
            root,
        })
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The layers of the images.
    fn layers(&self) -> ImageLayers<'_> {
        ImageLayers {
            root: &self.root,
            store: &self.store,
        }
    }

    /// Where input is copied to.
    fn spool(&self) -> Spool<'_> {
        Spool { root: &self.root }
    }

    /// Loads images from archives, layouts and root file systems.
    pub fn loader(&self) -> Loader<'_> {
        Loader {
            layers: self.layers(),
            spool: self.spool(),
            unpacked: None,
            sizes: None,
        }
    }

    /// Removes a name, and with the last one the image. An id removes the image
    /// with all its names.
    ///
    /// # Errors
    /// If there is no such image, or a container uses it.
    pub fn remove(&self, reference: &str) -> Result<Removed> {
        let lock = self.store.lock()?;
        let Some(record) = self.find(reference)? else {
            bail!("there is no image {reference:?}: see drydock images");
        };
        remove::remove(self.layers(), &record, reference, &lock)
    }

    /// Finds the image that `reference` means, and makes its layers ready in
    /// the store of the storage driver `kind`, once.
    ///
    /// A reference is the name or the id of an image that was loaded before,
    /// else the path of a directory, a tar of a root file system, an OCI image
    /// layout or a `docker save` archive (`PATH:TAG` if there are several
    /// images in it). If it begins with `/` or `.` it is always a path.
    ///
    /// For an image that is ready this costs reading one small file and a
    /// stat(2); for a path also its realpath(3).
    ///
    /// # Errors
    /// If there is no such image or path, or the image is damaged.
    // ANCHOR: ready
    pub fn ready(&self, reference: &str, kind: Kind) -> Result<Image> {
        // ANCHOR: exercise_ready
        if let Some(record) = self.find(reference)? {
            return self.image(&record, reference, kind);
        }
        let Some((path, tag)) = source::path_and_tag(reference) else {
            bail!(
                "there is no image, file or directory {reference:?}: drydock images shows the \
                 loaded images"
            );
        };
        if path.is_dir() && !source::is_layout(&path) {
            let top = directory::layer_of(self.layers(), &path, kind)?;
            return Ok(Image {
                id: top.to_string(),
                name: reference.to_owned(),
                top,
                config: Config::of_a_root_file_system(),
            });
        }
        let record = path::of_path(self.loader(), &path, tag, kind)?;
        self.image(&record, reference, kind)
        // ANCHOR_END: exercise_ready
    }
    // ANCHOR_END: ready

    /// The image with this name, id or beginning of an id, or the only image
    /// with a name that ends in `reference`.
    ///
    /// # Errors
    /// If several images are meant.
    pub fn find(&self, reference: &str) -> Result<Option<ImageRecord>> {
        if reference.starts_with(['/', '.']) {
            return Ok(None);
        }
        let name = reference.parse::<Name>().ok();
        if let Some(name) = &name
            && let Some(record) = self.store.named(name)?
        {
            return Ok(Some(record));
        }
        let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
        if let Ok(id) = Digest::from_hex(hex) {
            return self.store.record(&id);
        }
        let mut meant = Vec::new();
        if let Some(name) = &name {
            let named = self.store.names()?.into_iter();
            meant.extend(named.filter(|(full, _)| full.ends_with(name)));
        }
        if let [(one, id), (other, _), ..] = &meant[..]
            && meant.iter().any(|(_, another)| another != id)
        {
            bail!("{reference:?} is ambiguous: it may be {one} or {other}");
        }
        if let Some((_, id)) = meant.first() {
            return self.store.record(id);
        }
        self.find_by_part_of_id(reference, hex)
    }

    fn find_by_part_of_id(&self, reference: &str, hex: &str) -> Result<Option<ImageRecord>> {
        let digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        if hex.len() < 4 || !hex.chars().all(digit) {
            return Ok(None);
        }
        let mut records = self.store.records()?;
        records.retain(|record| record.id.hex().starts_with(hex));
        if records.len() > 1 {
            bail!("{reference:?} is ambiguous: several ids begin with it");
        }
        Ok(records.pop())
    }

    /// The image of a record, with its layers in the store of `kind`.
    fn image(&self, record: &ImageRecord, name: &str, kind: Kind) -> Result<Image> {
        let top = record.top()?;
        if !has_layer(&self.root, kind, &top) {
            self.layers()
                .copy_from_elsewhere(record, kind, self.spool())?;
        }
        Ok(Image {
            id: record.id.to_string(),
            name: name.to_owned(),
            top,
            config: record.config.clone(),
        })
    }
}
