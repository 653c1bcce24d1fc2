//! Pictures of trees: every file in a tree, and how two trees differ.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{lgetxattr, llistxattr};
use serde::{Deserialize, Serialize};

/// The result of a sequence of operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operated {
    /// The result of each operation: `ok` or the name of the errno.
    pub said: Vec<String>,
    /// The tree afterwards, by path.
    pub tree: BTreeMap<String, Node>,
}

/// A file as a picture shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `st_mode` in octal, including the file type.
    pub mode: String,
    /// The UID and GID of the owner.
    pub owner: (u32, u32),
    /// The content of a file (a long one abridged) or the target of a link.
    pub content: String,
    /// The extended attributes `trusted.*` and `user.*`, except overlay's.
    pub xattrs: BTreeMap<String, String>,
    /// The first path of this file, in the order of the walk: the same for all
    /// its hard links.
    pub first_name: String,
    /// `st_mtime` in seconds if an operation or `fill` has set it; `None` for a
    /// time of the run itself.
    pub mtime: Option<i64>,
}

/// In seconds since 1970. Later times are those of the check's own run, which
/// differ.
const LONG_AGO: i64 = 1_500_000_000;

/// Takes a picture of everything in `directory`.
pub fn tree(directory: &Path) -> Result<BTreeMap<String, Node>> {
    let mut nodes = BTreeMap::new();
    let mut firsts = HashMap::new();
    add(directory, &PathBuf::new(), &mut nodes, &mut firsts)?;
    Ok(nodes)
}

fn add(
    directory: &Path,
    path: &Path,
    nodes: &mut BTreeMap<String, Node>,
    firsts: &mut HashMap<(u64, u64), String>,
) -> Result<()> {
    let at = directory.join(path);
    let mut names = fs::read_dir(&at)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<Vec<_>>>()
        })
        .with_context(|| format!("list {at:?}"))?;
    names.sort();
    for name in names {
        let path = path.join(name);
        let at = directory.join(&path);
        let shown = path.to_string_lossy().into_owned();
        let node = node(&at, &shown, firsts).with_context(|| format!("look at {at:?}"))?;
        nodes.insert(shown, node);
        if fs::symlink_metadata(&at).is_ok_and(|m| m.is_dir()) {
            add(directory, &path, nodes, firsts)?;
        }
    }
    Ok(())
}

fn node(at: &Path, shown: &str, firsts: &mut HashMap<(u64, u64), String>) -> io::Result<Node> {
    let metadata = fs::symlink_metadata(at)?;
    let content = if metadata.is_file() {
        shown_content(&fs::read(at)?)
    } else if metadata.is_symlink() {
        fs::read_link(at)?.to_string_lossy().into_owned()
    } else {
        String::new()
    };
    let first_name = match metadata.is_dir() {
        true => shown.to_owned(),
        false => firsts
            .entry((metadata.dev(), metadata.ino()))
            .or_insert_with(|| shown.to_owned())
            .clone(),
    };
    Ok(Node {
        mode: format!("{:o}", metadata.mode()),
        owner: (metadata.uid(), metadata.gid()),
        content,
        xattrs: xattrs(at)?,
        first_name,
        mtime: (metadata.mtime() < LONG_AGO).then_some(metadata.mtime()),
    })
}

/// The content as a picture shows it: whole if it is short, else its beginning,
/// its length and a hash. Pictures are compared by the thousand.
fn shown_content(content: &[u8]) -> String {
    const SHORT: usize = 64;
    match content.len() {
        ..=SHORT => String::from_utf8_lossy(content).into_owned(),
        length => {
            let mut hasher = DefaultHasher::new();
            content.hash(&mut hasher);
            let beginning = String::from_utf8_lossy(&content[..SHORT / 4]);
            format!("{beginning}… {length} bytes, hash {:016x}", hasher.finish())
        }
    }
}

pub(super) fn xattrs(path: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut buffer = vec![0; 65536];
    let length = match llistxattr(path, &mut buffer[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(BTreeMap::new()),
        Err(errno) => return Err(errno.into()),
    };
    let mut all = BTreeMap::new();
    for name in buffer[..length].split(|byte| *byte == 0) {
        let name = String::from_utf8_lossy(name).into_owned();
        let ours = name.starts_with("trusted.") || name.starts_with("user.");
        if !ours || name.contains(".overlay.") {
            continue;
        }
        let mut value = vec![0; 4096];
        let length = lgetxattr(path, &*name, &mut value[..])?;
        let value = String::from_utf8_lossy(&value[..length]).into_owned();
        all.insert(name, value);
    }
    Ok(all)
}

/// Describes the first difference between two trees; `None` if there is none.
pub fn difference(
    expected: &BTreeMap<String, Node>,
    found: &BTreeMap<String, Node>,
) -> Option<String> {
    let gone = expected.keys().find(|path| !found.contains_key(*path));
    if let Some(path) = gone {
        return Some(format!("{path} is missing"));
    }
    found
        .iter()
        .find_map(|(path, node)| match expected.get(path) {
            None => Some(format!("{path} is there and should not be")),
            Some(wanted) if wanted != node => {
                Some(format!("{path} is {node:?}, and should be {wanted:?}"))
            }
            Some(_) => None,
        })
}
