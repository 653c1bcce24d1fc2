//! AUFS in user space: a FUSE server with AUFS's semantics.
//!
//! Several directories, the branches, are seen as one tree. The highest branch
//! that has a name wins; directories merge. Changes go to a writable branch: a
//! file of a branch below is copied up first, and a deleted one is hidden by a
//! whiteout. See aufs(5), fuse(4), fuse.rst.
//!
//! | module | what |
//! |---|---|
//! | [`options`], [`spelling`] | `dirs=TOP:NEXT=ro+wh,create=mfs,…` |
//! | `branch` | the directories, held open |
//! | `beneath` | openat2(2): no path leaves a branch |
//! | `whiteout` | `.wh.NAME`, `.wh..wh..opq`, and the names that users may not use |
//! | `lookup` | lookup of a name in the stack |
//! | `node`, `nodes`, `inode` | the files that the kernel knows, and stable inode numbers |
//! | `attr`, `xattr` | attributes |
//! | `readdir` | merged directories |
//! | `plink` | hard links across branches |
//! | `policy` | which branch takes a new file |
//! | `create`, `remove`, `rename` | changes of names |
//! | `copy_up`, `copy_file`, `copy_data` | the copy before the first change |
//! | `handle`, `file` | open files, passthrough |
//! | `server`, `answer` | the FUSE operations |
//! | [`device`] | /dev/fuse and the mount |
//! | [`background`] | the server's own process |
//! | [`si`] | the branches and the server of a mounted union |
//!
//! # Differences from the kernel's AUFS
//! - A directory with a part below the writable branch cannot be renamed
//!   (`EXDEV`), as with AUFS unless `dirren` is given; there is no `dirren`
//!   here.
//! - Processes that have a file open past the server (passthrough) while it is
//!   copied up go on reading its old state; with `nopassthrough` they see the
//!   new one, as with AUFS.
//! - `O_TMPFILE` is `EOPNOTSUPP`: the FUSE library has no such request.
//! - Branches cannot be added or removed while the union is mounted.

pub(crate) mod answer;
pub(crate) mod attr;
pub mod background;
pub(crate) mod beneath;
pub(crate) mod branch;
pub(crate) mod copy_data;
pub(crate) mod copy_file;
pub(crate) mod copy_up;
pub(crate) mod create;
pub mod device;
pub(crate) mod file;
pub(crate) mod handle;
pub(crate) mod inode;
pub(crate) mod lookup;
pub(crate) mod node;
pub(crate) mod nodes;
pub mod options;
pub(crate) mod plink;
pub(crate) mod policy;
pub(crate) mod readdir;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod server;
pub mod si;
pub mod spelling;
pub(crate) mod whiteout;
pub(crate) mod xattr;

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::Context;
use fuser::FileType;
use rustix::io::Errno;

pub use background::{Die, ServerHandle, mount_in_background, serve};
pub use options::Options;

use beneath::{Result, optional, stat_fd};
use branch::Branch;
use handle::Handles;
use inode::{Identity, Key};
use node::{Entered, ROOT, lock};
use nodes::Nodes;
use plink::Plinks;
use policy::Policy;

/// A union of branches, with all that the server knows.
pub(crate) struct Union {
    options: Options,
    branches: Vec<Branch>,
    /// Major and minor number of the device of each branch's root.
    devices: Vec<(u32, u32)>,
    nodes: Mutex<Nodes>,
    handles: Handles,
    policy: Policy,
    plinks: Mutex<Plinks>,
    temporaries: AtomicU64,
    /// Held for writing by operations that change names, for reading by those
    /// that use them. Copying data holds neither.
    names: RwLock<()>,
}

impl Union {
    /// Opens the branches.
    pub(crate) fn open(options: &Options) -> anyhow::Result<Self> {
        let branches = branch::open_all(&options.branches)?;
        let mut devices = Vec::new();
        let mut root = None;
        for (index, branch) in branches.iter().enumerate() {
            let stat =
                stat_fd(&branch.root).with_context(|| format!("statx({:?})", branch.path))?;
            devices.push((stat.stx_dev_major, stat.stx_dev_minor));
            root.get_or_insert_with(|| Key::of(index, &stat));
        }
        let root = Entered {
            identity: Identity {
                ino: ROOT,
                generation: 0,
            },
            kind: FileType::Directory,
            layers: (0..branches.len()).collect(),
            key: root.context("no branches")?,
            floor: branches.len() - 1,
        };
        let union = Union {
            options: options.clone(),
            branches,
            devices,
            nodes: Mutex::new(Nodes::new(root)),
            handles: Handles::default(),
            policy: Policy::default(),
            plinks: Mutex::default(),
            temporaries: AtomicU64::new(0),
            names: RwLock::new(()),
        };
        union.load_plinks().context("read .wh..wh.plnk")?;
        Ok(union)
    }

    fn read_names(&self) -> RwLockReadGuard<'_, ()> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_names(&self) -> RwLockWriteGuard<'_, ()> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file itself in the highest branch that has it: an `O_PATH`
    /// descriptor.
    ///
    /// # Errors
    /// `ESTALE` if it is no longer there, or another file is: somebody changed
    /// the branch directly.
    pub(crate) fn place(&self, id: u64) -> Result<Arc<OwnedFd>> {
        let (key, paths, is_dir) = {
            let nodes = lock(&self.nodes);
            let node = nodes.get(id)?;
            if let Some(detached) = &node.detached {
                return Ok(Arc::clone(detached));
            }
            let paths = match id {
                ROOT => vec![Default::default()],
                _ => nodes.paths(id)?,
            };
            (node.key, paths, node.kind == FileType::Directory)
        };
        for path in paths {
            let Some(place) = optional(self.branches[key.branch].place(&path))? else {
                continue;
            };
            if is_dir || Key::of(key.branch, &stat_fd(&place)?) == key {
                return Ok(Arc::new(place));
            }
        }
        if let Some(path) = self.plink_path(key) {
            let place = optional(self.branches[key.branch].place(&path))?;
            return place.map(Arc::new).ok_or(Errno::STALE);
        }
        Err(Errno::STALE)
    }
}
