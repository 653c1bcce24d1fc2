//! Paths of the repository and of its caches.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};

/// The top of the repository.
pub fn root() -> PathBuf {
    // This crate is harness/check.
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or(here.clone(), PathBuf::from)
}

/// Whether this repository is a handout, without solutions: then the steps in
/// `steps/` are the learner's. Wrong solutions, which show ours, are never
/// handed out.
pub fn is_handed_out() -> bool {
    !root().join("harness/wrong").is_dir()
}

/// The directory of the programs under test and the probe: `bin/`, or
/// `$DRYDOCK_BIN`.
pub fn bin() -> PathBuf {
    std::env::var_os("DRYDOCK_BIN").map_or_else(|| root().join("bin"), PathBuf::from)
}

/// The name of a step's program: `step-03`, but `drydock` for the engine and
/// `drydock-runtime` for the runtime.
pub fn program(step: &str) -> String {
    match step {
        "09" => "drydock".into(),
        "11" => "drydock-runtime".into(),
        _ => format!("step-{step}"),
    }
}

/// The cache that runs and clones share: `$DRYDOCK_CACHE`, or `drydock` in the
/// user's cache directory.
pub fn cache() -> PathBuf {
    let dir = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    dir("DRYDOCK_CACHE").unwrap_or_else(|| {
        dir("XDG_CACHE_HOME")
            .or_else(|| Some(dir("HOME")?.join(".cache")))
            .unwrap_or_else(|| root().join("target"))
            .join("drydock")
    })
}

/// The root file system that `just rootfs NAME` makes.
pub fn rootfs(name: &str) -> PathBuf {
    std::env::var_os("DRYDOCK_ROOTFS")
        .map_or_else(|| cache().join("rootfs"), PathBuf::from)
        .join(name)
}

/// The directory of the checks: `harness/tests`.
pub fn checks() -> PathBuf {
    root().join("harness/tests")
}

/// Makes sure that a root file system exists: makes it if it is missing.
/// `vm/rootfs.sh` explains a failure on standard error.
pub fn need_rootfs(name: &str) -> Result<()> {
    match rootfs(name).join("bin").exists() {
        true => Ok(()),
        false => make_rootfs(name),
    }
}

/// The image of the disk that `just rootfs NAME` makes. Makes it if it is
/// missing.
pub fn need_disk(name: &str) -> Result<PathBuf> {
    let image = rootfs(name).join("disk.ext4");
    if !image.exists() {
        make_rootfs(name)?;
        ensure!(image.exists(), "{name} is a directory, and no disk");
    }
    Ok(image)
}

fn make_rootfs(name: &str) -> Result<()> {
    let made = Command::new(root().join("vm/rootfs.sh"))
        .arg(name)
        .stdout(Stdio::null())
        .status();
    match made {
        Ok(status) if status.success() => Ok(()),
        _ => bail!(
            "{} is missing: ./just rootfs {name}",
            rootfs(name).display()
        ),
    }
}
