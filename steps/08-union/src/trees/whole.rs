//! What the drivers that keep a whole tree for each layer have in common. They
//! find the changes of a layer by a comparison with its parent.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::{say, warn};
use user::held::Users;

use crate::archive::{Marks, apply::apply, write};
use crate::driver::{Access, StorageDriver, View};
use crate::kind::Kind;
use crate::layers::finding::{Finding, What};
use crate::layers::id::LayerId;
use crate::layers::lineage::{Lineage, exists};
use crate::layers::store::Store;
use crate::mounts::detached::map_ids;
use crate::overlay2::lookup::is_directory;
use crate::tree::Tree;
use crate::tree::compare::{Change, changes};
use kit::lock::Lock;
use kit::own::make;

/// A way to keep one tree per layer.
pub(crate) trait Trees {
    /// The driver's kind.
    fn kind(&self) -> Kind;

    /// The result of [`StorageDriver::status`].
    fn status(&self) -> Result<Vec<(String, String)>>;

    /// Creates the tree of `id`: a copy of its parent's, or empty.
    fn make(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()>;

    /// Removes the tree of `id`, also a half-made one; it is no error if there
    /// is none. Afterwards [`present`](Self::present) does not list it. Remains
    /// that cannot be removed are reported, not returned as an error.
    ///
    /// # Errors
    /// If the tree is still present.
    fn destroy(&self, id: &LayerId) -> Result<()>;

    /// The result of [`StorageDriver::limit`].
    fn limit(&self, _id: &LayerId, _bytes: u64) -> Result<()> {
        self.kind().expect_sizes()
    }

    /// Tries again to remove what [`destroy`](Self::destroy) could not. What
    /// stays is reported, not returned as an error.
    fn sweep(&self) -> Result<()>;

    /// The ids of the trees that exist, complete or not.
    fn present(&self) -> Result<Vec<LayerId>>;

    /// The root of the tree of `id` as a detached mount.
    fn detached(&self, id: &LayerId, access: Access) -> Result<OwnedFd>;

    /// Whether the container must call [`detached`](Self::detached), because
    /// the caller may mount only there.
    fn mounts_inside(&self) -> bool {
        false
    }

    /// The tree of `id`, for reading and filling.
    fn tree(&self, id: &LayerId, access: Access) -> Result<Tree> {
        Tree::at(self.detached(id, access)?)
    }

    /// The result of [`StorageDriver::usage`], in bytes. `changed` is the size
    /// of the files that differ from the parent's.
    fn usage(&self, id: &LayerId, changed: u64) -> Result<u64>;

    /// The result of [`StorageDriver::space`], in bytes.
    fn space(&self) -> Result<u64>;
}

/// A storage driver over [`Trees`].
pub(crate) struct Whole<T> {
    store: Store,
    lineage: Lineage,
    trees: std::rc::Rc<T>,
}

impl<T: Trees + 'static> Whole<T> {
    /// A driver over `trees`, which lie in `store`.
    pub(crate) fn new(store: Store, trees: T) -> Result<Self> {
        let lineage = Lineage::open(store.directory())?;
        Ok(Whole {
            store,
            lineage,
            trees: trees.into(),
        })
    }

    /// Locks the store, and removes the remains of killed processes.
    fn lock(&self) -> Result<Lock> {
        let lock = self.store.lock()?;
        for id in self.trees.present()? {
            if !self.lineage.has(&id)? {
                say!("{}: remove what is left of {id}", self.trees.kind());
                if let Err(error) = self.trees.destroy(&id) {
                    warn!("layer {id} stays, and is tried again later: {error:#}");
                }
            }
        }
        self.trees.sweep()?;
        self.lineage.sweep()?;
        Ok(lock)
    }

    fn make(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        fill: &mut dyn FnMut(&Tree) -> Result<()>,
    ) -> Result<()> {
        let _lock = self.lock()?;
        let below = self.lineage.on(parent)?;
        if self.lineage.has(id)? {
            bail!("{}", exists(id));
        }
        let made = self
            .trees
            .make(id, parent)
            .and_then(|()| fill(&self.trees.tree(id, Access::ReadWrite)?))
            .and_then(|()| make(&self.mount_point(id), 0o700))
            .and_then(|()| self.lineage.record(id, &below));
        match made {
            Ok(()) => Ok(()),
            Err(error) => match self.trees.destroy(id) {
                Ok(()) => Err(error),
                Err(more) => {
                    Err(error.context(format!("and its remains cannot be removed: {more:#}")))
                }
            },
        }
    }

    fn parent_tree(&self, id: &LayerId) -> Result<Option<Tree>> {
        match self.lineage.parents(id)?.first() {
            Some(parent) => Ok(Some(self.trees.tree(parent, Access::ReadOnly)?)),
            None => Ok(None),
        }
    }
}

