//! A disk of a check's own: an ext4 in a file, over a loop device that goes with
//! the mount.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};

use crate::check::Check;
use crate::requirement::tool;

/// A disk that is mounted. Where it is dropped by a check that fails, what is in
/// use of it stays until that ends.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// A disk of `size` bytes with room for `files` files.
    ///
    /// # Errors
    /// Those of mkfs.ext4(8) and mount(8).
    pub fn new(c: &Check, size: u64, files: u32) -> Result<Self> {
        let name = c.word("disk");
        let image = c.dir().join(format!("{name}.img"));
        let file = fs::File::create(&image).with_context(|| format!("make {image:?}"))?;
        file.set_len(size)
            .with_context(|| format!("ftruncate({image:?})"))?;
        let at = c.dir().join(name);
        fs::create_dir(&at).with_context(|| format!("mkdir({at:?})"))?;
        let files = files.to_string();
        let mkfs = ["-q", "-m", "0", "-O", "^has_journal", "-N", &files];
        run("mkfs.ext4", &mkfs, &[&image])?;
        run("mount", &["-t", "ext4", "-o", "loop"], &[&image, &at])?;
        Ok(Disk { at })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// Those of umount(2): `EBUSY` if somebody uses it.
    pub fn remove(self) -> Result<()> {
        umount2(&self.at, MntFlags::empty()).context("unmount the disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // EINVAL: it was removed.
        let _gone = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

fn run(program: &str, options: &[&str], files: &[&Path]) -> Result<()> {
    let found = tool(program).with_context(|| format!("no {program}"))?;
    let done = Command::new(found)
        .args(options)
        .args(files.iter().map(|file| OsStr::new(*file)))
        .output()
        .with_context(|| format!("run {program}"))?;
    match done.status.success() {
        true => Ok(()),
        false => bail!("{program}: {}", String::from_utf8_lossy(&done.stderr)),
    }
}
