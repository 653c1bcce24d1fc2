//! devicemapper: every layer is a thin block device with a file system of its
//! own. A child begins as a snapshot of its parent, and both share every block
//! of 64 KiB until one of them writes to it. A layer without a parent begins as
//! a snapshot of the base device, on which mkfs(8) has run once. See
//! thin-provisioning.rst (dm-thin).
//!
//! ```text
//! devicemapper/data            a sparse file: the pool's blocks
//! devicemapper/metadata        a sparse file: which device has which blocks
//! devicemapper/base            the number of the device with the empty file system
//! devicemapper/devices/ID      the number of a layer's device in the pool
//! devicemapper/next            the next number
//! devicemapper/layers/ID       the ids of the layers below
//! devicemapper/mnt/ID          where a container's view is mounted
//! ```
//!
//! dmsetup(8) does the work, and `-v` shows each call. The crate `devicemapper`
//! needs the kernel's headers and libclang to build, and would show a learner
//! no commands to repeat.
//!
//! | module | what |
//! |---|---|
//! | this | the layers, each a thin device |
//! | [`pool`] | the pool over two files |
//! | [`device`] | devices of the device mapper, whatever their target |
//!
//! A killed process leaves nothing behind: every device is marked for removal
//! as soon as it is in use (`--deferred`), the kernel removes it when the last
//! user is gone, and the loop devices below go in the same way.

pub(crate) mod device;
pub(crate) mod pool;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kit::say;
use rustix::fs::{Mode, fchmod};

use crate::driver::Access;
use crate::kind::Kind;
use crate::layers::id::LayerId;
use crate::layers::lineage::layers_in;
use crate::layers::store::Store;
use crate::layers::trash;
use crate::mounts::detached::{self, FileSystem};
use crate::tree::Tree;
use crate::tree::remove::remove_at;
use crate::trees::program;
use crate::trees::whole::{Trees, Whole};
use kit::atomic_file::write_file;
use kit::own::{make, remove_file};

use device::{node, open_or_create};
use pool::{BLOCK_SECTORS, Pool};

/// The virtual size of every layer's device, in bytes.
const DEVICE_BYTES: u64 = 10 << 30;

/// The bytes of a block of that file system.
const FILE_SYSTEM_BLOCK: u64 = 4096;

/// The trees of the devicemapper driver.
#[derive(Debug)]
pub(crate) struct Devicemapper {
    store: Store,
    directory: PathBuf,
    /// Keeps the pool open: the kernel removes it when its last user closes it.
    pool: Pool,
}

impl Devicemapper {
    /// Opens the driver below the state directory `root`.
    pub(crate) fn open(root: &Path) -> Result<Whole<Self>> {
        let store = Store::open(root, Kind::Devicemapper)?;
        let directory = store.directory().to_owned();
        make(&directory.join("devices"), 0o700)?;
        let lock = store.lock()?;
        let pool = Pool::open(&directory)?;
        drop(lock);
        Whole::new(
            store.clone(),
            Devicemapper {
                store,
                directory,
                pool,
            },
        )
    }

    fn number_file(&self, id: &LayerId) -> PathBuf {
        self.directory.join("devices").join(id)
    }

    fn number(&self, id: &LayerId) -> Result<u32> {
        let path = self.number_file(id);
        read_number(&path)?.with_context(|| format!("{path:?} is missing"))
    }

    /// Allocates a device number that was never used before. dm-thin has 24
    /// bits for it.
    fn next_number(&self) -> Result<u32> {
        let path = self.directory.join("next");
        let next = read_number(&path)?.unwrap_or(1);
        write_file(&path, format!("{}\n", next + 1))?;
        Ok(next)
    }

    /// The number of the base device, which is created if it does not exist.
    fn base(&self) -> Result<u32> {
        let path = self.directory.join("base");
        if let Some(number) = read_number(&path)? {
            return Ok(number);
        }
        let begun = self.directory.join("base.begun");
        if let Some(number) = read_number(&begun)? {
            self.delete(number);
        }
        let number = self.next_number()?;
        write_file(&begun, format!("{number}\n"))?;
        self.pool.message(&format!("create_thin {number}"))?;
        self.make_file_system(number)?;
        fs::rename(&begun, &path).with_context(|| format!("rename({begun:?}, {path:?})"))?;
        Ok(number)
    }

