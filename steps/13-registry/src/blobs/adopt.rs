//! Images from elsewhere than a registry: an archive, a tar, a container. Their
//! layers become blobs once, and are pushed as these blobs ever after.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};

use anyhow::{Context, Result, bail};
use engine::image::config::ImageConfig;
use engine::image::digest::{Checksum, Digest};
use engine::image::source::blob::Blob;
use engine::image::source::decompress::Packing;
use engine::image::source::parts::Parts;
use engine::image::source::verify::{Expected, checked, content};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

use crate::blobs::BlobStore;
use crate::manifest::{
    Descriptor, Manifest, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST,
};

impl BlobStore {
    /// Keeps the blobs of an image, with the manifest that it brings along, else
    /// with one that is made. `at_most` bytes are unpacked of a layer. The caller
    /// holds the lock of the images.
    pub fn adopt(&self, parts: &Parts, at_most: u64) -> Result<()> {
        let _held = self.hold()?;
        let (_, diff_ids) = parts.config()?;
        let id = Digest::of(&parts.config);
        // One that is damaged, or of a form that no registry takes, is replaced.
        let given = parts.manifest.as_ref().and_then(|bytes| {
            let manifest = Manifest::parse(bytes).ok()?;
            (manifest.config.digest == id).then_some((bytes, manifest))
        });
        if given.is_none() && self.manifest(&id)?.is_some() {
            return Ok(());
        }
        for ((blob, _), diff_id) in parts.layers.iter().zip(&diff_ids) {
            if !blob.is_there() && self.layer_of(diff_id)?.is_none() {
                // It is unpacked, or the image will not be kept. A push packs it.
                return Ok(());
            }
        }
        let mut layers = Vec::new();
        for (n, ((blob, digest), diff_id)) in parts.layers.iter().zip(&diff_ids).enumerate() {
            let wanted = given
                .as_ref()
                .and_then(|(_, manifest)| manifest.layers.get(n));
            let known = match wanted {
                Some(wanted) if self.has(&wanted.digest)? => Some(wanted.clone()),
                Some(_) => None,
                None => self.layer_of(diff_id)?,
            };
            let form = match wanted {
                Some(_) => Form::AsItIs,
                None => Form::Compressed,
            };
            layers.push(match known {
                Some(layer) => layer,
                None => self.adopt_layer(blob, digest.clone(), diff_id, at_most, form)?,
            });
        }
        let Some((bytes, manifest)) = given else {
            return self.keep_manifest(&parts.config, layers);
        };
        let digests = |layers: &[Descriptor]| -> Vec<Digest> {
            layers.iter().map(|layer| layer.digest.clone()).collect()
        };
        if digests(&layers) != digests(&manifest.layers) {
            bail!("its layers are not those of its manifest");
        }
        self.put(&parts.config)?;
        let kind = match &*manifest.media_type {
            "" => OCI_MANIFEST,
            kind => kind,
        };
        let manifest = descriptor(kind, self.put(bytes)?, bytes.len() as u64);
        self.note(&id, |origin| origin.add_manifest(manifest))
    }

    /// Keeps a configuration, and a manifest of it with these layers.
    pub fn keep_manifest(&self, config: &[u8], layers: Vec<Descriptor>) -> Result<()> {
        let id = self.put(config)?;
        let config = descriptor(OCI_CONFIG, id.clone(), config.len() as u64);
        let manifest = Manifest::new(config, layers);
        let bytes = serde_json::to_vec(&manifest).context("write the manifest as JSON")?;
        let digest = self.put(&bytes)?;
        let manifest = descriptor(OCI_MANIFEST, digest, bytes.len() as u64);
        self.note(&id, |origin| origin.add_manifest(manifest))
    }

    /// A blob of the layer whose tar has this digest, if one is here.
    pub fn layer_of(&self, diff_id: &Digest) -> Result<Option<Descriptor>> {
        for id in self.originals()? {
            let Some((_, _, manifest)) = self.manifest(&id)? else {
                continue;
            };
            let config = ImageConfig::parse(&self.document(&manifest.config.digest)?)?;
            let found = config.diff_ids()?.iter().position(|one| one == diff_id);
            if let Some(layer) = found.and_then(|n| manifest.layers.get(n)) {
                return Ok(Some(layer.clone()));
            }
        }
        Ok(None)
    }

    /// Keeps a layer. `diff_id` is the digest of its tar, which is verified.
    pub fn adopt_layer(
        &self,
        blob: &Blob,
        digest: Option<Checksum>,
        diff_id: &Digest,
        at_most: u64,
        form: Form,
    ) -> Result<Descriptor> {
        let mut first = [0; 8];
        let length = blob.reader().read(&mut first).unwrap_or(0);
        let packing = Packing::of(&first[..length]);
        let expected = Expected {
            digest,
            diff_id: Some(diff_id.clone()),
            at_most,
        };
        let new = self.new_file()?;
        let mut to = Hashing {
            to: BufWriter::with_capacity(1 << 16, &new.file),
            hash: Sha256::new(),
            size: 0,
        };
        let kind = match packing {
            // Registries take no layers that are packed with these.
            Packing::Plain | Packing::Bzip2 | Packing::Xz if form == Form::Compressed => {
                checked(blob, &expected, |from| {
                    // No name and no time in the header: the same tar becomes the
                    // same blob.
                    let mut gzip = GzBuilder::new().write(&mut to, Compression::default());
                    io::copy(from, &mut gzip).context("compress a layer")?;
                    gzip.finish().context("compress a layer")?;
                    Ok(())
                })?;
                OCI_LAYER_GZIP
            }
            _ => {
                content(blob, &expected)?;
                io::copy(&mut blob.reader(), &mut to).context("copy a layer")?;
                match packing {
                    Packing::Zstd => OCI_LAYER_ZSTD,
                    Packing::Gzip => OCI_LAYER_GZIP,
                    Packing::Plain | Packing::Bzip2 | Packing::Xz => OCI_LAYER,
                }
            }
        };
        to.flush().context("write a layer")?;
        let (digest, size) = (Digest::finished(to.hash.clone()), to.size);
        drop(to);
        self.name(new, &digest)?;
        Ok(descriptor(kind, digest, size))
    }
}

/// How a layer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A manifest names it as it is.
    AsItIs,
    /// Compressed as registries take it.
    Compressed,
}

/// The descriptor of content of a certain type.
pub fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

/// A writer that hashes and counts what it writes.
struct Hashing<W> {
    to: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
