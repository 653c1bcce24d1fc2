//! An archive into a layer. The archive may come from anywhere: nothing in it
//! reaches a file outside the layer's directory ([`places`](super::places)),
//! takes more than is free ([`room`](super::room)), or says anything for
//! overlay or AUFS ([`entry`](super::entry)).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use super::entry::{inside, is_bookkeeping, metadata};
use super::places::{Missing, Places};
use super::reader::{Entry, EntryType, Reader};
use super::room::Room;
use super::{Marks, OPAQUE, whited_out};
use crate::tree::node::Metadata;
use crate::tree::remove::remove_at;
use crate::tree::{Place, Tree, file_type};

/// The most that may follow the end of an archive, in bytes: blocks of zeroes
/// that fill the last record of a tape.
const TRAILING: u64 = 64 << 20;

/// Applies the changes in the tar `from` to the layer in `tree`, which holds
/// what `marks` say: nothing but changes, or the whole parent. `below` are the
/// layers below, the nearest first, where they are not in `tree` already: a
/// directory that the archive only passes through keeps the look that it has
/// there. Reads `from` to its end, also beyond the end of the archive.
///
/// # Errors
/// For a damaged archive, a name with `..`, a hard link to what is not there,
/// more than there is room for, and those of writing. The layer is then
/// half-made.
pub fn apply(tree: &Tree, marks: Marks, below: &[Tree], from: &mut dyn Read) -> Result<()> {
    // ANCHOR: exercise_apply_a_diff
    let mut layer = Layer {
        tree,
        marks,
        below,
        places: Places::new(tree),
        room: Room::of(tree.root())?,
        made: HashSet::new(),
        whited_out: HashSet::new(),
        directories: BTreeMap::new(),
        by_name: BTreeSet::new(),
    };
    let mut archive = Reader::new(&mut *from);
    while let Some(mut entry) = archive.next()? {
        let path = PathBuf::from(OsStr::from_bytes(entry.path_bytes()));
        layer
            .entry(&mut entry, &path)
            .with_context(|| format!("{path:?} of the archive"))?;
    }
    layer.finish()?;
    let mut rest = from.take(TRAILING + 1);
    let trailing = std::io::copy(&mut rest, &mut std::io::sink());
    if trailing.context("read the archive to its end")? > TRAILING {
        bail!("more than {TRAILING} bytes follow the end of the archive: refused");
    }
    Ok(())
    // ANCHOR_END: exercise_apply_a_diff
}

/// A layer that is being made.
pub(super) struct Layer<'a> {
    pub(super) tree: &'a Tree,
    pub(super) marks: Marks,
    pub(super) below: &'a [Tree],
    pub(super) places: Places<'a>,
    pub(super) room: Room,
    /// What came from this archive, and the directories that it is in: its own
    /// whiteouts do not concern them. All paths here are without links.
    pub(super) made: HashSet<PathBuf>,
    /// What this archive has whited out.
    pub(super) whited_out: HashSet<PathBuf>,
    /// Directories get their metadata when nothing more is put into them.
    pub(super) directories: BTreeMap<PathBuf, Metadata>,
    /// Directories that are opaque and cannot be marked so.
    pub(super) by_name: BTreeSet<PathBuf>,
}

impl Layer<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, named: &Path) -> Result<()> {
        let type_of = entry.entry_type();
        let named = inside(named)?;
        if is_bookkeeping(&named)? {
            return Ok(());
        }
        let Some(name) = named.file_name() else {
            if type_of != EntryType::Directory {
                bail!("the root of a layer is a directory");
            }
            let metadata = metadata(entry, FileType::Directory)?;
            self.directories.insert(PathBuf::new(), metadata);
            return Ok(());
        };
        let (place, path) = self.find(&named, Missing::Make)?;
        if name == OPAQUE {
            return self.opaque(&path, &place);
        }
        if let Some(deleted) = whited_out(name) {
            return self.whiteout(&path.with_file_name(deleted), deleted, &place);
        }
        self.make(entry, type_of, &path, &place)?;
        self.note_made(&path);
        Ok(())
    }

    /// A place of the layer. Directories that had to be made for it look as they
    /// do in the layers below.
    pub(super) fn find(&mut self, named: &Path, missing: Missing) -> Result<(Place, PathBuf)> {
        let mut made = Vec::new();
        let found = self.places.find(named, missing, &mut made)?;
        for path in made {
            self.room.take(0)?;
            if self.whited_out.contains(&path) {
                self.replaced(&path, &self.tree.place(&path)?)?;
            } else if let Some(metadata) = self.look_below(&path)? {
                self.directories.insert(path, metadata);
            }
        }
        Ok(found)
    }

    fn look_below(&self, path: &Path) -> Result<Option<Metadata>> {
        for tree in self.below {
            match tree.stat(path)? {
                Some(stat) if file_type(&stat) == FileType::Directory => {
                    return Metadata::read(tree, path, &stat).map(Some);
                }
                Some(_) => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }

    fn note_made(&mut self, path: &Path) {
        for path in path.ancestors() {
            if !self.made.insert(path.to_owned()) {
                break;
            }
        }
    }

    /// Takes away what stands at a place.
    pub(super) fn clear(&mut self, path: &Path, place: &Place) -> Result<()> {
        let stat = match statat(&place.directory, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            stat => stat.with_context(|| format!("stat({path:?})"))?,
        };
        remove_at(&place.directory, &place.name)?;
        match file_type(&stat) {
            FileType::Directory => {
                self.places.forget();
                // With it go all that were in it, which come right behind it.
                let gone: Vec<PathBuf> = self
                    .directories
                    .range(path.to_owned()..)
                    .map(|(other, _)| other)
                    .take_while(|other| other.starts_with(path))
                    .cloned()
                    .collect();
                for path in gone {
                    self.directories.remove(&path);
                }
            }
            FileType::Symlink => self.places.forget(),
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        while let Some(path) = self.by_name.pop_first() {
            self.hide_names(&path)?;
        }
        // The innermost come first: a directory that is not writable takes
        // nothing more.
        for (path, metadata) in std::mem::take(&mut self.directories).into_iter().rev() {
            self.tree
                .place(&path)
                .and_then(|place| metadata.write(&place))
                .with_context(|| format!("{path:?} of the archive"))?;
        }
        Ok(())
    }
}
