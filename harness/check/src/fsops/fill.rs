//! The files that the operations work on.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{XattrFlags, lsetxattr};

use super::time::set_time;

/// Makes a directory with `count` trees, named 0, 1, 2…, each filled by
/// [`fill`].
pub fn trees(directory: &Path, count: usize) -> Result<()> {
    fs::create_dir(directory).with_context(|| format!("mkdir {directory:?}"))?;
    for n in 0..count {
        let tree = directory.join(n.to_string());
        fs::create_dir(&tree).with_context(|| format!("mkdir {tree:?}"))?;
        fill(&tree).with_context(|| format!("fill {tree:?}"))?;
    }
    Ok(())
}

/// Fills an empty directory with the files that the operations work on: all
/// with an old modification time, none with two names.
pub fn fill(directory: &Path) -> io::Result<()> {
    let make = |path: &str, text: &str, mode: u32, owner: (u32, u32)| {
        let path = directory.join(path);
        fs::write(&path, text)?;
        lchown(&path, Some(owner.0), Some(owner.1))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
    };
    for path in ["a", "a/b", "a/b/c", "b", "c"] {
        fs::create_dir(directory.join(path))?;
    }
    make("f", "the f below\n", 0o644, (0, 0))?;
    make(
        "a/f",
        "the a/f below, which is longer\n",
        0o600,
        (1000, 100),
    )?;
    make("a/b/f", "", 0o4755, (0, 0))?;
    make("b/x", &"many lines\n".repeat(1000), 0o640, (7, 7))?;
    make("c/f", "c/f\n", 0o444, (0, 0))?;
    symlink("a/f", directory.join("x"))?;
    symlink("nowhere", directory.join("a/x"))?;
    lsetxattr(
        directory.join("f"),
        "trusted.drydock",
        b"below",
        XattrFlags::empty(),
    )?;
    fs::set_permissions(directory.join("c"), fs::Permissions::from_mode(0o1777))?;
    lchown(directory.join("b"), Some(42), Some(43))?;
    for path in [
        "x", "a/x", "f", "a/f", "a/b/f", "b/x", "c/f", "a/b/c", "a/b", "a", "b", "c",
    ] {
        set_time(&directory.join(path), 1_234_567_890, 0)?;
    }
    Ok(())
}
