//! The devices of the host, which a privileged container has too
//! (`--privileged`, as docker-run(1) describes it).

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mount::Privileges;

/// What every container has of its own in /dev, or nobody else's is of use to.
const OWN: [&str; 12] = [
    "console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty", "urandom",
    "zero",
];

/// The nodes of devices in /dev and below, each with its place in the
/// container, for step 04 to mount there: with all privileges, else none.
///
/// # Errors
/// Those of reading /dev.
pub fn of_host(privileges: Privileges) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut nodes = Vec::new();
    if privileges == Privileges::All {
        nodes_in(Path::new("/dev"), &OWN, &mut nodes)?;
    }
    Ok(nodes.into_iter().map(|node| (node.clone(), node)).collect())
}

fn nodes_in(directory: &Path, except: &[&str], nodes: &mut Vec<PathBuf>) -> Result<()> {
    let read = || format!("read {directory:?}");
    for entry in fs::read_dir(directory).with_context(read)? {
        let entry = entry.with_context(read)?;
        let name = entry.file_name();
        if except.iter().any(|own| name == *own) {
            continue;
        }
        let kind = entry.file_type().with_context(read)?;
        if kind.is_dir() {
            nodes_in(&entry.path(), &[], nodes)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            nodes.push(entry.path());
        }
    }
    Ok(())
}
