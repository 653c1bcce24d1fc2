//! AUFS: the layout of its layers, and the file system itself.
//!
//! ```text
//! aufs/diff/ID     the layer's changes, with whiteouts `.wh.NAME`
//! aufs/layers/ID   the ids of the layers below, one per line, the parent first
//! aufs/mnt/ID      where a container's view is mounted
//! ```
//!
//! | module | what |
//! |---|---|
//! | this file | the layers |
//! | [`mount`] | the mount: by the kernel's AUFS where there is one, else by [`aufs_server`] |

mod mount;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use kit::say;
use user::held::Users;

use crate::archive::{Marks, apply::apply, write};
use crate::driver::{Access, StorageDriver, View};
use crate::kind::Kind;
use crate::layers::finding::Finding;
use crate::layers::id::LayerId;
use crate::layers::lineage::{Lineage, exists, layers_in};
use crate::layers::store::Store;
use crate::layers::trash;
use crate::mounts::detached;
use crate::overlay2::lookup;
use crate::tree::Tree;
use crate::tree::root::new_root;
use crate::tree::size::size;
use kit::lock::Lock;
use kit::own::make;

pub(crate) use mount::unsupported;

/// The most layers below another: AUFS's default limit on branches (aufs(5)).
pub(crate) const DEEPEST: usize = 127;

/// The AUFS driver.
#[derive(Debug)]
pub(crate) struct Aufs {
    store: Store,
    lineage: Lineage,
}

impl Aufs {
    /// Opens the driver below the state directory `root`.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let store = Store::open(root, Kind::Aufs)?;
        make(&store.directory().join("diff"), 0o710)?;
        let lineage = Lineage::open(store.directory())?;
        Ok(Aufs { store, lineage })
    }

    fn diff_path(&self, id: &LayerId) -> PathBuf {
        self.store.directory().join("diff").join(id)
    }

    fn lock(&self) -> Result<Lock> {
        let lock = self.store.lock()?;
        for id in layers_in(&self.store.directory().join("diff"))? {
            if !self.lineage.has(&id)? {
                say!("aufs: remove what is left of {id}");
                trash::discard(&self.diff_path(&id))?;
            }
        }
        trash::sweep(&self.store.directory().join("diff"))?;
        self.lineage.sweep()?;
        Ok(lock)
    }

    fn make_layer(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        fill: &mut dyn FnMut(&Tree) -> Result<()>,
    ) -> Result<()> {
        let _lock = self.lock()?;
        if self.lineage.has(id)? {
            bail!("{}", exists(id));
        }
        let below = self.lineage.on(parent)?;
        if below.len() > DEEPEST {
            bail!(
                "layer {id} would have {} layers below it, and AUFS takes {DEEPEST}: put several \
                 into one",
                below.len()
            );
        }
        let made = self
            .write_layer(id, parent, fill)
            .and_then(|()| self.lineage.record(id, &below));
        match made {
            Ok(()) => Ok(()),
            Err(error) => match trash::discard(&self.diff_path(id)) {
                Ok(()) => Err(error),
                Err(more) => {
                    Err(error.context(format!("and its remains cannot be removed: {more:#}")))
                }
            },
        }
    }

    fn write_layer(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        fill: &mut dyn FnMut(&Tree) -> Result<()>,
    ) -> Result<()> {
        make(&self.mount_point(id), 0o700)?;
        let below = parent.map(|parent| self.diff_path(parent));
        fill(&new_root(&self.diff_path(id), below.as_deref())?)
    }
}

impl StorageDriver for Aufs {
    fn kind(&self) -> Kind {
        Kind::Aufs
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        let below = detached::file_system(self.store.directory())?;
        Ok(vec![
            ("File system below".into(), below),
            ("AUFS".into(), mount::whose().into()),
        ])
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        self.lineage.layers()
    }

    fn parents(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        self.lineage.parents(id)
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        self.lineage.has(id)
    }

    fn create(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        self.make_layer(id, parent, &mut |_| Ok(()))
    }

    fn import(&self, id: &LayerId, parent: Option<&LayerId>, diff: &mut dyn Read) -> Result<()> {
        let mut below = Vec::new();
        for id in self.lineage.on(parent)? {
            below.push(Tree::open(&self.diff_path(&id))?);
        }
        let fill = &mut |tree: &Tree| apply(tree, Marks::Aufs, &below, diff);
        self.make_layer(id, parent, fill)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        let _lock = self.lock()?;
        self.lineage.strike(id)?;
        trash::discard(&self.diff_path(id))
    }

    fn mount_point(&self, id: &LayerId) -> PathBuf {
        self.lineage.mount_point(id)
    }

    fn view(&self, id: &LayerId, access: Access) -> Result<Box<dyn View>> {
        let mut branches = vec![self.diff_path(id)];
        let below = self.lineage.parents(id)?;
        branches.extend(below.iter().map(|id| self.diff_path(id)));
        mount::view(branches, access)
    }

    fn view_for(&self, _: &LayerId, _: Access, _: &Users) -> Result<Box<dyn View>> {
        bail!(
            "AUFS has no ID-mapped mounts: choose the driver overlay2, btrfs or vfs, or omit the \
             map"
        )
    }

    fn diff_until(&self, id: &LayerId, latest: Option<i64>, to: &mut dyn Write) -> Result<()> {
        self.lineage.parents(id)?;
        write::layer(&Tree::open(&self.diff_path(id))?, Marks::Aufs, latest, to)
    }

    fn usage(&self, id: &LayerId) -> Result<u64> {
        self.lineage.parents(id)?;
        size(&Tree::open(&self.diff_path(id))?)
    }

    fn space(&self) -> Result<u64> {
        size(&Tree::open(self.store.directory())?)
    }

    fn lookup(&self, id: &LayerId, path: &Path) -> Result<Vec<Finding>> {
        lookup::lookup(&self.stack(id)?, Marks::Aufs, path)
    }

    fn names(&self, id: &LayerId, path: &Path) -> Result<BTreeSet<OsString>> {
        lookup::names(&self.stack(id)?, path)
    }
}

impl Aufs {
    /// The trees of a layer and of those below it.
    fn stack(&self, id: &LayerId) -> Result<Vec<(LayerId, Tree)>> {
        let mut stack = vec![id.clone()];
        stack.extend(self.lineage.parents(id)?);
        let mut trees = Vec::new();
        for id in stack {
            let tree = Tree::open(&self.diff_path(&id))?;
            trees.push((id, tree));
        }
        Ok(trees)
    }
}
