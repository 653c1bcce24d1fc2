//! devicemapper: every layer is a thin block device with a file system of its
//! own, a child begins as a snapshot of its parent, and both share every block
//! of 64 KiB until one of them writes to it. dm-thin, thin-provisioning.rst.
//!
//! ```text
//! devicemapper/data            a sparse file: the pool's blocks
//! devicemapper/metadata        a sparse file: which device has which blocks
//! devicemapper/devices/ID      the number of a layer's device in the pool
//! devicemapper/next            the next number
//! devicemapper/layers/ID       the ids below
//! devicemapper/mnt/ID          where a container's view is mounted
//! ```
//!
//! dmsetup(8) does the work, and `-v` shows each call. The crate `devicemapper`
//! would need the kernel's headers and libclang to build, and a learner would
//! see nothing that can be typed again.
//!
//! Nothing is left behind by a killed process: every device is removed as soon
//! as it is in use (`--deferred`), which the kernel does when the last user is
//! gone, and the loop devices below go in the same way.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use process::say;
use rustix::fs::{Mode, fchmod};

use crate::detached::FileSystem;
use crate::driver::{Access, Kind};
use crate::layer_id::LayerId;
use crate::lineage::layers_in;
use crate::loop_device::{LoopDevice, sparse_file};
use crate::program;
use crate::store::{Store, make, remove_file, write_file};
use crate::tree::Tree;
use crate::tree::remove::remove_at;
use crate::whole::{Trees, Whole};

/// The unit of sharing: 128 sectors of 512 bytes are 64 KiB.
const BLOCK_SECTORS: u64 = 128;
/// The pool's size, an upper bound: no space is taken before it is used.
const DATA_BYTES: u64 = 16 << 30;
/// 4 MiB for each GiB of data: 48 bytes a block, and some more.
const METADATA_BYTES: u64 = 64 << 20;
/// The size that every layer's device pretends to have.
const DEVICE_BYTES: u64 = 10 << 30;
/// A warning is due when fewer blocks are left.
const LOW_WATER_MARK: u64 = 1024;

/// The trees of the devicemapper driver.
#[derive(Debug)]
pub struct Devicemapper {
    store: Store,
    directory: PathBuf,
    /// The pool is removed when this is closed, and nobody else uses it.
    pool: Pool,
}

#[derive(Debug)]
struct Pool {
    name: String,
    path: PathBuf,
    _open: File,
    _loops: [LoopDevice; 2],
}

impl Devicemapper {
    /// The driver below the state directory `root`.
    ///
    /// # Errors
    /// Those of loop(4) and dmsetup(8).
    pub fn open(root: &Path) -> Result<Whole<Self>> {
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
        let text = fs::read_to_string(&path).with_context(|| format!("read {path:?}"))?;
        text.trim().parse().with_context(|| format!("{path:?}"))
    }

    /// The next number, never given out again. dm-thin takes 24 bits.
    fn next_number(&self) -> Result<u32> {
        let path = self.directory.join("next");
        let next = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().with_context(|| format!("{path:?}"))?,
            Err(_) => 1,
        };
        write_file(&path, &format!("{}\n", next + 1))?;
        Ok(next)
    }

    fn message(&self, text: &str) -> Result<()> {
        program::run("dmsetup", &["message", &self.pool.name, "0", text]).map(drop)
    }

    /// A block device for the layer, with a file system; gone when nobody has
    /// it open or mounted.
    fn activate(&self, id: &LayerId) -> Result<(PathBuf, File)> {
        let number = self.number(id)?;
        let name = format!("{}-{number}", self.pool.name);
        let table = format!(
            "0 {} thin {} {number}",
            DEVICE_BYTES / 512,
            self.pool.path.display()
        );
        open_or_create(&name, &table)
    }

    fn mount(&self, id: &LayerId, access: Access) -> Result<OwnedFd> {
        let _lock = self.store.lock()?;
        self.mount_locked(id, access)
    }

    fn mount_locked(&self, id: &LayerId, access: Access) -> Result<OwnedFd> {
        let (path, device) = self.activate(id)?;
        let ext4 = FileSystem::new("ext4")?;
        ext4.set("source", &path)?;
        // A deleted file's blocks go back to the pool.
        ext4.flag("discard")?;
        let mount = ext4.mount_as(Access::ReadWrite, access)?;
        drop(device);
        Ok(mount)
    }

    fn make_first(&self, id: &LayerId, number: u32) -> Result<()> {
        self.message(&format!("create_thin {number}"))?;
        write_file(&self.number_file(id), &format!("{number}\n"))?;
        let (path, _device) = self.activate(id)?;
        let options = [
            "-q",
            "-E",
            "nodiscard,lazy_itable_init=1,lazy_journal_init=1",
            "-O",
            "^has_journal",
        ];
        let mut args: Vec<&std::ffi::OsStr> = options.iter().map(AsRef::as_ref).collect();
        args.push(path.as_os_str());
        program::run("mkfs.ext4", &args)?;
        let mount = self.mount_locked(id, Access::ReadWrite)?;
        remove_at(&mount, "lost+found".as_ref())?;
        let root = Tree::at(&mount)?;
        fchmod(root.root(), Mode::from_raw_mode(0o755)).context("fchmod(root, 755)")
    }

    fn make_snapshot(&self, id: &LayerId, number: u32, parent: &LayerId) -> Result<()> {
        let origin = self.number(parent)?;
        say!("devicemapper: device {number} is a snapshot of {origin}");
        // A device that is in use has to stand still (thin-provisioning.rst).
        let name = format!("{}-{origin}", self.pool.name);
        let active = program::run(
            "dmsetup",
            &["info", "-c", "--noheadings", "-o", "name", &name],
        )
        .is_ok();
        if active {
            program::run("dmsetup", &["suspend", &name])?;
        }
        let made = self.message(&format!("create_snap {number} {origin}"));
        if active {
            program::run("dmsetup", &["resume", "--noudevsync", &name])?;
        }
        made?;
        write_file(&self.number_file(id), &format!("{number}\n"))
    }
}

