//! The working directory: chdir(2), getcwd(3).

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::unistd::chdir;
use process::Isolation;
use rustix::process::getcwd;

/// The directory in which the command starts, made where it is missing.
///
/// Behind step 04 in the list: the path is one of the container's.
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

    fn in_container(&mut self) -> Result<()> {
        if self.0.is_dir() {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.0)
            .with_context(|| format!("--workdir: mkdir({:?})", self.0))
    }

    /// Looks where it has come to: a path such as `/proc/self/fd/7`, which an
    /// image may name, could lead to a directory of the host that somebody left
    /// open (CVE-2024-21626). The kernel says `(unreachable)` of a directory
    /// that is not below the root.
    fn before_exec(&mut self) -> Result<()> {
        // ANCHOR: exercise_workdir
        chdir(&self.0).with_context(|| format!("--workdir: chdir({:?})", self.0))?;
        let here = getcwd(Vec::new()).context("getcwd")?;
        if !here.as_bytes().starts_with(b"/") {
            bail!("--workdir {:?} leads out of the container: refused", self.0);
        }
        Ok(())
        // ANCHOR_END: exercise_workdir
    }
}
