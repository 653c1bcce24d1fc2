//! Blobs: content in a file, or in a part of one that is an archive.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use union::archive::reader::Extent;

use crate::image::digest::Checksum;

/// The largest document about an image, in bytes: it is read into memory as a
/// whole. Those of the largest images have some hundred thousand bytes.
const LARGEST_DOCUMENT: u64 = 4 << 20;

/// Content that can be read several times, by several readers.
#[derive(Clone, Debug)]
pub struct Blob {
    /// None if it is missing where it should be.
    file: Option<Arc<File>>,
    offset: u64,
    size: u64,
    /// Where the data are, of one with holes.
    pieces: Option<Arc<[Piece]>>,
    what: String,
}

/// A piece of a blob with holes.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Its position in the blob.
    at: u64,
    length: u64,
    /// Its position in the file.
    from: u64,
}

impl Blob {
    /// The blob in the file at `path`.
    ///
    /// # Errors
    /// If it is not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        // O_NONBLOCK: a FIFO there must not block the open.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .with_context(|| format!("open({path:?})"))?;
        Self::of(file, format!("{path:?}"))
    }

    /// The blob in an open file, called `what` in errors.
    ///
    /// # Errors
    /// If it is not a regular file.
    pub fn of(file: File, what: String) -> Result<Self> {
        let metadata = file
            .metadata()
            .with_context(|| format!("fstat of {what}"))?;
        if !metadata.is_file() {
            bail!("{what} is not a regular file");
        }
        Ok(Blob {
            file: Some(file.into()),
            offset: 0,
            size: metadata.len(),
            pieces: None,
            what,
        })
    }

    /// A blob that is missing, called `what` in errors: whoever has its content
    /// already need not read it.
    pub fn missing(what: String) -> Self {
        Blob {
            file: None,
            offset: 0,
            size: 0,
            pieces: None,
            what,
        }
    }

    /// Whether the blob can be read.
    pub fn is_there(&self) -> bool {
        self.file.is_some()
    }

    /// A part of this blob: `size` bytes from `offset`, called `name` in
    /// errors.
    ///
    /// # Errors
    /// If this blob ends before the part does.
    pub fn part(&self, offset: u64, size: u64, name: &str) -> Result<Self> {
        let what = format!("{name} in {}", self.what);
        if offset.checked_add(size).is_none_or(|end| end > self.size) {
            bail!("{what} is truncated: the archive ends before it");
        }
        Ok(Blob {
            file: self.file.clone(),
            offset: self.offset + offset,
            size,
            pieces: None,
            what,
        })
    }

    /// A part of this blob that is a file with holes, `size` bytes with them:
    /// the data of its pieces follow one another from `offset`.
    ///
    /// # Errors
    /// If this blob ends before the part does.
    pub fn sparse_part(
        &self,
        offset: u64,
        size: u64,
        extents: &[Extent],
        name: &str,
    ) -> Result<Self> {
        let data = extents.iter().map(|extent| extent.length).sum();
        let part = self.part(offset, data, name)?;
        let mut from = part.offset;
        let pieces = extents.iter().map(|extent| {
            let piece = Piece {
                at: extent.offset,
                length: extent.length,
                from,
            };
            from += extent.length;
            piece
        });
        Ok(Blob {
            pieces: Some(pieces.collect()),
            size,
            ..part
        })
    }

    /// What is at `at`: the position in the file, `None` for a hole, and the
    /// number of bytes up to where that ends.
    fn stretch(&self, at: u64) -> (Option<u64>, u64) {
        let Some(pieces) = &self.pieces else {
            return (Some(self.offset + at), self.size.saturating_sub(at));
        };
        let next = pieces.partition_point(|piece| piece.at + piece.length <= at);
        match pieces.get(next) {
            Some(piece) if piece.at <= at => {
                let inside = at - piece.at;
                (Some(piece.from + inside), piece.length - inside)
            }
            Some(piece) => (None, piece.at - at),
            None => (None, self.size.saturating_sub(at)),
        }
    }

    /// Whether it has holes, and so may be larger than the archive.
    pub fn is_sparse(&self) -> bool {
        self.pieces.is_some()
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The name in errors.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// A reader at the beginning of the blob.
    pub fn reader(&self) -> BlobReader {
        BlobReader {
            blob: self.clone(),
            at: 0,
        }
    }

    /// Reads the whole blob as a document, and checks its digest if that is
    /// known.
    ///
    /// # Errors
    /// If the digest differs, or the blob is too large for a document.
    pub fn document(&self, digest: Option<&Checksum>) -> Result<Vec<u8>> {
        let what = &self.what;
        if self.size > LARGEST_DOCUMENT {
            bail!(
                "{what} has {} bytes, and a document of an image at most {LARGEST_DOCUMENT}",
                self.size
            );
        }
        let mut bytes = Vec::new();
        self.reader()
            .read_to_end(&mut bytes)
            .with_context(|| format!("read {what}"))?;
        if let Some(digest) = digest {
            digest
                .check(&bytes)
                .with_context(|| format!("{what} is damaged"))?;
        }
        Ok(bytes)
    }
}

/// A reader of a blob. It uses pread(2): readers do not move one another.
#[derive(Debug)]
pub struct BlobReader {
    blob: Blob,
    at: u64,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.blob.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let (from, left) = self.blob.stretch(self.at);
        let wanted = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..wanted];
        let read = match from {
            Some(from) => file.read_at(buffer, from)?,
            None => {
                buffer.fill(0);
                wanted
            }
        };
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.blob.size.checked_add_signed(by),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
