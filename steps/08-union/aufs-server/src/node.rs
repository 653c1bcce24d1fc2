//! The files that the kernel knows: their names and their branches.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{BackingId, FileType};

use crate::inode::{Identity, Key};

/// The node id of the root, as FUSE prescribes.
pub(crate) const ROOT: u64 = 1;

/// A file of the union.
pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) kind: FileType,
    /// The directory and the name of every hard link that was seen, the latest
    /// last.
    pub(crate) names: Vec<(u64, OsString)>,
    /// The branches that have it, the highest first: one, unless it is a
    /// directory.
    pub(crate) layers: Vec<usize>,
    /// The file in the highest of them.
    pub(crate) key: Key,
    /// The lowest branch that this directory may show: a branch with a whiteout
    /// of it, or in which it is opaque, ends the search.
    pub(crate) floor: usize,
    /// The file itself, once it has no name left.
    pub(crate) detached: Option<Arc<OwnedFd>>,
    /// How it is open.
    pub(crate) io: Io,
    /// Held while the file is copied up.
    pub(crate) copying: Arc<Mutex<()>>,
    /// Modification time and size at the last open(2), to keep what the kernel
    /// has cached of an unchanged file.
    pub(crate) seen: Option<(i64, u32, u64)>,
    /// Counts that keep it in the table: the kernel's lookups, names below it,
    /// open files.
    pub(super) lookups: u64,
    pub(super) children: u64,
    pub(super) handles: u64,
}

/// How a file is open: in the same way for all who have it open, as the kernel
/// demands.
#[derive(Clone, Default)]
pub(crate) enum Io {
    #[default]
    Closed,
    /// Through this server and the page cache.
    Served,
    /// Past this server, on this file of a branch.
    Passed(Arc<BackingId>, Key),
}

/// A directory of the union, as a place: the same path in each of its branches.
#[derive(Clone)]
pub(crate) struct Dir {
    pub(crate) id: u64,
    pub(crate) path: PathBuf,
    pub(crate) layers: Vec<usize>,
    pub(crate) floor: usize,
}

/// The result of a lookup, ready to become a node.
pub(crate) struct Entered {
    pub(crate) identity: Identity,
    pub(crate) kind: FileType,
    pub(crate) layers: Vec<usize>,
    pub(crate) key: Key,
    pub(crate) floor: usize,
}

impl Node {
    pub(super) fn new(found: Entered) -> Self {
        Node::new_ref(&found)
    }

    pub(super) fn new_ref(found: &Entered) -> Self {
        Node {
            identity: found.identity,
            kind: found.kind,
            names: Vec::new(),
            layers: found.layers.clone(),
            key: found.key,
            floor: found.floor,
            detached: None,
            io: Io::Closed,
            copying: Arc::default(),
            seen: None,
            lookups: 0,
            children: 0,
            handles: 0,
        }
    }
}

/// Locks, even after another thread has panicked: the file system goes on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
