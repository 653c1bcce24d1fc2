//! btrfs: every layer is a subvolume. A child begins as a snapshot of its
//! parent, and both share every block until one of them changes it.
//!
//! ```text
//! btrfs/subvolumes/ID   the tree; in btrfs.img if the directory is not on a btrfs
//! btrfs/btrfs.img       a btrfs in a sparse file, over a loop device
//! btrfs/layers/ID       the ids of the layers below
//! btrfs/mnt/ID          where a container's view is mounted
//! ```
//!
//! The file system in the image is never mounted on the host's tree: this
//! process has only a detached mount of it, and a container gets a mount of its
//! own subvolume only (mount option `subvol`).

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use kit::say;
use kit::sys::btrfs::{
    create_snapshot, create_subvolume, destroy_subvolume, forget_limit, limit_subvolume,
    subvolume_number,
};
use rustix::fs::{CWD, Mode, OFlags, fchmod, fstatvfs, mkdirat, openat, statfs, syncfs};
use rustix::io::Errno;

use crate::driver::Access;
use crate::kind::Kind;
use crate::layers::id::LayerId;
use crate::layers::store::Store;
use crate::layers::trash;
use crate::mounts::detached::{self, FileSystem, bind, file_system};
use crate::tree::names;
use crate::trees::loop_device::{LoopDevice, sparse_file};
use crate::trees::program;
use crate::trees::whole::{Trees, Whole};
use kit::own::remove_file;

/// `BTRFS_SUPER_MAGIC` of statfs(2).
const BTRFS_SUPER_MAGIC: i64 = 0x9123_683e;

/// The size of the file system in an image in bytes, an upper bound: space is
/// allocated on use.
const IMAGE_BYTES: u64 = 16 << 30;

/// The trees of the btrfs driver.
#[derive(Debug)]
pub(crate) struct Btrfs {
    directory: PathBuf,
    subvolumes: OwnedFd,
    /// The loop device of the image, if there is an image.
    device: Option<LoopDevice>,
}

impl Btrfs {
    /// Opens the driver below the state directory `root`.
    pub(crate) fn open(root: &Path) -> Result<Whole<Self>> {
        let store = Store::open(root, Kind::Btrfs)?;
        let directory = store.directory().to_owned();
        let lock = store.lock()?;
        let (base, device) = if is_btrfs(&directory)? {
            (open(&directory)?, None)
        } else {
            let image = image(&directory)?;
            let device = LoopDevice::over(&image)?;
            let base = mount(&device, None, Access::ReadWrite)?;
            (base, Some(device))
        };
        match mkdirat(&base, "subvolumes", Mode::from_raw_mode(0o710)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).context("mkdir(\"subvolumes\")"),
        }
        drop(lock);
        let subvolumes = open_at(&base, "subvolumes")?;
        Whole::new(
            store,
            Btrfs {
                directory,
                subvolumes,
                device,
            },
        )
    }
}

/// Whether a directory is on a btrfs.
pub(crate) fn is_btrfs(directory: &Path) -> Result<bool> {
    let on = statfs(directory).with_context(|| format!("statfs({directory:?})"))?;
    Ok(on.f_type == BTRFS_SUPER_MAGIC)
}

/// The path of the image, which is created if it does not exist: under another
/// name until it is complete.
fn image(directory: &Path) -> Result<PathBuf> {
    let image = directory.join("btrfs.img");
    if !image.exists() {
        let new = directory.join("btrfs.img.new");
        remove_file(&new)?;
        sparse_file(&new, IMAGE_BYTES)?;
        program::run("mkfs.btrfs", &["--quiet".as_ref(), new.as_os_str()])?;
        fs::rename(&new, &image).with_context(|| format!("rename({new:?}, {image:?})"))?;
    }
    Ok(image)
}

/// A path to a directory that may be part of no mounted tree.
fn reached(directory: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", directory.as_raw_fd()).into()
}

fn mount(device: &LoopDevice, subvolume: Option<&LayerId>, access: Access) -> Result<OwnedFd> {
    let btrfs = FileSystem::new("btrfs")?;
    btrfs.set("source", device.path())?;
    if let Some(id) = subvolume {
        btrfs.set("subvol", format!("/subvolumes/{id}"))?;
    }
    // Only the mount is read-only, not the file system: others write to it.
    detached::mount(btrfs, Access::ReadWrite, access)
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).with_context(|| format!("open({path:?})"))
}

