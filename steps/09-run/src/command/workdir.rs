//! The working directory: chdir(2), getcwd(3).

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use mount::target::{FileKind, open_or_make};
use nix::fcntl::OFlag;
use nix::unistd::fchdir;
use process::{Isolation, inside};
use rustix::process::getcwd;

/// The isolation that enters the command's working directory, and makes it if
/// it is missing.
///
/// Comes after step 04 in the list: the path is one of the container's.
pub struct Workdir(PathBuf);

impl Workdir {
    /// An isolation that starts the command in `path`.
    pub fn new(path: PathBuf) -> Self {
        Workdir(path)
    }
}

impl Isolation for Workdir {
    fn name(&self) -> &'static str {
        "workdir"
    }

    fn prepare(&mut self) -> Result<()> {
        if !self.0.is_absolute() {
            bail!(
                "--workdir {:?} is relative: name it from the container's root, as in /srv",
                self.0
            );
        }
        Ok(())
    }

    /// Makes the directory inside the root, by a descriptor, and enters it by
    /// the same descriptor. A path such as `/proc/self/fd/7`, which an image
    /// may name, could lead to a directory of the host that was left open
    /// (CVE-2024-21626). Such a link is not followed, so that nothing is made
    /// behind it either. For a directory that is not below the root the kernel
    /// returns a path that begins with `(unreachable)`: getcwd(2).
    fn in_container(&mut self) -> Result<()> {
        let directory = enter(&self.0).with_context(|| format!("--workdir {:?}", self.0))?;
        fchdir(&directory).with_context(|| format!("--workdir: fchdir({:?})", self.0))?;
        let here = getcwd(Vec::new()).context("getcwd")?;
        if !here.as_bytes().starts_with(b"/") {
            bail!("--workdir {:?} leads out of the container: refused", self.0);
        }
        Ok(())
    }
}

fn enter(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let root = inside::open(Path::new("/"), flags).context("open(/)")?;
    open_or_make(root.as_fd(), path, FileKind::Directory)
}
