//! The space that a tree takes.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Result;

use super::Tree;

/// The bytes that the files of a tree take on the disk: `st_blocks`, in units
/// of 512 bytes (stat(2)). A file with several names counts once; blocks that
/// files share by reflink count for each file.
pub fn size(tree: &Tree) -> Result<u64> {
    let mut bytes = 0;
    let mut seen = HashSet::new();
    tree.walk(Path::new(""), &mut |_, stat| {
        if stat.st_nlink < 2 || seen.insert((stat.st_dev, stat.st_ino)) {
            bytes += stat.st_blocks as u64 * 512;
        }
        Ok(true)
    })?;
    Ok(bytes)
}
