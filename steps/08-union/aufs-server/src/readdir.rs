//! Reading of a merged directory: every name once, from the highest branch that
//! has it, without whited-out names. The list is made when reading begins, so
//! that concurrent changes neither repeat nor skip a name.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use fuser::FileType;
use rustix::fs::{Dir as Listing, FileType as Kind, OFlags};
use rustix::io::Errno;

use crate::Union;
use crate::beneath::kind;
use crate::beneath::{Result, optional, stat_at};
use crate::inode::Key;
use crate::node::{Dir, ROOT, lock};
use crate::whiteout::{META, PREFIX};

/// A name in a directory.
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) ino: u64,
    pub(crate) kind: FileType,
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

impl Union {
    /// All names of a directory, `.` and `..` first.
    pub(crate) fn list(&self, id: u64) -> Result<Vec<Entry>> {
        let _names = self.read_names();
        let mut entries = self.dots(id)?;
        // A directory that was removed is empty.
        let Some(dir) = optional(lock(&self.nodes).dir(id))? else {
            return Ok(entries);
        };
        self.merge(&dir, |index, place, name, ino, kind| {
            entries.push(self.entry(index, place, name, ino, kind)?);
            Ok(())
        })?;
        Ok(entries)
    }

    /// Whether a directory looks empty: it holds at most whiteouts.
    pub(crate) fn is_empty(&self, dir: &Dir) -> Result<bool> {
        let full = Err(Errno::NOTEMPTY);
        match self.merge(dir, |_, _, _, _, _| full) {
            Err(Errno::NOTEMPTY) => Ok(false),
            merged => merged.map(|()| true),
        }
    }

    /// Calls `each` for every visible name: branch, directory there, name,
    /// inode number there, type.
    fn merge(
        &self,
        dir: &Dir,
        mut each: impl FnMut(usize, &OwnedFd, &OsStr, u64, Kind) -> Result<()>,
    ) -> Result<()> {
        let mut known: HashSet<Vec<u8>> = HashSet::new();
        for &index in &dir.layers {
            let branch = &self.branches[index];
            let Some(place) = optional(branch.open_at(&dir.path, READ))? else {
                continue;
            };
            let mut hidden_below = Vec::new();
            for entry in Listing::read_from(&place)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." || name.starts_with(META) {
                    continue;
                }
                if let Some(gone) = name.strip_prefix(PREFIX) {
                    if branch.whiteouts {
                        hidden_below.push(gone.to_vec());
                    }
                    continue;
                }
                if known.contains(name) {
                    continue;
                }
                let seen = OsStr::from_bytes(name);
                each(index, &place, seen, entry.ino(), entry.file_type())?;
                hidden_below.push(name.to_vec());
            }
            known.extend(hidden_below);
        }
        Ok(())
    }

    fn entry(
        &self,
        index: usize,
        place: &OwnedFd,
        name: &OsStr,
        ino: u64,
        raw: Kind,
    ) -> Result<Entry> {
        let dev = self.devices[index];
        // One of several names of a file may lead to a copy of it.
        let linked = self.has_plinks();
        let known = lock(&self.nodes).numbers.of_entry(index, ino, dev);
        let known = known.filter(|_| !linked);
        let (ino, kind) = match (known, from_raw(raw)) {
            (Some(ino), Some(kind)) => (ino, kind),
            _ => match stat_at(place, name) {
                Ok(stat) => {
                    let copy = match self.origin(index, &stat) {
                        Some(origin) => self.linked(origin)?,
                        None => None,
                    };
                    let (index, stat) = copy.unwrap_or((index, stat));
                    let key = Key::of(index, &stat);
                    let mut nodes = lock(&self.nodes);
                    let number = nodes.numbers.identity(key, &stat, self.devices[index]);
                    (number.ino, kind(&stat))
                }
                // Removed since: any number suffices.
                Err(_) => (ino, FileType::RegularFile),
            },
        };
        let name = OsString::from_vec(name.as_bytes().to_vec());
        Ok(Entry { name, ino, kind })
    }

    fn dots(&self, id: u64) -> Result<Vec<Entry>> {
        let nodes = lock(&self.nodes);
        let parent = nodes.name(id).map_or(ROOT, |(parent, _)| parent);
        let dot = |name: &str, ino| Entry {
            name: name.into(),
            ino,
            kind: FileType::Directory,
        };
        let up = nodes.get(parent)?.identity.ino;
        Ok(vec![dot(".", nodes.get(id)?.identity.ino), dot("..", up)])
    }
}

fn from_raw(kind: Kind) -> Option<FileType> {
    Some(match kind {
        Kind::RegularFile => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Unknown => return None,
    })
}
