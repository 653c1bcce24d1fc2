//! A container's layer becomes a layer of an image.

use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result};
use engine::image::Images;
use engine::image::digest::{Digest, chain};
use registry::blobs::BlobStore;
use sha2::{Digest as _, Sha256};
use union::detect::has_layer;
use union::{LayerId, StorageDriver};

use crate::build::cache::Cache;
use crate::build::image::Made;
use crate::build::order::Keep;

/// Keeps the changes of a container as a layer, under the ID of its content.
/// Nobody else removes the container's layer meanwhile.
///
/// The digest of a layer is that of its tar, so the tar is written, into a hash.
/// The files need not be: where the driver can, the container's layer becomes the
/// image's as it is.
// ANCHOR: keep
pub fn keep(
    images: &Images,
    keep: &Keep,
    driver: &dyn StorageDriver,
    container: &LayerId,
) -> Result<Made> {
    let mut measured = Measured::new(io::sink());
    driver.diff_until(container, keep.epoch, &mut measured)?;
    let (diff_id, size) = measured.finish();
    let mut diff_ids = keep.below.clone();
    diff_ids.push(diff_id.clone());
    let id = chain(&diff_ids).pop().context("no layer")?.layer_id()?;
    let parent = chain(&keep.below).pop();
    let parent = parent.map(|parent| parent.layer_id()).transpose()?;
    let made = Made {
        diff_id,
        size,
        created: keep.created.clone().unwrap_or_else(kit::time::now),
    };
    // From here on nobody sweeps: the layer belongs to no image.
    let _lock = images.store.lock()?;
    if !has_layer(images.root(), driver.kind(), &id) {
        // Times that are later than they may be stand in the files, too.
        let as_it_is = keep.epoch.is_none();
        if !as_it_is || !driver.promote(container, &id, parent.as_ref())? {
            repack(images, keep, driver, container, (&id, parent.as_ref()))?;
        }
    }
    if let Some(record) = &keep.record {
        Cache::new(images).write(&keep.key, &record.with(&made, &diff_ids))?;
    }
    Ok(made)
}
// ANCHOR_END: keep

/// The long way: by a tar.
fn repack(
    images: &Images,
    keep: &Keep,
    driver: &dyn StorageDriver,
    container: &LayerId,
    (id, parent): (&LayerId, Option<&LayerId>),
) -> Result<()> {
    let blobs = BlobStore::new(images.root());
    let _held = blobs.hold()?;
    let mut tar = blobs.new_tar()?;
    let mut writer = BufWriter::with_capacity(1 << 16, &mut tar);
    driver.diff_until(container, keep.epoch, &mut writer)?;
    writer.flush().context("write the layer")?;
    drop(writer);
    let (_, blob) = tar.finish()?;
    driver.import(id, parent, &mut blob.reader())
}

/// A writer of a tar that hashes it, and sums up the sizes of its files.
struct Measured<W> {
    to: W,
    hash: Sha256,
    /// The block that has half arrived.
    block: Vec<u8>,
    /// The bytes of content that follow, with their padding.
    skip: u64,
    size: u64,
}

const BLOCK: usize = 512;

impl<W: Write> Measured<W> {
    fn new(to: W) -> Self {
        Measured {
            to,
            hash: Sha256::new(),
            block: Vec::with_capacity(BLOCK),
            skip: 0,
            size: 0,
        }
    }

    fn finish(self) -> (Digest, u64) {
        (Digest::finished(self.hash), self.size)
    }

    fn header(&mut self) {
        let block = std::mem::take(&mut self.block);
        let header = tar::Header::from_byte_slice(&block);
        // The blocks of zeroes at the end have no size.
        let length = header.entry_size().unwrap_or(0);
        if header.entry_type() == tar::EntryType::Regular {
            self.size += length;
        }
        self.skip = length.next_multiple_of(BLOCK as u64);
        self.block = block;
        self.block.clear();
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        let mut rest = &bytes[..written];
        self.hash.update(rest);
        while !rest.is_empty() {
            let skipped = rest
                .len()
                .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= skipped as u64;
            rest = &rest[skipped..];
            let wanted = rest.len().min(BLOCK - self.block.len());
            self.block.extend_from_slice(&rest[..wanted]);
            rest = &rest[wanted..];
            if self.block.len() == BLOCK {
                self.header();
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_the_size_of_its_files() {
        let mut builder = tar::Builder::new(Measured::new(Vec::new()));
        for (name, content) in [("a", &b"hello world\n"[..]), ("b", &[7; 1000])] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            let long = name.repeat(120);
            builder.append_data(&mut header, long, content).unwrap();
        }
        let mut directory = tar::Header::new_gnu();
        directory.set_entry_type(tar::EntryType::Directory);
        directory.set_size(0);
        builder
            .append_data(&mut directory, "d", io::empty())
            .unwrap();
        let measured = builder.into_inner().unwrap();
        let expected = Digest::of(&measured.to);
        assert_eq!(measured.finish(), (expected, 1012));
    }
}