    fn make_file_system(&self, number: u32) -> Result<()> {
        let (path, device) = self.activate(number)?;
        let options = [
            "-q",
            "-b",
            "4096",
            "-E",
            "nodiscard,lazy_itable_init=1,lazy_journal_init=1",
            "-O",
            "^has_journal",
        ];
        let mut args: Vec<&std::ffi::OsStr> = options.iter().map(AsRef::as_ref).collect();
        args.push(path.as_os_str());
        program::run("mkfs.ext4", &args)?;
        let mount = mount(&path, Access::ReadWrite)?;
        drop(device);
        remove_at(&mount, "lost+found".as_ref())?;
        let root = Tree::at(&mount)?;
        fchmod(root.root(), Mode::from_raw_mode(0o755)).context("fchmod(root, 755)")
    }

    /// Deletes the device whose number is in the file `path`, which returns its
    /// blocks to the pool, and removes the file.
    ///
    /// # Errors
    /// `EBUSY` while the kernel dismantles a container's mounts in the
    /// background.
    fn delete_noted(&self, path: &Path) -> Result<()> {
        let number = read_number(path)?.with_context(|| format!("{path:?} is gone"))?;
        if let Err(error) = self.pool.message(&format!("delete {number}"))
            // ENODATA: a process that was killed between the two steps has
            // deleted it.
            && !format!("{error:#}").contains("No data available")
        {
            return Err(error);
        }
        remove_file(path)
    }

    /// Deletes a device, if it exists, which returns its blocks to the pool.
    fn delete(&self, number: u32) {
        if let Err(error) = self.pool.message(&format!("delete {number}")) {
            say!("{error:#}");
        }
    }

    fn name(&self, number: u32) -> String {
        format!("{}-{number}", self.pool.name())
    }

    /// The block device of a number, created if it does not exist. The kernel
    /// removes it when nobody has it open or mounted.
    fn activate(&self, number: u32) -> Result<(PathBuf, File)> {
        let table = format!(
            "0 {} thin {} {number}",
            DEVICE_BYTES / 512,
            self.pool.path().display()
        );
        open_or_create(&self.name(number), &table)
    }

    fn mount(&self, id: &LayerId, access: Access) -> Result<OwnedFd> {
        let _lock = self.store.lock()?;
        self.mount_locked(id, access)
    }

    fn mount_locked(&self, id: &LayerId, access: Access) -> Result<OwnedFd> {
        let (path, device) = self.activate(self.number(id)?)?;
        let mount = mount(&path, access)?;
        drop(device);
        Ok(mount)
    }

    fn snapshot(&self, number: u32, origin: u32) -> Result<()> {
        say!("devicemapper: device {number} is a snapshot of {origin}");
        // A device that is in use must be suspended (thin-provisioning.rst).
        let name = self.name(origin);
        let active = node(&name)?.is_some() && unless_gone(&["suspend", &name], &name)?;
        let made = self.pool.message(&format!("create_snap {number} {origin}"));
        if active {
            unless_gone(&["resume", "--noudevsync", &name], &name)?;
        }
        made
    }
}

/// Runs dmsetup(8) on the device `name`, and returns whether the device still
/// exists: its last user may have ended meanwhile.
fn unless_gone(args: &[&str], name: &str) -> Result<bool> {
    match program::run("dmsetup", args) {
        Ok(_) => Ok(true),
        Err(_) if node(name)?.is_none() => Ok(false),
        Err(error) => Err(error),
    }
}

/// A detached mount of the file system of a device.
fn mount(device: &Path, access: Access) -> Result<OwnedFd> {
    let ext4 = FileSystem::new("ext4")?;
    ext4.set("source", device)?;
    // The blocks of deleted files return to the pool.
    ext4.flag("discard")?;
    detached::mount(ext4, Access::ReadWrite, access)
}

