//! A blob that arrives.
//!
//! Who wants a blob locks the file of what has arrived of it. Whoever wants the
//! same blob at the same time waits for the lock, and then finds the blob there:
//! two pulls of one image share the work. If the first is killed, its lock goes
//! with it, and the second continues where it stopped.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, Error, Result, bail};
use engine::image::digest::Digest;
use kit::lock::{self, Turn, is_at, try_alone};
use kit::own::remove_file;
use sha2::{Digest as _, Sha256};

use crate::blobs::{BlobStore, settle};

/// What [`BlobStore::begin`] finds.
#[derive(Debug)]
pub enum Begun {
    /// The blob, whole.
    There,
    /// What has arrived of it, perhaps nothing yet.
    Partial(Box<Partial>),
}

/// What has arrived of a blob. If it is dropped, it stays for the next attempt.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    name: PathBuf,
    digest: Digest,
    hash: Sha256,
    length: u64,
}

impl BlobStore {
    /// Begins to fetch a blob, or continues. Waits if somebody else fetches it;
    /// `waiting` is called before.
    // ANCHOR: begin
    pub fn begin(&self, digest: &Digest, waiting: &dyn Fn()) -> Result<Begun> {
        let path = self.partial().join(digest.hex());
        loop {
            if self.has(digest)? {
                return Ok(Begun::There);
            }
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(nix::libc::O_NOFOLLOW)
                .open(&path)
                .with_context(|| format!("open({path:?}, O_CREAT)"))?;
            // ANCHOR: exercise_begin
            if !try_alone(&file, &path)? {
                waiting();
                lock::wait(&file, Turn::Judging, &path)?;
            }
            // Whoever had the lock may have given the file its final name.
            if !is_at(&file, &path)? {
                continue;
            }
            // ANCHOR_END: exercise_begin
            let mut partial = Partial {
                file,
                name: self.path(digest),
                path,
                digest: digest.clone(),
                hash: Sha256::new(),
                length: 0,
            };
            partial.hash_what_is_there()?;
            return Ok(Begun::Partial(Box::new(partial)));
        }
    }
    // ANCHOR_END: begin
}

impl Partial {
    fn hash_what_is_there(&mut self) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = self.file.read(&mut buffer);
            match read.with_context(|| format!("read {:?}", self.path))? {
                0 => return Ok(()),
                read => {
                    self.hash.update(&buffer[..read]);
                    self.length += read as u64;
                }
            }
        }
    }

    /// The bytes that have arrived.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends what has arrived.
    ///
    /// # Errors
    /// If the disk is full, nothing is left of the blob.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            let is_full = matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            );
            let error = Error::new(error).context(format!("write {:?}", self.path));
            if is_full {
                self.give_up()?;
                return Err(error.context("no space left for the image"));
            }
            return Err(error);
        }
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Begins again: what has arrived is not what it should be.
    pub fn restart(&mut self) -> Result<()> {
        self.hash = Sha256::new();
        self.length = 0;
        self.file
            .set_len(0)
            .with_context(|| format!("ftruncate({:?})", self.path))?;
        let start = self.file.seek(SeekFrom::Start(0));
        start.with_context(|| format!("lseek({:?})", self.path))?;
        Ok(())
    }

    /// Removes what has arrived.
    pub fn give_up(&mut self) -> Result<()> {
        self.restart()?;
        remove_file(&self.path)
    }

    /// Verifies the blob, and gives it its name.
    ///
    /// # Errors
    /// If its digest differs. Nothing is left of it then.
    // ANCHOR: finish
    pub fn finish(mut self) -> Result<()> {
        // ANCHOR: exercise_finish
        let found = Digest::finished(std::mem::take(&mut self.hash));
        if found != self.digest {
            self.give_up()?;
            bail!("its digest is {found}, not {}", self.digest);
        }
        settle(&self.file, &self.path, &self.name)
        // ANCHOR_END: exercise_finish
    }
    // ANCHOR_END: finish
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial(store: &BlobStore, digest: &Digest) -> Partial {
        match store.begin(digest, &|| {}).unwrap() {
            Begun::Partial(partial) => *partial,
            Begun::There => panic!("it is there"),
        }
    }

    #[test]
    fn a_blob_has_its_name_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let store = BlobStore::new(directory.path());
        let _held = store.hold().unwrap();
        let digest = Digest::of(b"hello");
        let mut first = partial(&store, &digest);
        first.write(b"hell").unwrap();
        assert!(!store.has(&digest).unwrap());
        drop(first);
        let mut second = partial(&store, &digest);
        assert_eq!(second.length(), 4);
        second.write(b"o").unwrap();
        second.finish().unwrap();
        assert_eq!(store.document(&digest).unwrap(), b"hello");
        assert!(matches!(
            store.begin(&digest, &|| {}).unwrap(),
            Begun::There
        ));
    }

    #[test]
    fn nothing_is_left_of_a_wrong_one() {
        let directory = tempfile::tempdir().unwrap();
        let store = BlobStore::new(directory.path());
        let _held = store.hold().unwrap();
        let digest = Digest::of(b"hello");
        let mut wrong = partial(&store, &digest);
        wrong.write(b"jello").unwrap();
        assert!(wrong.finish().is_err());
        assert!(!store.has(&digest).unwrap());
        assert_eq!(partial(&store, &digest).length(), 0);
    }

    #[test]
    fn who_comes_second_waits_and_finds_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = BlobStore::new(directory.path());
        let _held = store.hold().unwrap();
        let digest = Digest::of(b"hello");
        let mut first = partial(&store, &digest);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| store.begin(&digest, &|| sender.send(()).unwrap()));
            receiver.recv().unwrap();
            first.write(b"hello").unwrap();
            first.finish().unwrap();
            assert!(matches!(second.join().unwrap().unwrap(), Begun::There));
        });
    }
}
