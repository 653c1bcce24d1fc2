//! The state of a layer that [`apply`](super::apply) and its helpers make of an
//! archive.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::Result;

use super::Marks;
use super::below::Below;
use super::room::Room;
use crate::tree::Tree;
use crate::tree::node::Metadata;

/// The last directory that was resolved, without a link on the way: archives go
/// through a tree directory by directory.
#[derive(Debug)]
pub(super) struct Last {
    pub(super) path: PathBuf,
    pub(super) directory: OwnedFd,
}

/// A file of AUFS's own directory, and its metadata.
pub(super) struct Plink {
    pub(super) file: File,
    pub(super) look: Metadata,
}

/// A layer that is being made. All its paths are without symbolic links.
pub(super) struct Layer<'a> {
    pub(super) tree: &'a Tree,
    pub(super) marks: Marks,
    pub(super) below: Below<'a>,
    pub(super) room: Room,
    pub(super) last: Option<Last>,
    /// Files that came from this archive, and the directories above them: the
    /// archive's whiteouts do not apply to them (image-spec, layer.md,
    /// “Whiteouts”).
    pub(super) made: BTreeSet<PathBuf>,
    /// Paths with a whiteout in the layer.
    pub(super) whited_out: BTreeSet<PathBuf>,
    /// Directories of the layer that are marked opaque.
    pub(super) opaque: BTreeSet<PathBuf>,
    /// Directories of the layer that were visited, and the metadata that they
    /// get when nothing more is put into them.
    pub(super) directories: BTreeMap<PathBuf, Metadata>,
    /// AUFS's files with several names, by their names in `.wh..wh.plnk`.
    pub(super) plinks: HashMap<OsString, Plink>,
    /// How many character devices 0:0 the archive holds.
    pub(super) null_devices: usize,
}

impl<'a> Layer<'a> {
    pub(super) fn new(tree: &'a Tree, marks: Marks, below: &'a [Tree]) -> Result<Self> {
        Ok(Layer {
            tree,
            marks,
            below: Below::new(below, marks),
            room: Room::of(tree.root())?,
            last: None,
            made: BTreeSet::new(),
            whited_out: BTreeSet::new(),
            opaque: BTreeSet::new(),
            directories: BTreeMap::new(),
            plinks: HashMap::new(),
            null_devices: 0,
        })
    }
}
