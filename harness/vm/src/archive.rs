//! Writes an initramfs archive for the kernel: cpio(5), format "newc"; the
//! kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.
//!
//! Owners and device nodes are only numbers in it, so no root is needed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path};

use anyhow::{Context, Result, bail};
use cpio::newc::{Builder, ModeFileType, trailer};
use nix::unistd::{Uid, geteuid};

/// A writer of an archive.
pub struct Archive<W: Write> {
    out: W,
    /// Inode numbers so far: the kernel links files with equal ones.
    inodes: u32,
    dirs: BTreeSet<String>,
    caller: Uid,
}

impl<W: Write> Archive<W> {
    /// Starts an archive, to be unpacked where the directories `dirs` exist.
    pub fn new(out: W, dirs: &[&str]) -> Self {
        Archive {
            out,
            inodes: 0,
            dirs: dirs.iter().map(|d| (*d).to_owned()).collect(),
            caller: geteuid(),
        }
    }

    /// Adds a directory, and missing ones above it with mode 755. Does nothing
    /// if it exists.
    pub fn dir(&mut self, path: &str, mode: u32, owner: (u32, u32)) -> Result<()> {
        if path.is_empty() || !self.dirs.insert(path.to_owned()) {
            return Ok(());
        }
        self.parents(path)?;
        let entry = self.entry(path, ModeFileType::Directory, mode, owner);
        entry
            .write(&mut self.out, 0)
            .finish()
            .context("write the initramfs")?;
        Ok(())
    }

    /// Adds a file that belongs to root.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).with_context(|| format!("{path} is too large"))?;
        self.parents(path)?;
        let entry = self.entry(path, ModeFileType::Regular, mode, (0, 0));
        let mut writer = entry.write(&mut self.out, size);
        writer.write_all(content).context("write the initramfs")?;
        writer.finish().context("write the initramfs")?;
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.parents(path)?;
        let entry = self.entry(path, ModeFileType::Symlink, 0o777, (0, 0));
        let mut writer = entry.write(&mut self.out, target.len() as u32);
        writer
            .write_all(target.as_bytes())
            .context("write the initramfs")?;
        writer.finish().context("write the initramfs")?;
        Ok(())
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, mode: u32, device: (u32, u32)) -> Result<()> {
        self.parents(path)?;
        let entry = self
            .entry(path, ModeFileType::Char, mode, (0, 0))
            .rdev_major(device.0)
            .rdev_minor(device.1);
        entry
            .write(&mut self.out, 0)
            .finish()
            .context("write the initramfs")?;
        Ok(())
    }

    /// Adds a file or directory of this host, with its content, under the
    /// absolute path `inside`. Files of the caller belong to root in the
    /// archive. Sockets, FIFOs and block devices are omitted.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn tree(&mut self, from: &Path, inside: &Path) -> Result<()> {
        let path = relative(inside)?;
        // The caller named it, so follow a symbolic link.
        let meta = fs::metadata(from).with_context(|| format!("stat {}", from.display()))?;
        self.copy(from, &path, &meta)
    }

    fn copy(&mut self, from: &Path, path: &str, meta: &fs::Metadata) -> Result<()> {
        let kind = meta.file_type();
        let mode = meta.mode() & 0o7777;
        let owner = self.owner(meta);
        if kind.is_dir() {
            self.dir(path, mode, owner)?;
            let reading = || format!("read {}", from.display());
            for entry in fs::read_dir(from).with_context(reading)? {
                let entry = entry.with_context(reading)?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                    bail!("{}: the name is not UTF-8", entry.path().display());
                };
                let meta = entry.metadata().with_context(reading)?;
                self.copy(&entry.path(), &format!("{path}/{name}"), &meta)?;
            }
        } else if kind.is_symlink() {
            let target =
                fs::read_link(from).with_context(|| format!("readlink {}", from.display()))?;
            self.link(path, &target.to_string_lossy())?;
        } else if kind.is_file() {
            self.parents(path)?;
            let opening = || format!("read {}", from.display());
            let mut file = fs::File::open(from).with_context(opening)?;
            let size = u32::try_from(meta.len()).with_context(|| format!("{path} is too large"))?;
            let entry = self.entry(path, ModeFileType::Regular, mode, owner);
            let mut writer = entry.write(&mut self.out, size);
            let copied = io::copy(&mut file, &mut writer).with_context(opening)?;
            if copied != meta.len() {
                bail!("{} changed while it was read", from.display());
            }
            writer.finish().context("write the initramfs")?;
        } else if kind.is_char_device() {
            let device = meta.rdev();
            let numbers = (
                nix::sys::stat::major(device) as u32,
                nix::sys::stat::minor(device) as u32,
            );
            self.device(path, mode, numbers)?;
        }
        Ok(())
    }

    fn owner(&self, meta: &fs::Metadata) -> (u32, u32) {
        if meta.uid() == self.caller.as_raw() {
            (0, 0)
        } else {
            (meta.uid(), meta.gid())
        }
    }

    /// Ends the archive. The kernel requires a following one to start at a
    /// multiple of 4 bytes; 512 is customary.
    pub fn finish(self, length: impl FnOnce(&mut W) -> io::Result<u64>) -> Result<W> {
        let mut out = trailer(self.out).context("write the initramfs")?;
        let length = length(&mut out).context("write the initramfs")?;
        let padding = vec![0; (length.next_multiple_of(512) - length) as usize];
        out.write_all(&padding).context("write the initramfs")?;
        out.flush().context("write the initramfs")?;
        Ok(out)
    }

    fn parents(&mut self, path: &str) -> Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.dir(parent, 0o755, (0, 0)),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, kind: ModeFileType, mode: u32, owner: (u32, u32)) -> Builder {
        self.inodes += 1;
        Builder::new(path)
            .ino(self.inodes)
            .mode(mode)
            .set_mode_file_type(kind)
            .uid(owner.0)
            .gid(owner.1)
    }
}

/// An absolute path in the archive's form: from the root, without a leading
/// `/`.
fn relative(path: &Path) -> Result<String> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir => {}
            Component::Normal(name) => names.push(name.to_str().context("not UTF-8")?),
            _ => bail!("{} is not an absolute path without `..`", path.display()),
        }
    }
    if names.is_empty() || !path.is_absolute() {
        bail!("{} is not an absolute path of a file", path.display());
    }
    Ok(names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;

    #[test]
    fn a_tree_of_the_caller_is_roots_inside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "text").unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("d/l")).unwrap();
        let mut archive = Archive::new(Vec::new(), &["opt"]);
        archive
            .tree(&dir.path().join("d"), Path::new("/opt/x/y"))
            .unwrap();
        let bytes = archive.finish(|out| Ok(out.len() as u64)).unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let mut names = Vec::new();
        let mut rest = &bytes[..];
        loop {
            let reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().uid()));
            rest = reader.finish().unwrap();
        }
        names.sort();
        let expected = ["opt/x", "opt/x/y", "opt/x/y/f", "opt/x/y/l"].map(|n| (n.to_owned(), 0));
        assert_eq!(names, expected);
        assert!(archive_path_is_refused("../x") && archive_path_is_refused("/"));
    }

    fn archive_path_is_refused(path: &str) -> bool {
        relative(Path::new(path)).is_err()
    }
}
