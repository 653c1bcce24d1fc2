//! Layers as tar archives: the changes, with the whiteouts of OCI image layers
//! (image-spec, “Image Layer Filesystem Changeset”).
//!
//! | module | what |
//! |---|---|
//! | this | how deletions are marked, in archives and in layers |
//! | [`mod@write`] | a layer into an archive |
//! | [`apply`] | an archive into a layer |
//! | [`reader`] | archives, entry by entry |
//! | [`entry`], places, make, deletions | its entries: their metadata, their places, the files and marks made of them |
//! | [`below`], copy_up | the layers below as one tree, and copies of their files that an entry changes |
//! | [`room`] | a limit on the size of all entries |

pub mod apply;
mod below;
mod copy_up;
mod deletions;
mod entry;
#[cfg(test)]
mod hostile;
mod layer;
mod make;
mod places;
pub mod reader;
mod room;
pub mod write;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;
use rustix::fs::{FileType, Stat};

pub use entry::inside;

use crate::tree::node::xattr;
use crate::tree::{Tree, file_type};

/// The prefix of a whiteout's name, in archives and in AUFS.
pub const PREFIX: &str = ".wh.";
/// The prefix of the names of AUFS's own files, and of [`OPAQUE`].
pub const DOUBLE_PREFIX: &str = ".wh..wh.";
/// The directory in which AUFS keeps files that have names in several of its
/// branches.
pub const PLINKS: &str = ".wh..wh.plnk";
/// The file that makes its directory opaque, in archives and in AUFS.
pub const OPAQUE: &str = ".wh..wh..opq";

/// The marks of deletions in a layer on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// A whiteout is a character device 0:0, an opaque directory has the
    /// attribute `opaque` (overlayfs.rst, “whiteouts and opaque directories”).
    Overlay {
        /// The attribute's name: [`OPAQUE_TRUSTED`] or, without privilege,
        /// [`OPAQUE_USER`].
        opaque: &'static str,
    },
    /// As in archives: [`PREFIX`]NAME, [`OPAQUE`] (aufs(5)).
    Aufs,
    /// No marks: the tree is whole, deleted files are absent.
    Whole,
}

/// Overlay's opaque mark, which takes `CAP_SYS_ADMIN` in the initial user
/// namespace to set: no container can forge it.
pub const OPAQUE_TRUSTED: &str = "trusted.overlay.opaque";
/// The opaque mark of an overlay mounted with `userxattr`, in a user namespace.
pub const OPAQUE_USER: &str = "user.overlay.opaque";

/// Whether a file is a whiteout of overlay.
pub fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether the layer `tree` has a whiteout for `path`.
pub(crate) fn is_whited_out(tree: &Tree, marks: Marks, path: &Path) -> Result<bool> {
    Ok(match marks {
        Marks::Overlay { .. } => tree.stat(path)?.is_some_and(|stat| is_whiteout(&stat)),
        Marks::Aufs => {
            let name = path.file_name().unwrap_or_default();
            tree.stat(&path.with_file_name(whiteout(name)))?.is_some()
        }
        Marks::Whole => false,
    })
}

/// Whether the directory `path` of the layer `tree` is opaque.
pub(crate) fn is_opaque(tree: &Tree, marks: Marks, path: &Path) -> Result<bool> {
    Ok(match marks {
        Marks::Overlay { opaque } => xattr(tree, path, opaque)?.as_deref() == Some(b"y"),
        Marks::Aufs => tree.stat(&path.join(OPAQUE))?.is_some(),
        Marks::Whole => false,
    })
}

/// The name that the whiteout `name` deletes; `None` if `name` is no whiteout.
pub fn whited_out(name: &OsStr) -> Option<&OsStr> {
    let name = name.as_bytes().strip_prefix(PREFIX.as_bytes())?;
    Some(OsStr::from_bytes(name))
}

/// The name of the whiteout for `name`.
pub fn whiteout(name: &OsStr) -> OsString {
    let mut whiteout = OsString::from(PREFIX);
    whiteout.push(name);
    whiteout
}

/// Whether a file belongs to AUFS itself and not to the layer: the inode that
/// its whiteouts share, the links between branches, the orphans.
pub fn is_aufs_own(name: &OsStr) -> bool {
    name != OPAQUE && name.as_bytes().starts_with(DOUBLE_PREFIX.as_bytes())
}
