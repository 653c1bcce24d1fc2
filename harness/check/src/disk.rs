//! A disk of a check's own: an ext4 file system in a file, whose loop device is
//! freed at the unmount, or one in memory.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

use crate::check::Check;
use crate::requirement::tool;
use crate::sys::raw::next_project;

/// A mounted disk. When a failing check drops it, the mount is detached
/// (`MNT_DETACH`) and lives on until its last user ends.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Makes and mounts a disk of `size` bytes with room for `files` files.
    pub fn new(c: &Check, size: u64, files: u32) -> Result<Self> {
        let files = files.to_string();
        let mkfs = ["-q", "-m", "0", "-O", "^has_journal", "-N", &files];
        let (image, at) = prepare(c, size)?;
        run("mkfs.ext4", &mkfs, &[&image])?;
        run("mount", &["-t", "ext4", "-o", "loop"], &[&image, &at])?;
        Ok(Disk { at })
    }

    /// Makes and mounts a disk of `size` bytes with project quotas; `None` if the
    /// kernel has none.
    pub fn with_projects(c: &Check, size: u64) -> Result<Option<Self>> {
        let (image, at) = prepare(c, size)?;
        let mkfs = [
            "-q",
            "-m",
            "0",
            "-I",
            "256",
            "-O",
            "project,quota,^has_journal",
        ];
        run("mkfs.ext4", &mkfs, &[&image])?;
        match run(
            "mount",
            &["-t", "ext4", "-o", "loop,prjquota"],
            &[&image, &at],
        ) {
            Ok(()) => Ok(Some(Disk { at })),
            Err(error) => {
                eprintln!("{error:#}");
                Ok(None)
            }
        }
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Mounts a disk in memory, of a size as mount(8) takes it: `24m`. It has no
    /// blocks to wait for, and everybody may enter it.
    pub fn in_memory(c: &Check, size: &str) -> Result<Self> {
        let at = c.dir().join(c.word("memory"));
        fs::create_dir(&at).with_context(|| format!("mkdir({at:?})"))?;
        let options = format!("size={size},mode=755");
        let flags = MsFlags::empty();
        mount(
            Some("small"),
            &at,
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        )
        .context("mount a small tmpfs")?;
        Ok(Disk { at })
    }

    /// The bytes that are free.
    pub fn free(&self) -> Result<u64> {
        let stat = statvfs(&self.at).context("statvfs")?;
        Ok(stat.blocks_available() * stat.fragment_size())
    }

    /// The projects of a disk that have a limit.
    pub fn projects(at: &Path) -> Result<Vec<u32>> {
        let on = fs::File::open(at).with_context(|| format!("open {at:?}"))?;
        let mut limited = Vec::new();
        let mut from = 1;
        while let Some((project, limit)) =
            next_project(&on, from).context("quotactl(Q_GETNEXTQUOTA)")?
        {
            if limit > 0 {
                limited.push(project);
            }
            from = project + 1;
        }
        Ok(limited)
    }

    /// Unmounts the disk.
    ///
    /// # Errors
    /// `EBUSY` if the disk is in use.
    pub fn remove(self) -> Result<()> {
        umount2(&self.at, MntFlags::empty()).context("unmount the disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // EINVAL: it is already unmounted.
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

/// An empty file of `size` bytes, and a directory to mount it on.
fn prepare(c: &Check, size: u64) -> Result<(PathBuf, PathBuf)> {
    let name = c.word("disk");
    let image = c.dir().join(format!("{name}.img"));
    let file = fs::File::create(&image).with_context(|| format!("make {image:?}"))?;
    file.set_len(size)
        .with_context(|| format!("ftruncate({image:?})"))?;
    let at = c.dir().join(name);
    fs::create_dir(&at).with_context(|| format!("mkdir({at:?})"))?;
    Ok((image, at))
}
