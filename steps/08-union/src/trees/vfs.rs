//! vfs: every layer is a full copy of its parent. Slow and large, but correct:
//! the reference for the other drivers. Where the file system has reflinks
//! (ioctl_ficlone(2)), the copy shares the blocks of its parent.
//!
//! ```text
//! vfs/dir/ID      the tree
//! vfs/layers/ID   the ids of the layers below
//! vfs/mnt/ID      where a container's view is mounted
//! ```

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kit::say;
use rustix::process::geteuid;

use crate::driver::Access;
use crate::kind::Kind;
use crate::layers::id::LayerId;
use crate::layers::lineage::layers_in;
use crate::layers::store::Store;
use crate::layers::trash;
use crate::mounts::detached;
use crate::tree::Tree;
use crate::tree::copy::copy;
use crate::tree::root::open_to_all;
use crate::tree::size::size;
use crate::trees::whole::{Trees, Whole};
use kit::own::make;

/// The trees of the vfs driver.
#[derive(Debug)]
pub(crate) struct Vfs {
    directory: PathBuf,
}

impl Vfs {
    /// Opens the driver below the state directory `root`.
    pub(crate) fn open(root: &Path) -> Result<Whole<Self>> {
        let store = Store::open(root, Kind::Vfs)?;
        let directory = store.directory().join("dir");
        make(&directory, 0o710)?;
        Whole::new(store, Vfs { directory })
    }

    fn path(&self, id: &LayerId) -> PathBuf {
        self.directory.join(id)
    }
}

impl Trees for Vfs {
    fn kind(&self) -> Kind {
        Kind::Vfs
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        Ok(vec![(
            "File system".into(),
            detached::file_system(&self.directory)?,
        )])
    }

    fn make(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        let path = self.path(id);
        fs::create_dir(&path).with_context(|| format!("mkdir({path:?})"))?;
        if let Some(parent) = parent {
            let copied = copy(&Tree::open(&self.path(parent))?, &Tree::open(&path)?)
                .with_context(|| format!("copy layer {parent}"))?;
            say!(
                "vfs: {} files written, {} reflinked",
                copied.written,
                copied.reflinked
            );
        } else {
            open_to_all(&path)?;
        }
        Ok(())
    }

    fn destroy(&self, id: &LayerId) -> Result<()> {
        trash::discard(&self.path(id))
    }

    fn sweep(&self) -> Result<()> {
        trash::sweep(&self.directory).map(drop)
    }

    fn present(&self) -> Result<Vec<LayerId>> {
        layers_in(&self.directory)
    }

    fn detached(&self, id: &LayerId, access: Access) -> Result<OwnedFd> {
        detached::bind(&self.path(id), access)
    }

    fn mounts_inside(&self) -> bool {
        !geteuid().is_root()
    }

    fn tree(&self, id: &LayerId, _access: Access) -> Result<Tree> {
        Tree::open(&self.path(id))
    }

    fn usage(&self, id: &LayerId, _changed: u64) -> Result<u64> {
        size(&Tree::open(&self.path(id))?)
    }

    fn space(&self) -> Result<u64> {
        size(&Tree::open(&self.directory)?)
    }
}
