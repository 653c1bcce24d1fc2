//! What each layer says about a path: how a union finds a file.

use std::path::PathBuf;

use rustix::fs::{FileType, Stat};

use crate::layers::id::LayerId;
use crate::tree::file_type;

/// What one layer says about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The layer's id.
    pub layer: LayerId,
    /// Its answer.
    pub what: What,
}

/// A layer's answer to the lookup of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Nothing: the search goes on in the layer below.
    Absent,
    /// A file that is not a directory. It hides everything below.
    File {
        /// The type of the file, in words.
        kind: &'static str,
    },
    /// A directory, merged with the directories below.
    Directory,
    /// An opaque directory at or above the path. It hides everything below.
    Opaque {
        /// The opaque directory: the path, or a directory above it.
        at: PathBuf,
        /// Whether the layer has the path itself.
        found: bool,
    },
    /// A whiteout: the path is deleted, and everything below is hidden.
    Whiteout {
        /// The name that the whiteout deletes: the path, or a directory above
        /// it.
        at: PathBuf,
    },
    /// A file that is not a directory stands where the path needs one.
    NotDirectory {
        /// The path of that file.
        at: PathBuf,
    },
    /// The same as in the layer below (drivers that keep whole trees).
    Inherited,
}

impl What {
    /// The answer for a file that the layer has.
    pub fn of(stat: &Stat) -> Self {
        let kind = match file_type(stat) {
            FileType::Directory => return What::Directory,
            FileType::RegularFile => "file",
            FileType::Symlink => "symbolic link",
            FileType::CharacterDevice | FileType::BlockDevice => "device",
            FileType::Fifo => "fifo",
            FileType::Socket => "socket",
            _ => "file of an unknown type",
        };
        What::File { kind }
    }

    /// Whether the path is a directory, or another file; `None` if it is a link,
    /// or is not there.
    pub fn is_directory(&self) -> Option<bool> {
        match self {
            What::Directory | What::Opaque { found: true, .. } => Some(true),
            What::File { kind } => (*kind != "symbolic link").then_some(false),
            _ => None,
        }
    }

    /// Whether the search ends here.
    pub fn ends(&self) -> bool {
        matches!(
            self,
            What::File { .. }
                | What::Opaque { .. }
                | What::Whiteout { .. }
                | What::NotDirectory { .. }
        )
    }
}
