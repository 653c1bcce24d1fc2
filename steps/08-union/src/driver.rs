//! The seam of storage drivers: what a layer is, and what a container's view of
//! a stack of layers is, whichever driver makes them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Result;
use mount::file_system::attach;
use user::held::Users;

use crate::kind::Kind;
use crate::layers::finding::Finding;
use crate::layers::id::LayerId;
use crate::layers::store::Store;

/// The access that a view gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only: for a layer of an image.
    ReadOnly,
    /// Changes go to the topmost layer: for a container.
    ReadWrite,
}

/// A way to keep layers and to show a stack of them as one tree.
///
/// A layer is addressed by its id and holds the differences from its parent.
/// Creation is atomic: if it is interrupted, even by `kill -9`, the layer does
/// not exist, and the next change of the store removes its remains from the
/// disk. Nothing writes to a layer that has a child. The drivers do not enforce
/// this, which is why a container gets a layer of its own, on top of a layer
/// called `ID-init`.
///
/// Every method may be called by several processes at once.
pub trait StorageDriver {
    /// The driver's kind.
    fn kind(&self) -> Kind;

    /// The store in which the driver keeps its layers.
    fn store(&self) -> &Store;

    /// Names and values that describe the driver to the user: the backing file
    /// system, mount options, the pool.
    fn status(&self) -> Result<Vec<(String, String)>>;

    /// The ids of the layers that exist, sorted.
    fn layers(&self) -> Result<Vec<LayerId>>;

    /// Whether a layer exists. One that is half-made or being removed does not.
    /// If the file system cannot tell, that is an error and not `false`.
    fn exists(&self, id: &LayerId) -> Result<bool>;

    /// The layers below `id`, its parent first.
    ///
    /// # Errors
    /// If the layer does not exist.
    fn parents(&self, id: &LayerId) -> Result<Vec<LayerId>>;

