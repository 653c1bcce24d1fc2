//! Images and containers as archives.
//!
//! `save` writes an OCI image layout with Docker's `manifest.json` in it, as
//! Docker has done since version 25: every engine reads one of the two. The blobs
//! are those of the store, so that whoever loads the archive and pushes the image
//! pushes the same digests.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Context, Result};
use engine::image::digest::Digest;
use engine::image::name::Name;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};
use union::driver::Access;
use union::tree::Tree;
use union::{LayerId, StorageDriver};

use crate::blobs::BlobStore;
use crate::manifest::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

/// Writes images with their names.
pub fn save(blobs: &BlobStore, images: &[(Digest, Vec<Name>)], to: &mut dyn Write) -> Result<()> {
    let _held = blobs.hold()?;
    let mut archive = Archive {
        blobs,
        tar: Builder::new(to),
        written: BTreeSet::new(),
    };
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let (mut index, mut list) = (Vec::new(), Vec::new());
    for (id, names) in images {
        let (descriptor, _, manifest) = blobs
            .manifest(id)?
            .with_context(|| format!("image {id} has no manifest"))?;
        for part in manifest.parts() {
            archive.blob(&part.digest)?;
        }
        archive.blob(&descriptor.digest)?;
        let kind = match &*descriptor.media_type {
            DOCKER_MANIFEST => DOCKER_MANIFEST,
            _ => OCI_MANIFEST,
        };
        let entry = json!({
            "mediaType": kind, "digest": descriptor.digest.to_string(), "size": descriptor.size,
        });
        // One entry for each name.
        for name in names {
            let tag = name.as_str().rsplit(':').next().unwrap_or_default();
            let mut entry = entry.clone();
            entry["annotations"] = json!({
                // Whoever reads this one takes it as it is: without the host it
                // is another name.
                "io.containerd.image.name": name.full(),
                "org.opencontainers.image.ref.name": tag,
            });
            index.push(entry);
        }
        if names.is_empty() {
            index.push(entry);
        }
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
        list.push(json!({
            "Config": path(&manifest.config.digest),
            "RepoTags": if names.is_empty() { Value::Null } else { json!(names) },
            "Layers": manifest.layers.iter().map(|layer| path(&layer.digest)).collect::<Vec<_>>(),
        }));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index });
    archive.file("index.json", index.to_string().as_bytes())?;
    archive.file("manifest.json", Value::from(list).to_string().as_bytes())?;
    archive.tar.finish().context("write the archive")
}

struct Archive<'a> {
    blobs: &'a BlobStore,
    tar: Builder<&'a mut dyn Write>,
    written: BTreeSet<Digest>,
}

impl Archive<'_> {
    fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, content.len() as u64, content)
    }

    /// Writes a blob, once.
    fn blob(&mut self, digest: &Digest) -> Result<()> {
        if !self.written.insert(digest.clone()) {
            return Ok(());
        }
        let blob = self.blobs.blob(digest)?;
        let name = format!("blobs/sha256/{}", digest.hex());
        self.entry(&name, blob.size(), blob.reader())
    }

    /// Times, owners and modes are always the same: so is the archive.
    fn entry(&mut self, name: &str, size: u64, content: impl std::io::Read) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        self.tar
            .append_data(&mut header, name, content)
            .with_context(|| format!("write {name} to the archive"))
    }
}

/// Writes all files of a layer and those below it: what a container sees, but
/// for its mounts.
pub fn whole(driver: &dyn StorageDriver, id: &LayerId, to: &mut dyn Write) -> Result<()> {
    let mut view = driver.view(id, Access::ReadOnly)?;
    let root = view.detached()?;
    union::archive::write::whole(&Tree::at(&root)?, to)
}
