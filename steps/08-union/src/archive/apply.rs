//! Application of an archive to a layer. Its entries refer to the whole tree
//! that a container would see, of this layer and those below
//! ([`below`](super::below)): the resulting tree is the same whether a driver
//! keeps all of it or only the changes.
//!
//! The archive may come from anywhere: nothing in it reaches a file outside the
//! layer's directory (places.rs), takes more than the free space
//! ([`room`](super::room)), or sets a mark of overlay or AUFS
//! ([`entry`](super::entry)).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::warn;
use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use super::entry::{inside, is_bookkeeping, metadata};
use super::layer::Layer;
use super::places::Missing;
use super::reader::{Entry, EntryType, Reader};
use super::{Marks, OPAQUE, PLINKS, whited_out};
use crate::tree::remove::remove_at;
use crate::tree::{Place, Tree, file_type};

/// Applies the changes in the tar archive `from` to the layer in `tree`, which
/// holds only changes or the whole parent, as `marks` say. `below` are the
/// layers below, the nearest first, if `tree` does not include them; they have
/// the same marks. Reads `from` to its end, also beyond the end of the archive:
/// the zeroes there fill the last record of a tape, and whoever has the data
/// from others limits them.
///
/// # Errors
/// If the archive is damaged, if a name leaves the layer or goes through a file,
/// if a hard link leads to no file, or if there is not enough room. The layer
/// is then half-made.
pub fn apply(tree: &Tree, marks: Marks, below: &[Tree], from: &mut dyn Read) -> Result<()> {
    // ANCHOR: exercise_apply_a_diff
    let mut layer = Layer::new(tree, marks, below)?;
    let mut archive = Reader::new(&mut *from);
    while let Some(mut entry) = archive.next()? {
        let path = PathBuf::from(OsStr::from_bytes(entry.path_bytes()));
        layer
            .entry(&mut entry, &path)
            .with_context(|| format!("{path:?} of the archive"))?;
    }
    layer.finish()?;
    std::io::copy(from, &mut std::io::sink()).context("read the archive to its end")?;
    Ok(())
    // ANCHOR_END: exercise_apply_a_diff
}

impl Layer<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, named: &Path) -> Result<()> {
        let type_of = entry.entry_type();
        let named = inside(named)?;
        if is_bookkeeping(&named)? {
            return match named.starts_with(PLINKS) && type_of == EntryType::Regular {
                true => self.keep_plink(entry, &named),
                false => Ok(()),
            };
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

    fn note_made(&mut self, path: &Path) {
        for path in path.ancestors() {
            if !self.made.insert(path.to_owned()) {
                break;
            }
        }
    }

    /// Removes what the layer itself has at `path`. The layers below may show
    /// through again.
    pub(super) fn clear(&mut self, path: &Path, place: &Place) -> Result<()> {
        let stat = match statat(&place.directory, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            stat => stat.with_context(|| format!("stat({path:?})"))?,
        };
        remove_at(&place.directory, &place.name)?;
        match file_type(&stat) {
            FileType::Directory => {
                self.last = None;
                for known in [&mut self.made, &mut self.whited_out, &mut self.opaque] {
                    forget(known, path);
                }
                // Directories in it go as well. They follow it in the order of
                // paths.
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
            _ => forget(&mut self.made, path),
        }
        if self.marks != Marks::Aufs {
            self.whited_out.remove(path);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        if self.null_devices > 0 {
            warn!(
                "{} entries of the archive are character devices 0:0, which overlay takes for \
                 deletions: they are not made",
                self.null_devices
            );
        }
        // The innermost first: a directory that is not writable takes nothing
        // more.
        for (path, metadata) in std::mem::take(&mut self.directories).into_iter().rev() {
            self.tree
                .place(&path)
                .and_then(|place| metadata.write(&place))
                .with_context(|| format!("{path:?} of the archive"))?;
        }
        Ok(())
    }
}

/// Removes a path, and all below it, from a set.
fn forget(known: &mut BTreeSet<PathBuf>, path: &Path) {
    let gone: Vec<PathBuf> = known
        .range(path.to_owned()..)
        .take_while(|other| other.starts_with(path))
        .cloned()
        .collect();
    for path in gone {
        known.remove(&path);
    }
}