impl<T: Trees + 'static> StorageDriver for Whole<T> {
    fn kind(&self) -> Kind {
        self.trees.kind()
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        self.trees.status()
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
        self.make(id, parent, &mut |_| Ok(()))
    }

    fn import(&self, id: &LayerId, parent: Option<&LayerId>, diff: &mut dyn Read) -> Result<()> {
        self.make(id, parent, &mut |tree| apply(tree, Marks::Whole, &[], diff))
    }

    fn limit(&self, id: &LayerId, bytes: u64) -> Result<()> {
        let _lock = self.lock()?;
        self.lineage.parents(id)?;
        self.trees.limit(id, bytes)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        let _lock = self.lock()?;
        self.lineage.strike(id)?;
        self.trees.destroy(id)
    }

    fn mount_point(&self, id: &LayerId) -> PathBuf {
        self.lineage.mount_point(id)
    }

    fn view(&self, id: &LayerId, access: Access) -> Result<Box<dyn View>> {
        self.lineage.parents(id)?;
        let mut view = WholeView {
            trees: self.trees.clone(),
            id: id.clone(),
            access,
            made: None,
        };
        if !self.trees.mounts_inside() {
            view.made = Some(self.trees.detached(id, access)?);
        }
        Ok(Box::new(view))
    }

    fn view_for(&self, id: &LayerId, access: Access, users: &Users) -> Result<Box<dyn View>> {
        self.lineage.parents(id)?;
        let made = self.trees.detached(id, access)?;
        map_ids(&made, users.as_fd()).with_context(|| format!("the tree of {id}"))?;
        Ok(Box::new(WholeView {
            trees: self.trees.clone(),
            id: id.clone(),
            access,
            made: Some(made),
        }))
    }

    fn diff_until(&self, id: &LayerId, latest: Option<i64>, to: &mut dyn Write) -> Result<()> {
        let parent = self.parent_tree(id)?;
        let tree = self.trees.tree(id, Access::ReadOnly)?;
        match parent {
            Some(parent) => write::difference(&parent, &tree, latest, to),
            None => write::layer(&tree, Marks::Whole, latest, to),
        }
    }

    fn usage(&self, id: &LayerId) -> Result<u64> {
        let tree = self.trees.tree(id, Access::ReadOnly)?;
        let changed = match self.parent_tree(id)? {
            None => crate::tree::size::size(&tree)?,
            Some(parent) => {
                let mut bytes = 0;
                for (path, change) in changes(&parent, &tree)? {
                    if change == Change::Changed
                        && let Some(stat) = tree.stat(&path)?
                    {
                        bytes += stat.st_blocks as u64 * 512;
                    }
                }
                bytes
            }
        };
        self.trees.usage(id, changed)
    }

    fn space(&self) -> Result<u64> {
        self.trees.space()
    }

    fn lookup(&self, id: &LayerId, path: &Path) -> Result<Vec<Finding>> {
        let mut stack = vec![id.clone()];
        stack.extend(self.lineage.parents(id)?);
        let mut findings = Vec::new();
        for (n, layer) in stack.iter().enumerate() {
            let tree = self.trees.tree(layer, Access::ReadOnly)?;
            let below = match stack.get(n + 1) {
                Some(below) => Some(self.trees.tree(below, Access::ReadOnly)?),
                None => None,
            };
            let here = tree.stat(path)?;
            let was = match &below {
                Some(below) => below.stat(path)?,
                None => None,
            };
            let what = match (here, was, &below) {
                (None, Some(_), _) => What::Whiteout { at: path.into() },
                (None, None, _) => What::Absent,
                (Some(stat), None, _) => What::of(&stat),
                (Some(stat), Some(_), Some(below)) if changed_here(below, &tree, path)? => {
                    What::of(&stat)
                }
                (Some(_), Some(_), _) => What::Inherited,
            };
            findings.push(Finding {
                layer: layer.clone(),
                what,
            });
        }
        Ok(findings)
    }

    fn names(&self, id: &LayerId, path: &Path) -> Result<BTreeSet<OsString>> {
        let tree = self.trees.tree(id, Access::ReadOnly)?;
        match is_directory(&tree, path)? {
            true => Ok(tree.names(path)?.into_iter().collect()),
            false => Ok(BTreeSet::new()),
        }
    }
}

fn changed_here(below: &Tree, tree: &Tree, path: &Path) -> Result<bool> {
    crate::tree::compare::differs(below, tree, path).with_context(|| format!("compare {path:?}"))
}

struct WholeView<T> {
    trees: std::rc::Rc<T>,
    id: LayerId,
    access: Access,
    made: Option<OwnedFd>,
}

impl<T: Trees> View for WholeView<T> {
    fn detached(&mut self) -> Result<OwnedFd> {
        match self.made.take() {
            Some(made) => Ok(made),
            None => self.trees.detached(&self.id, self.access),
        }
    }

    fn keeps(&self) -> Option<BorrowedFd<'_>> {
        self.made.as_ref().map(AsFd::as_fd)
    }
}
