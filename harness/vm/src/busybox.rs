//! The busybox for the VM's userland. It is static, because the VM has no libc.
//! busybox(1).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use elf::ElfStream;
use elf::abi::PT_INTERP;
use elf::endian::AnyEndian;

use super::apt::Apt;
use super::cached::publish;
use check::workspace;

/// Finds a static busybox: the system's, or one that is fetched into the cache.
pub fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cached = workspace::cache().join("busybox");
    let found = std::env::split_paths(&path)
        .chain([
            PathBuf::from("/bin"),
            cached.join("bin"),
            cached.join("usr/bin"),
        ])
        .map(|dir| dir.join("busybox"))
        .find(|candidate| is_static(candidate));
    if let Some(found) = found {
        return Ok(found);
    }
    publish(&cached, |dir| {
        Apt::with_lists(|apt| apt.unpack("busybox-static", dir))
    })?;
    [cached.join("bin/busybox"), cached.join("usr/bin/busybox")]
        .into_iter()
        .find(|candidate| is_static(candidate))
        .context("the package busybox-static has no static busybox")
}

/// The paths, without a leading `/`, of the links to busybox.
pub fn links(busybox: &Path) -> Result<Vec<String>> {
    let output = Command::new(busybox)
        .arg("--list-full")
        .output()
        .with_context(|| format!("run {}", busybox.display()))?;
    if !output.status.success() {
        bail!("{} --list-full failed", busybox.display());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(str::to_owned).collect())
}

/// Whether a file is a program without a dynamic loader.
fn is_static(path: &Path) -> bool {
    fs::File::open(path)
        .ok()
        .and_then(|file| ElfStream::<AnyEndian, _>::open_stream(file).ok())
        .is_some_and(|elf| elf.segments().iter().all(|s| s.p_type != PT_INTERP))
}
