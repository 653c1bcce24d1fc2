//! Files by name, in a directory or in a tar archive that is not unpacked: an
//! image's parts are read in place.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use union::archive::reader::{EXTENTS, EntryType, Extent, Reader};

use crate::image::source::blob::Blob;

/// The most links that are followed for one name.
const LINKS: usize = 8;

/// The files that hold the parts of an image.
#[derive(Debug)]
pub enum ImageFiles {
    /// A directory.
    Directory(PathBuf),
    /// A tar archive, with the places of its entries.
    Archive(Contents),
}

/// The entries of a tar archive.
#[derive(Debug)]
pub struct Contents {
    blob: Blob,
    entries: HashMap<PathBuf, Entry>,
}

#[derive(Debug)]
enum Entry {
    File {
        offset: u64,
        size: u64,
    },
    Sparse {
        offset: u64,
        size: u64,
        extents: Vec<Extent>,
    },
    /// A file with more holes than are remembered.
    Sieve,
    Link(PathBuf),
    Other,
}

impl ImageFiles {
    /// Whether the file `name` exists.
    pub fn has(&self, name: &str) -> bool {
        match self {
            ImageFiles::Directory(directory) => directory.join(name).is_file(),
            ImageFiles::Archive(contents) => contents.has(name),
        }
    }

    /// The name of the archive or directory in errors.
    pub fn what(&self) -> String {
        match self {
            ImageFiles::Directory(directory) => format!("{directory:?}"),
            ImageFiles::Archive(contents) => contents.what().to_owned(),
        }
    }

    /// Opens the file `name`.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn file(&self, name: &str) -> Result<Blob> {
        match self {
            ImageFiles::Directory(directory) => Blob::open(&directory.join(name)),
            ImageFiles::Archive(contents) => contents.file(name),
        }
    }
}

impl Contents {
    /// Reads the headers of an uncompressed archive.
    ///
    /// # Errors
    /// If it is not a tar archive, or is damaged.
    pub fn of(blob: Blob) -> Result<Self> {
        let what = blob.what().to_owned();
        let mut archive = Reader::seeking(blob.reader());
        let mut entries = HashMap::new();
        let mut pieces = 0;
        let mut found = || -> Result<()> {
            while let Some(entry) = archive.next()? {
                let path = plain(as_path(entry.path_bytes()));
                let target = entry.link_name_bytes().map(as_path);
                let kind = match entry.entry_type() {
                    EntryType::Regular => {
                        let (offset, size) = (entry.offset(), entry.size());
                        let extents = entry.extents();
                        pieces += extents.map_or(0, <[Extent]>::len);
                        match extents {
                            None => Entry::File { offset, size },
                            Some(extents) if pieces <= EXTENTS => Entry::Sparse {
                                offset,
                                size,
                                extents: extents.to_vec(),
                            },
                            Some(_) => Entry::Sieve,
                        }
                    }
                    // `docker save` writes a link for a layer that two images
                    // share.
                    EntryType::Symlink => {
                        let to = target.context("a link without a target")?;
                        Entry::Link(plain(&path.parent().unwrap_or(Path::new("")).join(to)))
                    }
                    EntryType::Link => {
                        Entry::Link(plain(target.context("a link without a target")?))
                    }
                    _ => Entry::Other,
                };
                entries.insert(path, kind);
            }
            Ok(())
        };
        found().with_context(|| format!("{what} is not a tar archive, or damaged"))?;
        Ok(Contents { blob, entries })
    }

    /// Whether the archive has an entry `name`.
    pub fn has(&self, name: &str) -> bool {
        self.find(name)
            .is_ok_and(|path| self.entries.contains_key(&path))
    }

    /// The names of all entries.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.entries.keys().map(|path| path.as_ref())
    }

    /// The archive's name in errors.
    pub fn what(&self) -> &str {
        self.blob.what()
    }

    /// The archive itself.
    pub fn into_blob(self) -> Blob {
        self.blob
    }

    fn file(&self, name: &str) -> Result<Blob> {
        match self.entries.get(&self.find(name)?) {
            Some(Entry::File { offset, size }) => self.blob.part(*offset, *size, name),
            Some(Entry::Sparse {
                offset,
                size,
                extents,
            }) => self.blob.sparse_part(*offset, *size, extents, name),
            Some(Entry::Sieve) => bail!(
                "{name:?} in {} has too many holes: pack it without tar's --sparse",
                self.blob.what()
            ),
            Some(Entry::Link(_) | Entry::Other) => {
                bail!("{name:?} in {} is not a file", self.blob.what())
            }
            None => bail!("{name:?} is missing in {}", self.blob.what()),
        }
    }

    /// The path of the entry that `name` leads to, through links in any part of
    /// it, as in an archive that is unpacked. No link leads outside: what it
    /// names is the archive's, too.
    fn find(&self, name: &str) -> Result<PathBuf> {
        let parts = |path: &Path| -> Vec<OsString> {
            let parts = path.components().rev();
            parts.map(|part| part.as_os_str().to_owned()).collect()
        };
        let (mut path, mut left) = (PathBuf::new(), parts(&plain(Path::new(name))));
        let mut links = 0;
        while let Some(part) = left.pop() {
            path.push(part);
            if let Some(Entry::Link(to)) = self.entries.get(&path) {
                links += 1;
                if links > LINKS {
                    let what = self.blob.what();
                    bail!("{name:?} in {what} is a link that leads to itself");
                }
                left.extend(parts(to));
                path.clear();
            }
        }
        Ok(path)
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Whether a path of an archive is in a directory that root file systems have
/// and archives of images do not.
pub(crate) fn is_of_a_root_file_system(path: &Path) -> bool {
    ["bin", "etc", "lib", "sbin", "usr"]
        .iter()
        .any(|directory| path.starts_with(directory))
}

/// A name in an archive without `.`, `..` and a leading `/`, for comparison
/// only.
pub(crate) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}