/// How many blocks the ext4 of a device has: `s_blocks_count_lo` of its
/// superblock.
fn file_system_blocks(device: &File) -> std::io::Result<u64> {
    let mut count = [0; 4];
    device.read_exact_at(&mut count, 1024 + 4)?;
    Ok(u32::from_le_bytes(count).into())
}

/// The number in a file; `None` if there is no such file.
fn read_number(path: &Path) -> Result<Option<u32>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let number = text.trim().parse().with_context(|| format!("{path:?}"))?;
            Ok(Some(number))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {path:?}")),
    }
}

impl Trees for Devicemapper {
    fn kind(&self) -> Kind {
        Kind::Devicemapper
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        let table = program::run("dmsetup", &["table", self.pool.name()])?;
        let status = program::run("dmsetup", &["status", self.pool.name()])?;
        Ok(vec![
            ("Pool".into(), self.pool.name().to_owned()),
            ("Table".into(), table.trim().into()),
            ("Status".into(), status.trim().into()),
            ("Block".into(), format!("{} KiB", BLOCK_SECTORS / 2)),
        ])
    }

    fn make(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        let origin = match parent {
            Some(parent) => self.number(parent)?,
            None => self.base()?,
        };
        let number = self.next_number()?;
        self.snapshot(number, origin)?;
        write_file(&self.number_file(id), format!("{number}\n"))
    }

    /// Makes the file system smaller than its device. The size is that of all
    /// files, those of the image included, as Docker's `dm.basesize`.
    fn limit(&self, id: &LayerId, bytes: u64) -> Result<()> {
        if bytes > DEVICE_BYTES {
            bail!("--storage-opt size={bytes}: a device of devicemapper has {DEVICE_BYTES} bytes");
        }
        let (path, device) = self.activate(self.number(id)?)?;
        let blocks = bytes / FILE_SYSTEM_BLOCK;
        if file_system_blocks(&device).with_context(|| format!("read {path:?}"))? == blocks {
            return Ok(());
        }
        // -f: nobody has mounted it since mkfs(8) or the last clean unmount.
        let size = format!("{}K", (blocks * FILE_SYSTEM_BLOCK) >> 10);
        program::run(
            "resize2fs",
            &["-f".as_ref(), path.as_os_str(), size.as_ref()],
        )
        .map(drop)
        .context("--storage-opt size, which includes the image's files")
    }

    fn destroy(&self, id: &LayerId) -> Result<()> {
        // A half-made layer may have no number.
        match trash::set_aside(&self.number_file(id))? {
            Some(path) => {
                if let Err(error) = self.delete_noted(&path) {
                    say!("tried again later: {error:#}");
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn sweep(&self) -> Result<()> {
        trash::sweep_by(&self.directory.join("devices"), &|path| {
            self.delete_noted(path)
        })
        .map(drop)
    }

    fn present(&self) -> Result<Vec<LayerId>> {
        layers_in(&self.directory.join("devices"))
    }

    fn detached(&self, id: &LayerId, access: Access) -> Result<OwnedFd> {
        self.mount(id, access)
    }

    fn tree(&self, id: &LayerId, access: Access) -> Result<Tree> {
        // A caller that makes a layer holds the lock already.
        let mount = match access {
            Access::ReadWrite => self.mount_locked(id, access)?,
            Access::ReadOnly => self.mount(id, access)?,
        };
        Tree::at(mount.as_fd())
    }

    fn usage(&self, _id: &LayerId, changed: u64) -> Result<u64> {
        Ok(changed)
    }

    fn space(&self) -> Result<u64> {
        rustix::fs::sync();
        let status = program::run("dmsetup", &["status", self.pool.name()])?;
        // start length thin-pool transaction used/total-metadata used/total-data …
        let used = status
            .split_whitespace()
            .nth(5)
            .and_then(|data| data.split('/').next())
            .and_then(|used| used.parse::<u64>().ok())
            .ok_or_else(|| anyhow!("dmsetup status {}: {status:?}", self.pool.name()))?;
        Ok(used * BLOCK_SECTORS * 512)
    }
}
