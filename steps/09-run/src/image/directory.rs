//! A directory as an image.
//!
//! overlay2 uses it in place: the layer's content is a link to it, and nothing
//! is ever copied. It must not change while a container uses it
//! (overlayfs.rst). The other drivers copy it into a layer, once for each state
//! that it is in: a fingerprint of the names, sizes, owners and times of all
//! files shows whether it has changed.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kit::say;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use union::detect::{self, has_layer};
use union::layers::image::import_directory;
use union::tree::Tree;
use union::{Kind, LayerId};

use crate::image::digest::Digest;
use crate::image::layers::{DIRECTORY, ImageLayers};

/// A note: the layer that a directory was last copied into.
#[derive(Debug, Serialize, Deserialize)]
struct Copied {
    layer: String,
}

/// The layer of the directory at `path`, ready in the store of `kind`.
pub(super) fn layer_of(layers: ImageLayers<'_>, path: &Path, kind: Kind) -> Result<LayerId> {
    let path = path
        .canonicalize()
        .with_context(|| format!("realpath({path:?})"))?;
    match kind {
        Kind::Overlay2 => referred(layers, &path),
        _ => copied(layers, &path, kind),
    }
}

fn referred(layers: ImageLayers<'_>, path: &Path) -> Result<LayerId> {
    let id = layer_id(&Digest::of(path.as_os_str().as_bytes()))?;
    let link = layers.root.join("overlay2").join(&id).join("diff");
    let is_there = || fs::read_link(&link).is_ok_and(|target| target == *path);
    if !is_there() {
        let _lock = layers.changing(Kind::Overlay2)?;
        if !is_there() && !detect::open(Kind::Overlay2, layers.root)?.refer(&id, path)? {
            bail!("overlay2 cannot use {path:?} where it is");
        }
    }
    Ok(id)
}

fn copied(layers: ImageLayers<'_>, path: &Path, kind: Kind) -> Result<LayerId> {
    let id = layer_id(&fingerprint(path)?)?;
    if !has_layer(layers.root, kind, &id) {
        let lock = layers.changing(kind)?;
        if !has_layer(layers.root, kind, &id) {
            say!("copy {path:?} into layer {id}");
            import_directory(&*detect::open(kind, layers.root)?, &id, None, path)?;
        }
        let json = serde_json::to_vec(&Copied {
            layer: id.to_string(),
        })
        .context("write a note as JSON")?;
        layers.store.note_source(&key(path, kind), &json, &lock)?;
    }
    Ok(id)
}

fn key(path: &Path, kind: Kind) -> Digest {
    Digest::of(&[kind.as_str().as_bytes(), b":", path.as_os_str().as_bytes()].concat())
}

fn layer_id(digest: &Digest) -> Result<LayerId> {
    format!("{DIRECTORY}{}", &digest.hex()[..32]).parse()
}

/// A digest of the metadata of all files, which are not read. Whoever changes a
/// file changes its ctime, and nobody can set that (inode(7)).
fn fingerprint(path: &Path) -> Result<Digest> {
    let mut hash = Sha256::new();
    hash.update(path.as_os_str().as_bytes());
    let tree = Tree::open(path)?;
    let mut add = |path: &Path, stat: &rustix::fs::Stat| {
        hash.update(path.as_os_str().as_bytes());
        hash.update([0]);
        for number in [
            stat.st_ino as i64,
            i64::from(stat.st_mode),
            i64::from(stat.st_uid),
            i64::from(stat.st_gid),
            stat.st_size,
            stat.st_mtime,
            stat.st_mtime_nsec as i64,
            stat.st_ctime,
            stat.st_ctime_nsec as i64,
        ] {
            hash.update(number.to_le_bytes());
        }
    };
    if let Some(stat) = tree.stat(Path::new(""))? {
        add(Path::new(""), &stat);
    }
    tree.walk(Path::new(""), &mut |path, stat| {
        add(path, stat);
        Ok(true)
    })?;
    Ok(Digest::finished(hash))
}