    /// Creates an empty layer on `parent`, or without a parent.
    ///
    /// # Errors
    /// If the layer exists, if the parent does not, or if the stack becomes
    /// deeper than the driver allows.
    fn create(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()>;

    /// Creates a layer on `parent` and applies to it the changes in `diff`, a
    /// tar archive as [`diff`](Self::diff) writes it.
    ///
    /// # Errors
    /// If the archive is damaged or would write outside the layer. The layer
    /// then does not exist.
    fn import(&self, id: &LayerId, parent: Option<&LayerId>, diff: &mut dyn Read) -> Result<()>;

    /// Makes a layer that uses a directory where it is, without a copy. Returns
    /// false if the driver cannot. A change of the directory while a container
    /// uses it changes what that container sees, in ways that overlayfs.rst
    /// leaves undefined (“Changes to underlying filesystems”).
    ///
    /// # Errors
    /// If the store itself lies in the directory.
    fn refer(&self, _id: &LayerId, _directory: &Path) -> Result<bool> {
        Ok(false)
    }

    /// Makes the layer `id` on `parent` of the layer of a container on the same
    /// parent, whose changes it gets without a copy: the container's layer is
    /// gone afterwards. Returns false if the driver cannot, and nothing has
    /// changed.
    ///
    /// # Errors
    /// If `id` exists, or the parent does not.
    fn promote(
        &self,
        _container: &LayerId,
        _id: &LayerId,
        _parent: Option<&LayerId>,
    ) -> Result<bool> {
        Ok(false)
    }

    /// Limits a container's layer to a number of bytes. Called again before each
    /// start, when nobody uses the layer: it changes nothing then.
    ///
    /// # Errors
    /// If the driver, its file system or the kernel has no such limit.
    fn limit(&self, _id: &LayerId, _bytes: u64) -> Result<()> {
        self.kind().expect_sizes()
    }

    /// Removes a layer.
    ///
    /// # Errors
    /// If it does not exist, or if another layer is on top of it.
    fn remove(&self, id: &LayerId) -> Result<()>;

    /// The directory on which a container's view of the layer is mounted: an
    /// empty directory of the driver's layout, which exists as long as the
    /// layer.
    fn mount_point(&self, id: &LayerId) -> PathBuf;

    /// Prepares a view of the layer and all layers below it: the work that must
    /// be done on the host, by the owner of the store. Mounts nothing on the
    /// host's tree.
    ///
    /// # Errors
    /// If the layer does not exist.
    fn view(&self, id: &LayerId, access: Access) -> Result<Box<dyn View>>;

    /// Prepares a view as [`view`](Self::view) does, for a container with the
    /// user namespace `users`, whose root is not root of the host. Files of the
    /// layers that belong to ID 0 are shown as files of that root, and files
    /// that it creates belong to ID 0 in its layer.
    ///
    /// # Errors
    /// If the driver, its file system or the kernel does not support it.
    fn view_for(&self, id: &LayerId, access: Access, users: &Users) -> Result<Box<dyn View>>;

    /// Writes the changes of a layer against its parent as a tar archive, with
    /// the whiteouts of OCI image layers: an empty file `.wh.NAME` for a
    /// deleted NAME, `.wh..wh..opq` in an opaque directory, which hides that
    /// directory of all layers below.
    ///
    /// # Errors
    /// If the layer does not exist, or if a file's own name begins with `.wh.`,
    /// which no such archive can hold.
    fn diff(&self, id: &LayerId, to: &mut dyn Write) -> Result<()> {
        self.diff_until(id, None, to)
    }

    /// Writes the changes as [`diff`](Self::diff) does, and says of no file that
    /// it was changed later than `latest`, in seconds since 1970: so that the
    /// same content is the same archive, whenever it was made.
    ///
    /// # Errors
    /// As of [`diff`](Self::diff).
    fn diff_until(&self, id: &LayerId, latest: Option<i64>, to: &mut dyn Write) -> Result<()>;

    /// Where a layer lies on the host, by the names that Docker's `inspect` gives
    /// these directories; empty for a driver that has none to show.
    ///
    /// # Errors
    /// If the layer does not exist.
    fn directories(&self, _id: &LayerId) -> Result<Vec<(&'static str, String)>> {
        Ok(Vec::new())
    }

    /// The bytes that the layer itself takes on the disk, without those below
    /// it.
    ///
    /// # Errors
    /// If the layer does not exist.
    fn usage(&self, id: &LayerId) -> Result<u64>;

    /// The bytes that all layers together take on the disk.
    fn space(&self) -> Result<u64>;

    /// What each layer says about `path`, from `id` down to the layer that ends
    /// the search.
    ///
    /// # Errors
    /// If the layer does not exist.
    fn lookup(&self, id: &LayerId, path: &Path) -> Result<Vec<Finding>>;

    /// The names that the layers from `id` down have in the directory `path`,
    /// including those that are hidden: [`lookup`](StorageDriver::lookup) says
    /// which are.
    ///
    /// # Errors
    /// If the layer does not exist.
    fn names(&self, id: &LayerId, path: &Path) -> Result<BTreeSet<OsString>>;
}

/// A view of a stack of layers: prepared on the host, mounted in the container.
///
/// The container's first process mounts the view in its own mount namespace.
/// When that namespace ends, for whatever reason, the kernel unmounts the view,
/// and nothing is left on the host. Dropping a view releases what the host
/// holds for it.
pub trait View {
    /// The view as a detached mount: a descriptor of its root, which names the
    /// tree (`/proc/self/fd/N/…`) and which [`attach`] attaches. The caller is
    /// a process without threads in a user namespace that may mount: that of
    /// the store's owner if that is root, else the container's.
    fn detached(&mut self) -> Result<OwnedFd>;

    /// Child: the descriptor of a mount that was made before the child was
    /// born, until it is attached.
    fn keeps(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Host, after the process that mounts the view has been cloned and has a
    /// copy of every descriptor of the view: closes those that the host needs
    /// no more. Closing the last descriptor of a detached mount makes the
    /// kernel wait for all processors.
    fn handed_over(&mut self) {}

    /// Mounts the view on the directory `target`, in the caller's mount
    /// namespace.
    fn mount(&mut self, target: &Path) -> Result<()> {
        attach(&self.detached()?, target)
    }
}
