//! Trees as comparable text.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr};

/// A line for every file: kind, mode, owner, links, attributes, contents.
pub fn describe(root: &Path) -> String {
    let mut lines = String::new();
    let mut groups = BTreeMap::new();
    walk(root, root, &mut lines, &mut groups);
    lines
}

fn walk(root: &Path, dir: &Path, lines: &mut String, groups: &mut BTreeMap<u64, usize>) {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        let meta = path.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let what = if kind.is_dir() {
            "dir".to_owned()
        } else if kind.is_symlink() {
            format!("link {:?}", fs::read_link(&path).unwrap())
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            let next = groups.len();
            let group = *groups.entry(meta.ino()).or_insert(next);
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            format!(
                "file #{group} x{} {} {:x} {text:?}",
                meta.nlink(),
                bytes.len(),
                hash(&bytes)
            )
        } else {
            format!("special {:?} {}", kind, meta.rdev())
        };
        let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
        let xattrs = xattrs(&path);
        lines.push_str(&format!("{name} {mode:o} {uid}:{gid} {what} {xattrs:?}\n"));
        if kind.is_dir() {
            walk(root, &path, lines, groups);
        }
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut buffer = vec![0; 4096];
    let length = llistxattr(path, buffer.as_mut_slice()).unwrap_or(0);
    let names = buffer[..length]
        .split(|&byte| byte == 0)
        .filter(|n| !n.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 4096];
        let name = std::ffi::OsStr::from_bytes(name);
        let length = lgetxattr(path, name, value.as_mut_slice()).unwrap();
        value.truncate(length);
        (name.to_string_lossy().into_owned(), value)
    };
    names.map(value).collect()
}
