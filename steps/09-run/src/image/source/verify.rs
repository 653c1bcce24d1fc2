//! The stream of a layer: read, decompressed and hashed by a thread, while the
//! caller unpacks it. If a digest is wrong, the stream ends with an error
//! instead of an end of file, so that no layer is made of it.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest as _, Sha256};

use crate::image::digest::{Checksum, Digest, Hash};
use crate::image::source::blob::Blob;
use crate::image::source::decompress::decompress;

/// The bytes that go from thread to thread at once.
const CHUNK: usize = 256 << 10;
/// The chunks that the caller may be behind before the reader waits.
const CHUNKS: usize = 8;

/// The content that a layer must have.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// The digest of the blob, compressed as it is.
    pub digest: Option<Checksum>,
    /// The digest of the tar in it.
    pub diff_id: Option<Digest>,
    /// The largest size of the tar, in bytes.
    pub at_most: u64,
}

/// The content of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The digest of the tar.
    pub diff_id: Digest,
    /// The size of the tar, in bytes.
    pub size: u64,
}

/// Passes the tar in `blob` to `work`, and checks it against `expected`. `work`
/// sees what is wrong with the blob as an error of reading. If `work` does not
/// read to the end nothing has been checked, and that is an error too.
pub fn checked(
    blob: &Blob,
    expected: &Expected,
    work: impl FnOnce(&mut dyn Read) -> Result<()>,
) -> Result<Content> {
    if !blob.is_there() {
        bail!("{} is missing", blob.what());
    }
    let (sender, receiver) = sync_channel(CHUNKS);
    // The thread has ended before any process is cloned.
    thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let read = read(blob, expected, &sender);
            let last = match &read {
                Ok(_) => Ok(Vec::new()),
                Err(error) => Err(io::Error::other(format!("{error:#}"))),
            };
            match sender.send(last) {
                // An error here means that the caller has given up, and says
                // why.
                Ok(()) | Err(_) => read,
            }
        });
        let worked = work(&mut Chunks {
            receiver,
            chunk: Vec::new(),
            at: 0,
            ended: false,
        });
        let read = reading
            .join()
            .map_err(|_| anyhow!("the thread that reads {} panicked", blob.what()))?;
        worked?;
        read
    })
}

/// The digest and size of the tar in `blob`, which is read and discarded.
pub fn content(blob: &Blob, expected: &Expected) -> Result<Content> {
    checked(blob, expected, |from| {
        io::copy(from, &mut io::sink()).context("read")?;
        Ok(())
    })
}

fn read(blob: &Blob, expected: &Expected, to: &SyncSender<io::Result<Vec<u8>>>) -> Result<Content> {
    let what = blob.what();
    let mut packed = Hashing {
        inner: blob.reader(),
        hash: expected.digest.as_ref().map(Checksum::hash),
    };
    let mut hash = Sha256::new();
    let mut size = 0;
    {
        let mut tar = decompress(&mut packed).with_context(|| format!("read {what}"))?;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let mut limited = (&mut tar).take(CHUNK as u64);
            let read = limited
                .read_to_end(&mut chunk)
                .with_context(|| format!("{what} is damaged or cut off"))?;
            if read == 0 {
                break;
            }
            size += read as u64;
            if size > expected.at_most {
                bail!(
                    "{what} unpacks to more than the {} MB that are free",
                    expected.at_most / 1_000_000
                );
            }
            hash.update(&chunk);
            if to.send(Ok(chunk)).is_err() {
                bail!("{what} was not read to its end");
            }
        }
    }
    // What follows the compressed data is part of the blob, too.
    io::copy(&mut packed, &mut io::sink()).with_context(|| format!("read {what}"))?;
    if let (Some(digest), Some(hash)) = (&expected.digest, packed.hash) {
        digest
            .compare(hash)
            .with_context(|| format!("{what} is damaged"))?;
    }
    let found = Digest::finished(hash);
    if let Some(diff_id) = expected.diff_id.as_ref().filter(|id| **id != found) {
        bail!("{what} is not the layer of the image: it unpacks to {found}, not {diff_id}");
    }
    Ok(Content {
        diff_id: found,
        size,
    })
}

/// A reader that hashes what it reads.
struct Hashing<R> {
    inner: R,
    hash: Option<Hash>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..read]);
        }
        Ok(read)
    }
}

/// The caller's end of the stream: chunks until an empty one.
struct Chunks {
    receiver: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !self.ended {
            self.chunk = match self.receiver.recv() {
                Ok(chunk) => chunk?,
                Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            self.at = 0;
            self.ended = self.chunk.is_empty();
        }
        let rest = &self.chunk[self.at..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}
