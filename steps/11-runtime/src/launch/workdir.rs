//! The working directory of a further process: it has to exist.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use nix::unistd::fchdir;
use process::{Isolation, inside};
use rustix::process::getcwd;

/// The isolation that enters a directory of the container.
pub struct Enter(pub PathBuf);

impl Isolation for Enter {
    fn name(&self) -> &'static str {
        "workdir"
    }

    /// Enters the directory by a descriptor that no magic link leads to: such a
    /// link may lead to a directory of the host (CVE-2024-21626). For one that
    /// is not below the root, the kernel returns a path that begins with
    /// `(unreachable)` (getcwd(2)).
    fn in_container(&mut self) -> Result<()> {
        let path: &Path = &self.0;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let directory = inside::open(path, flags).with_context(|| format!("chdir to {path:?}"))?;
        fchdir(&directory).with_context(|| format!("fchdir({path:?})"))?;
        let here = getcwd(Vec::new()).context("getcwd")?;
        ensure!(
            here.as_bytes().starts_with(b"/"),
            "the working directory {path:?} is outside of the container: refused"
        );
        Ok(())
    }
}