fn open_at(directory: impl AsFd, name: impl AsRef<Path>) -> Result<OwnedFd> {
    let name = name.as_ref();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty()).with_context(|| format!("open({name:?})"))
}

impl Trees for Btrfs {
    fn kind(&self) -> Kind {
        Kind::Btrfs
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        let on = match &self.device {
            None => "the state directory is on a btrfs".to_owned(),
            Some(device) => format!(
                "{:?} over {:?}, because the directory is on {}",
                device.path(),
                self.directory.join("btrfs.img"),
                file_system(&self.directory)?
            ),
        };
        Ok(vec![("File system".into(), on)])
    }

    fn make(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        let directory = self.subvolumes.as_fd();
        match parent {
            Some(parent) => {
                say!("btrfs: snapshot of {parent}");
                let parent = open_at(directory, parent)?;
                create_snapshot(directory, id.as_str(), parent.as_fd())
                    .with_context(|| format!("ioctl(BTRFS_IOC_SNAP_CREATE_V2, {id})"))
            }
            None => {
                create_subvolume(directory, id.as_str())
                    .with_context(|| format!("ioctl(BTRFS_IOC_SUBVOL_CREATE, {id})"))?;
                fchmod(open_at(directory, id)?, Mode::from_raw_mode(0o755))
                    .with_context(|| format!("chmod({id}, 755)"))
            }
        }
    }

    fn limit(&self, id: &LayerId, bytes: u64) -> Result<()> {
        say!("btrfs: {id} may have {bytes} bytes of its own");
        let subvolume = open_at(&self.subvolumes, id)?;
        limit_subvolume(subvolume.as_fd(), bytes).map_err(|errno| {
            let error = Error::new(errno);
            let call = format!("ioctl(BTRFS_IOC_QGROUP_LIMIT, {id}, {bytes} bytes)");
            error.context(match errno {
                nix::errno::Errno::EPERM => format!("{call}: a size takes root (CAP_SYS_ADMIN)"),
                _ => call,
            })
        })
    }

    fn destroy(&self, id: &LayerId) -> Result<()> {
        let number = match open_at(&self.subvolumes, id) {
            Ok(subvolume) => subvolume_number(subvolume.as_fd()).ok(),
            Err(_) => None,
        };
        match destroy_subvolume(self.subvolumes.as_fd(), id.as_str()) {
            Ok(()) => {
                if let Some(number) = number
                    && let Err(errno) = forget_limit(self.subvolumes.as_fd(), number)
                {
                    say!("the kernel forgets the limit of {id}, if it had one: {errno}");
                }
                Ok(())
            }
            Err(nix::errno::Errno::ENOENT) => Ok(()),
            Err(errno) => {
                say!("ioctl(BTRFS_IOC_SNAP_DESTROY, {id}): {errno}");
                trash::discard(&reached(&self.subvolumes).join(id))
            }
        }
    }

    fn sweep(&self) -> Result<()> {
        trash::sweep(&reached(&self.subvolumes)).map(drop)
    }

    fn present(&self) -> Result<Vec<LayerId>> {
        let names = names(open_at(&self.subvolumes, ".")?).context("readdir(\"subvolumes\")")?;
        Ok(names
            .iter()
            .filter_map(|name| name.to_str()?.parse().ok())
            .collect())
    }

    fn detached(&self, id: &LayerId, access: Access) -> Result<OwnedFd> {
        match &self.device {
            Some(device) => mount(device, Some(id), access),
            None => bind(&self.directory.join("subvolumes").join(id), access),
        }
    }

    fn tree(&self, id: &LayerId, _access: Access) -> Result<crate::tree::Tree> {
        crate::tree::Tree::at(open_at(&self.subvolumes, id)?)
    }

    fn usage(&self, _id: &LayerId, changed: u64) -> Result<u64> {
        Ok(changed)
    }

    fn space(&self) -> Result<u64> {
        // Written data counts once it has blocks on the disk.
        syncfs(&self.subvolumes).context("syncfs")?;
        let on = fstatvfs(&self.subvolumes).context("fstatvfs")?;
        Ok((on.f_blocks - on.f_bfree) * on.f_frsize)
    }
}
