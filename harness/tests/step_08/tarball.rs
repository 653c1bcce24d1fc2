//! Archives made byte by byte: headers of any kind, and a store that imports
//! them.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use check::prelude::*;

use crate::layers::Store;

pub(crate) const BLOCK: usize = 512;
pub(crate) const POSIX: &[u8] = b"ustar\x0000";
pub(crate) const GNU: &[u8] = b"ustar  \0";

/// Fields of a header that are not as usual: where, and what.
pub(crate) type Fields<'a> = &'a [(usize, &'a [u8])];

pub(crate) const UID: usize = 108;
pub(crate) const GID: usize = 116;
pub(crate) const SIZE: usize = 124;
pub(crate) const MTIME: usize = 136;
pub(crate) const LINK: usize = 157;
pub(crate) const MAGIC: usize = 257;

pub(crate) fn octal(number: usize) -> Vec<u8> {
    format!("{number:011o}\0").into_bytes()
}

/// A header.
pub(crate) fn header(flag: u8, name: &[u8], size: usize, fields: Fields<'_>) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let (size, mtime) = (octal(size), octal(7));
    let usual: [(usize, &[u8]); 8] = [
        (0, name),
        (100, b"0000644\0"),
        (UID, b"0000000\0"),
        (GID, b"0000000\0"),
        (SIZE, &size),
        (MTIME, &mtime),
        (156, &[flag]),
        (MAGIC, POSIX),
    ];
    for (at, bytes) in usual.iter().chain(fields) {
        block[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

pub(crate) fn padded(content: &[u8]) -> Vec<u8> {
    let mut padded = content.to_vec();
    padded.resize(content.len().next_multiple_of(BLOCK), 0);
    padded
}

/// An entry with content.
pub(crate) fn entry(flag: u8, name: &[u8], content: &[u8], fields: Fields<'_>) -> Vec<u8> {
    let header = header(flag, name, content.len(), fields);
    [header, padded(content)].concat()
}

pub(crate) fn file(name: &str) -> Vec<u8> {
    entry(b'0', name.as_bytes(), b"content", &[])
}

/// An extended header.
pub(crate) fn pax(flag: u8, records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length.to_string().len() + rest != length {
            length = length.to_string().len() + rest;
        }
        all.extend(format!("{length} {key}=").bytes());
        all.extend([value, &b"\n"[..]].concat());
    }
    entry(flag, b"PaxHeaders/x", &all, &[])
}

pub(crate) fn long(flag: u8, name: &[u8]) -> Vec<u8> {
    entry(flag, b"././@LongLink", name, &[(MAGIC, GNU)])
}

/// Archives into layers.
pub(crate) struct Layers<'a> {
    check: &'a Check,
    pub(crate) store: Store<'a>,
}

impl<'a> Layers<'a> {
    pub(crate) fn new(check: &'a Check) -> Result<Self> {
        let store = Store::new(check, "vfs")?;
        Ok(Layers { check, store })
    }

    pub(crate) fn create(&self, id: &str, archive: &[u8]) -> Result<Ran> {
        let path = self.check.dir().join(format!("{id}.tar"));
        fs::write(&path, archive).context("write an archive")?;
        self.store
            .tool(["layer", "create", id])
            .args([OsStr::new("--tar"), path.as_ref()])
            .run()
    }

    /// The directory of a layer that is made of these, and an end.
    pub(crate) fn of(&self, id: &str, entries: &[Vec<u8>]) -> Result<PathBuf> {
        let archive = [&entries.concat()[..], &[0; 2 * BLOCK]].concat();
        let ran = self.create(id, &archive)?;
        expect(
            ran.status == 0,
            format!("the archive {id:?} to be read"),
            ran.stderr.trim(),
        )?;
        Ok(self.store.root.join("vfs/dir").join(id))
    }

    /// Such a layer, in which all these files have their content.
    pub(crate) fn has(&self, id: &str, entries: &[Vec<u8>], names: &[&str]) -> Result<PathBuf> {
        let root = self.of(id, entries)?;
        for name in names {
            let content = fs::read_to_string(root.join(name)).unwrap_or_default();
            expect(
                content == "content",
                format!("the file {name:?} of the archive {id:?}"),
                match content.is_empty() {
                    true => "nothing: loaded without an error, and the file is missing",
                    false => &content,
                },
            )?;
        }
        Ok(root)
    }
}
