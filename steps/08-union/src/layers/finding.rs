//! What each layer has to say about a path: how a union finds a file.

use std::path::PathBuf;

use rustix::fs::{FileType, Stat};

use crate::layers::id::LayerId;
use crate::tree::file_type;

/// What one layer says about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The layer.
    pub layer: LayerId,
    /// What it says.
    pub what: What,
}

/// What a layer may say about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Nothing: look further down.
    Absent,
    /// Here it is, and nothing below counts.
    File {
        /// What kind of file, for people.
        kind: &'static str,
    },
    /// Here it is a directory, merged with what is below.
    Directory,
    /// Here it is a directory that hides everything below it: `at` is opaque.
    Opaque {
        /// The opaque directory: the path, or one above it.
        at: PathBuf,
        /// Whether the path itself is here.
        found: bool,
    },
    /// Deleted: `at` has a whiteout here, and nothing below counts.
    Whiteout {
        /// The path, or a directory above it.
        at: PathBuf,
    },
    /// Something else than a directory stands where one is on the path.
    NotDirectory {
        /// Where.
        at: PathBuf,
    },
    /// Here it is as in the layer below (drivers that keep whole trees).
    Inherited,
}

impl What {
    /// A file that is here.
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
