//! A block device over a file: loop(4).

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kit::sys::loop_device::{backing_file, configure, get_free};
use nix::errno::Errno;

/// Time limit for a free device to be taken or held by others. The kernel
/// announces neither end.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A loop device in use. The kernel clears it when the last user closes it: this
/// descriptor, or a file system mounted from it.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    _device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Opens the loop device over the file `image`: an existing one, or a new
    /// one. The caller holds a lock that keeps others from doing the same: two
    /// devices over one file would not see each other's writes.
    ///
    /// # Errors
    /// If others keep taking the free device first (`EBUSY`).
    pub(crate) fn over(image: &Path) -> Result<Self> {
        let file = open(image)?;
        let wanted = file
            .metadata()
            .with_context(|| format!("fstat({image:?})"))?;
        if let Some(device) = existing(wanted.dev(), wanted.ino())? {
            return Ok(device);
        }
        let control = Path::new("/dev/loop-control");
        let control = open(control)?;
        // Somebody may take a free device before it is configured (EBUSY). Or a
        // device of the device mapper that is being removed in the background still
        // holds it, and then it is the free one until that is done.
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let number = get_free(control.as_fd()).context("ioctl(LOOP_CTL_GET_FREE)")?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open(&path)?;
            match configure(device.as_fd(), file.as_fd()) {
                Ok(()) => {
                    return Ok(LoopDevice {
                        _device: device,
                        path,
                    });
                }
                Err(Errno::EBUSY) => sleep(LOOK_AGAIN),
                Err(errno) => {
                    return Err(errno)
                        .with_context(|| format!("ioctl({path:?}, LOOP_CONFIGURE, {image:?})"));
                }
            }
        }
        bail!("every free loop device is taken or held by somebody else: try again")
    }

    /// `/dev/loopN`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("open({path:?}, O_RDWR)"))
}

fn existing(device: u64, inode: u64) -> Result<Option<LoopDevice>> {
    let directory = Path::new("/sys/block");
    for entry in fs::read_dir(directory).with_context(|| format!("read {directory:?}"))? {
        let entry = entry.with_context(|| format!("read {directory:?}"))?;
        let name = entry.file_name();
        if !entry.path().join("loop/backing_file").exists() {
            continue;
        }
        let path = Path::new("/dev").join(name);
        let Ok(file) = open(&path) else { continue };
        // Asked after open(2), when nobody can clear it any more.
        match backing_file(file.as_fd()) {
            Ok(Some(found)) if same(found, (device, inode)) => {
                return Ok(Some(LoopDevice {
                    _device: file,
                    path,
                }));
            }
            Ok(_) => {}
            Err(errno) => {
                return Err(errno).with_context(|| format!("ioctl({path:?}, LOOP_GET_STATUS64)"));
            }
        }
    }
    Ok(None)
}

/// Whether both are the same file, by device and inode. The kernel reports the
/// device in its own encoding (`huge_encode_dev`), which agrees with that of
/// stat(2).
fn same(found: (u64, u64), wanted: (u64, u64)) -> bool {
    found == wanted
}

/// Creates a file of `bytes` bytes that is one hole. It must not exist yet.
pub(crate) fn sparse_file(path: &Path, bytes: u64) -> Result<()> {
    let file = File::create_new(path).with_context(|| format!("open({path:?}, O_EXCL)"))?;
    file.set_len(bytes)
        .with_context(|| format!("ftruncate({path:?}, {bytes})"))
}
