//! An archive or a layout as an image, by its path: loaded when it is first
//! used, and again when it has changed.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kit::say;
use serde::{Deserialize, Serialize};
use union::Kind;
use union::detect;

use crate::image::config::{Config, ImageConfig};
use crate::image::digest::Digest;
use crate::image::load::{Loader, root_file_system};
use crate::image::record::ImageRecord;
use crate::image::source::parts::Parts;
use crate::image::source::{self, Source, Wanted};
use crate::image::store::ImageStore;

/// A note: the image in a file when it was last used, and the identity of the
/// file then. Whoever changes the file changes its ctime (inode(7)).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    image: Digest,
    file: [i64; 7],
}

/// The image in the archive or layout at `path`, as it is now.
pub(super) fn of_path(
    loader: Loader<'_>,
    path: &Path,
    tag: Option<&str>,
    kind: Kind,
) -> Result<ImageRecord> {
    let path = path
        .canonicalize()
        .with_context(|| format!("realpath({path:?})"))?;
    let bytes = path.as_os_str().as_bytes();
    let key = Digest::of(&[bytes, b":", tag.unwrap_or_default().as_bytes()].concat());
    let file = identity(&path)?;
    if let Some(record) = seen(loader.layers.store, &key, &file)? {
        return Ok(record);
    }
    let lock = loader.changing(kind)?;
    // Another process may have loaded it in the meantime.
    if let Some(record) = seen(loader.layers.store, &key, &file)? {
        return Ok(record);
    }
    say!("{path:?} was not seen before, or has changed: unpack it");
    let parts = match loader.spool.source(Some(&path), Wanted::Either, &lock)? {
        Source::RootFileSystem(blob, content) => {
            let config = ImageConfig::plain(content.diff_id, Config::of_a_root_file_system());
            root_file_system(blob, &config)?
        }
        Source::Images(files) => one(source::images(&files, tag)?, &path)?,
    };
    let record = loader.keep(&parts, &*detect::open(kind, loader.layers.root)?, &lock)?;
    let seen = Seen {
        image: record.id.clone(),
        file,
    };
    let json = serde_json::to_vec(&seen).context("write a note as JSON")?;
    loader.layers.store.note_source(&key, &json, &lock)?;
    Ok(record)
}

fn seen(store: &ImageStore, key: &Digest, file: &[i64; 7]) -> Result<Option<ImageRecord>> {
    match store.source::<Seen>(key)? {
        Some(seen) if seen.file == *file => store.record(&seen.image),
        _ => Ok(None),
    }
}

fn one(mut images: Vec<Parts>, path: &Path) -> Result<Parts> {
    if images.len() > 1 {
        let names: Vec<&String> = images.iter().flat_map(|parts| &parts.names).collect();
        bail!("{path:?} holds several images, {names:?}: select one by PATH:TAG");
    }
    images
        .pop()
        .with_context(|| format!("{path:?} holds no image"))
}

/// The identity of a file, or of the index of a layout: device, inode, size,
/// mtime and ctime.
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
