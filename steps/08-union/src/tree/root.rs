//! The root directory of a layer's tree, which is the root directory of a
//! container.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use kit::own::make;

use super::Tree;
use super::node::Metadata;

/// Makes the directory `path` for the changes of a layer. The root of a view is
/// that of the topmost layer, so it gets the metadata of the parent's root
/// `below`; without a parent, mode 755.
pub(crate) fn new_root(path: &Path, below: Option<&Path>) -> Result<Tree> {
    make(path, 0o755)?;
    let tree = Tree::open(path)?;
    let Some(below) = below else {
        open_to_all(path)?;
        return Ok(tree);
    };
    let below = Tree::open(below)?;
    let top = Path::new("");
    if let Some(stat) = below.stat(top)? {
        Metadata::read(&below, top, &stat)?.write(&tree.place(top)?)?;
    }
    Ok(tree)
}

/// Lets everybody read and enter a directory: mode 755, whatever the umask.
pub(crate) fn open_to_all(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("chmod({path:?}, 755)"))
}