impl Pool {
    fn open(directory: &Path) -> Result<Self> {
        let at = fs::metadata(directory).with_context(|| format!("stat({directory:?})"))?;
        // Docker's way to make a name that is this directory's alone.
        let name = format!(
            "drydock-{}:{}-{}-pool",
            nix::sys::stat::major(at.dev()),
            nix::sys::stat::minor(at.dev()),
            at.ino()
        );
        let loops = [
            pool_file(directory, "data", DATA_BYTES)?,
            pool_file(directory, "metadata", METADATA_BYTES)?,
        ];
        let table = format!(
            "0 {} thin-pool {} {} {BLOCK_SECTORS} {LOW_WATER_MARK} 1 skip_block_zeroing",
            DATA_BYTES / 512,
            loops[1].path().display(),
            loops[0].path().display()
        );
        let (path, open) = open_or_create(&name, &table)?;
        Ok(Pool {
            name,
            path,
            _open: open,
            _loops: loops,
        })
    }
}

fn pool_file(directory: &Path, name: &str, bytes: u64) -> Result<LoopDevice> {
    let path = directory.join(name);
    if !path.exists() {
        sparse_file(&path, bytes)?;
    }
    LoopDevice::over(&path)
}

/// The node of a device, if there is such a device. It is the kernel's own
/// (devtmpfs), because those in `/dev/mapper` are made by udev, where it runs.
fn node(name: &str) -> Option<PathBuf> {
    let args = ["info", "-c", "--noheadings", "-o", "minor", name];
    let minor = program::run("dmsetup", &args).ok()?;
    Some(PathBuf::from(format!("/dev/dm-{}", minor.trim())))
}

/// Opens a device, made with `table` if there is none, and has it removed when
/// nobody uses it any more.
fn open_or_create(name: &str, table: &str) -> Result<(PathBuf, File)> {
    let opened = node(name).and_then(|path| Some((path.clone(), File::open(path).ok()?)));
    let (path, file) = match opened {
        Some(opened) => opened,
        None => {
            create(name, table)?;
            let path = node(name).with_context(|| format!("dmsetup info {name}"))?;
            match File::open(&path) {
                Ok(file) => (path, file),
                Err(error) => {
                    program::run("dmsetup", &["remove", "--noudevsync", name])?;
                    return Err(error).with_context(|| format!("open({path:?})"));
                }
            }
        }
    };
    remove_when_unused(name)?;
    Ok((path, file))
}

/// Makes a device.
fn create(name: &str, table: &str) -> Result<()> {
    program::run(
        "dmsetup",
        &[
            "create",
            name,
            "--noudevsync",
            "--noudevrules",
            "--table",
            table,
        ],
    )
    .map(drop)
}

/// Has the kernel remove a device when its last user closes it.
fn remove_when_unused(name: &str) -> Result<()> {
    program::run(
        "dmsetup",
        &[
            "remove",
            "--deferred",
            "--noudevsync",
            "--noudevrules",
            name,
        ],
    )
    .map(drop)
}

impl Trees for Devicemapper {
    fn kind(&self) -> Kind {
        Kind::Devicemapper
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        let table = program::run("dmsetup", &["table", &self.pool.name])?;
        let status = program::run("dmsetup", &["status", &self.pool.name])?;
        Ok(vec![
            ("Pool".into(), self.pool.name.clone()),
            ("Table".into(), table.trim().into()),
            ("Status".into(), status.trim().into()),
            ("Block".into(), format!("{} KiB", BLOCK_SECTORS / 2)),
        ])
    }

    fn make(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        let number = self.next_number()?;
        match parent {
            Some(parent) => self.make_snapshot(id, number, parent),
            None => self.make_first(id, number),
        }
    }

    fn destroy(&self, id: &LayerId) -> Result<()> {
        let path = self.number_file(id);
        if path.exists() {
            let number = self.number(id)?;
            // It may not have come to that.
            if let Err(error) = self.message(&format!("delete {number}")) {
                say!("{error:#}");
            }
        }
        remove_file(&path)
    }

    fn present(&self) -> Result<Vec<LayerId>> {
        layers_in(&self.directory.join("devices"))
    }

    fn detached(&self, id: &LayerId, access: Access) -> Result<OwnedFd> {
        self.mount(id, access)
    }

    fn tree(&self, id: &LayerId, access: Access) -> Result<Tree> {
        // The lock is held by those who make a layer.
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
        let status = program::run("dmsetup", &["status", &self.pool.name])?;
        // start length thin-pool transaction used/total-metadata used/total-data …
        let used = status
            .split_whitespace()
            .nth(5)
            .and_then(|data| data.split('/').next())
            .and_then(|used| used.parse::<u64>().ok())
            .ok_or_else(|| anyhow!("dmsetup status {}: {status:?}", self.pool.name))?;
        Ok(used * BLOCK_SECTORS * 512)
    }
}
