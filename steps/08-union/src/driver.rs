//! The seam of storage drivers: what a layer and a container's view of a stack
//! of layers are, whatever makes them.

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

/// What a view may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Looking only: the layer of an image.
    ReadOnly,
    /// Changing the topmost layer: a container.
    ReadWrite,
}

/// One way to keep layers and to show a stack of them as one tree.
///
/// A layer is addressed by its id and holds what differs from its parent. It
/// exists or it does not: a creation that was broken off, even by `kill -9`,
/// leaves no layer, and what it leaves on the disk goes with the next use of
/// the store. Once a layer has a child nothing writes to it any more; that the
/// drivers do not enforce this is the reason why a container gets a layer of
/// its own, on top of another one called ID-init.
///
/// Every method may be called by several processes at once.
pub trait StorageDriver {
    /// Which driver this is.
    fn kind(&self) -> Kind;

    /// Where the driver keeps its layers.
    fn store(&self) -> &Store;

    /// What the driver works with, as names and values for people: the file
    /// system below, the options, programs.
    ///
    /// # Errors
    /// Those of looking.
    fn status(&self) -> Result<Vec<(String, String)>>;

    /// The layers that exist, sorted.
    ///
    /// # Errors
    /// Those of reading the store.
    fn layers(&self) -> Result<Vec<LayerId>>;

    /// Whether a layer exists: neither half of one, nor one that is going.
    ///
    /// # Errors
    /// Those of looking: that it cannot be told is no answer.
    fn exists(&self, id: &LayerId) -> Result<bool>;

    /// The layers below `id`, its parent first.
    ///
    /// # Errors
    /// If there is no such layer.
    fn parents(&self, id: &LayerId) -> Result<Vec<LayerId>>;

    /// Creates an empty layer on `parent`, or on nothing.
    ///
    /// # Errors
    /// If it exists, the parent does not, or the driver allows no deeper stack.
    fn create(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()>;

    /// Creates a layer on `parent` and applies to it the changes in `diff`, a
    /// tar as [`diff`](Self::diff) writes it.
    ///
    /// # Errors
    /// Those of [`create`](Self::create), and for an archive that is damaged or
    /// leaves the layer; there is then no such layer.
    fn import(&self, id: &LayerId, parent: Option<&LayerId>, diff: &mut dyn Read) -> Result<()>;

    /// Makes a layer of a directory elsewhere without copying it, and returns
    /// true; false where the driver cannot. Whoever changes the directory while
    /// a container uses it changes what that container sees, in ways that
    /// overlayfs.rst leaves undefined (“Changes to underlying filesystems”).
    ///
    /// # Errors
    /// As [`create`](Self::create); if the store itself lies in the directory.
    fn refer(&self, _id: &LayerId, _directory: &Path) -> Result<bool> {
        Ok(false)
    }

    /// Removes a layer.
    ///
    /// # Errors
    /// If there is none, or if another layer is on top of it.
    fn remove(&self, id: &LayerId) -> Result<()>;

    /// Where a container's view of the layer is to be mounted: an empty
    /// directory of the driver's layout, which exists as long as the layer.
    fn mount_point(&self, id: &LayerId) -> PathBuf;

    /// Makes ready a view of the layer and all below it: the work that must be
    /// done on the host, by whoever owns the store. Nothing is mounted on the
    /// host.
    ///
    /// # Errors
    /// If there is no such layer, and those of the driver.
    fn view(&self, id: &LayerId, access: Access) -> Result<Box<dyn View>>;

    /// As [`view`](Self::view), for a container with the user namespace `users`
    /// whose root is not root of the host: what belongs to 0 in the layers is
    /// shown as that root's, and what it makes belongs to 0 in its layer.
    ///
    /// # Errors
    /// As [`view`](Self::view); where the driver, its file system or the kernel
    /// cannot.
    fn view_for(&self, id: &LayerId, access: Access, users: &Users) -> Result<Box<dyn View>>;

    /// Writes the changes of a layer against its parent as a tar, with
    /// whiteouts as the layers of OCI images spell them: an empty file
    /// `.wh.NAME` for a deleted NAME, `.wh..wh..opq` in a directory of which
    /// nothing below is seen any more.
    ///
    /// # Errors
    /// If there is no such layer, or if a file's name itself begins with
    /// `.wh.`, which no such archive can hold.
    fn diff(&self, id: &LayerId, to: &mut dyn Write) -> Result<()>;

    /// The bytes that the layer takes on the disk by itself, without those
    /// below it.
    ///
    /// # Errors
    /// If there is no such layer.
    fn usage(&self, id: &LayerId) -> Result<u64>;

    /// The bytes that all layers take together.
    ///
    /// # Errors
    /// Those of looking.
    fn space(&self) -> Result<u64>;

    /// What each layer, from `id` down, says about `path`, until one has the
    /// last word.
    ///
    /// # Errors
    /// If there is no such layer, and those of looking.
    fn lookup(&self, id: &LayerId, path: &Path) -> Result<Vec<Finding>>;
}

/// A view of a stack of layers: made on the host, mounted where it is needed.
///
/// A container's view is mounted by its own first process, in its own mount
/// namespace: when that namespace ends, however it ends, the kernel unmounts
/// the view, and nothing is left on the host. Dropping a view gives up what the
/// host holds for it.
pub trait View {
    /// The view as a mount that is attached to no directory: a descriptor of
    /// its root, which names the tree (`/proc/self/fd/N/…`) and can be attached
    /// by [`attach`]. To be called by a process without threads, in a user
    /// namespace that may mount: that of the store's owner if that is root, else
    /// the container's.
    ///
    /// # Errors
    /// Those of the driver's mount.
    fn detached(&mut self) -> Result<OwnedFd>;

    /// In the child, the descriptor of a mount that was made before it was born,
    /// until it is attached.
    fn keeps(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Called on the host when the process that is to mount the view has been
    /// cloned, and so has every descriptor of the view's: closes those that the
    /// host has no more use for. The last one to be closed of a mount that is
    /// attached nowhere makes the kernel wait for all processors.
    fn handed_over(&mut self) {}

    /// Mounts the view on the directory `target`, in the caller's mount
    /// namespace.
    ///
    /// # Errors
    /// Those of [`detached`](Self::detached) and of move_mount(2).
    fn mount(&mut self, target: &Path) -> Result<()> {
        attach(&self.detached()?, target)
    }
}
