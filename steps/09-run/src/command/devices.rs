//! Device nodes of the host, for a privileged container (`--privileged`,
//! docker-run(1)).

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mount::Privileges;

/// Names in the host's /dev that are omitted: each container has its own, and
/// another's is of no use to it.
const OWN: [&str; 12] = [
    "console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty", "urandom",
    "zero",
];

/// The device nodes in /dev and below, each with its place in the container,
/// for step 04 to mount. None unless `privileges` is [`Privileges::All`].
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
