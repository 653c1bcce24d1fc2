//! Operations on files, to be done to a plain directory and to a union alike,
//! and a picture of a tree, to compare what came of them.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{
    DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink,
};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::mkfifo;
use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lremovexattr, lsetxattr};
use serde::{Deserialize, Serialize};

use crate::sys::write_by_mmap;

/// One operation. Paths are relative to the tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Op {
    /// open(2) with `O_CREAT | O_TRUNC`, and a write.
    Create { path: String, text: String },
    /// The same with `O_EXCL`.
    CreateNew { path: String },
    /// A write into a file that is there.
    Write { path: String, at: u64, text: String },
    /// A write at its end.
    Append { path: String, text: String },
    /// truncate(2).
    Truncate { path: String, length: u64 },
    /// A write through a shared mapping.
    Mmap { path: String, at: u64, byte: u8 },
    /// `O_TMPFILE`, a write, and a name for it by link(2); a plain file where
    /// the file system has no such thing.
    TmpFile { path: String, text: String },
    /// rename(2); a directory that cannot be renamed (`EXDEV`) is copied, as
    /// mv(1) does.
    Rename { from: String, to: String },
    /// link(2).
    Link { from: String, to: String },
    /// symlink(2).
    Symlink { target: String, path: String },
    /// unlink(2).
    Unlink { path: String },
    /// rmdir(2).
    Rmdir { path: String },
    /// A directory and all in it, removed.
    RemoveAll { path: String },
    /// mkdir(2).
    Mkdir { path: String, mode: u32 },
    /// mkfifo(3).
    Fifo { path: String },
    /// chmod(2).
    Chmod { path: String, mode: u32 },
    /// lchown(2).
    Chown { path: String, uid: u32, gid: u32 },
    /// lsetxattr(2).
    SetXattr {
        path: String,
        name: String,
        value: String,
    },
    /// lremovexattr(2).
    RemoveXattr { path: String, name: String },
    /// utimensat(2): seconds since 1970.
    Times { path: String, seconds: i64 },
}

/// Does the operations in `directory`, one after the other, and returns what
/// the kernel said to each: `ok` or the name of the errno.
pub fn run(directory: &Path, ops: &[Op]) -> Vec<String> {
    ops.iter()
        .map(|op| match one(directory, op) {
            Ok(()) => "ok".to_owned(),
            Err(error) => match error.raw_os_error() {
                Some(errno) => format!("{:?}", Errno::from_raw(errno)),
                None => error.to_string(),
            },
        })
        .collect()
}

fn one(dir: &Path, op: &Op) -> io::Result<()> {
    match op {
        Op::Create { path, text } => {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(dir.join(path))?;
            file.write_all(text.as_bytes())
        }
        Op::CreateNew { path } => File::create_new(dir.join(path)).map(drop),
        Op::Write { path, at, text } => {
            writable(&dir.join(path))?.write_all_at(text.as_bytes(), *at)
        }
        Op::Append { path, text } => {
            let mut file = OpenOptions::new()
                .append(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(dir.join(path))?;
            regular(&file)?;
            file.write_all(text.as_bytes())
        }
        Op::Truncate { path, length } => writable(&dir.join(path))?.set_len(*length),
        Op::Mmap { path, at, byte } => {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(dir.join(path))?;
            regular(&file)?;
            Ok(write_by_mmap(&file, *at as usize, *byte)?)
        }
        Op::TmpFile { path, text } => tmp_file(&dir.join(path), text),
        Op::Rename { from, to } => rename(&dir.join(from), &dir.join(to)),
        Op::Link { from, to } => fs::hard_link(dir.join(from), dir.join(to)),
        Op::Symlink { target, path } => symlink(target, dir.join(path)),
        Op::Unlink { path } => fs::remove_file(dir.join(path)),
        Op::Rmdir { path } => fs::remove_dir(dir.join(path)),
        Op::RemoveAll { path } => fs::remove_dir_all(dir.join(path)),
        Op::Mkdir { path, mode } => fs::DirBuilder::new().mode(*mode).create(dir.join(path)),
        Op::Fifo { path } => Ok(mkfifo(&dir.join(path), Mode::S_IRUSR)?),
        Op::Chmod { path, mode } => {
            let path = dir.join(path);
            // chmod(2) would follow it.
            if fs::symlink_metadata(&path)?.is_symlink() {
                return Err(Errno::ELOOP.into());
            }
            fs::set_permissions(path, fs::Permissions::from_mode(*mode))
        }
        Op::Chown { path, uid, gid } => lchown(dir.join(path), Some(*uid), Some(*gid)),
        Op::SetXattr { path, name, value } => Ok(lsetxattr(
            dir.join(path),
            name,
            value.as_bytes(),
            XattrFlags::empty(),
        )?),
        Op::RemoveXattr { path, name } => Ok(lremovexattr(dir.join(path), name)?),
        Op::Times { path, seconds } => set_time(&dir.join(path), *seconds, 0),
    }
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) -> io::Result<()> {
    let time = TimeSpec::new(seconds, nanoseconds);
    let link = UtimensatFlags::NoFollowSymlink;
    Ok(utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, link)?)
}

fn writable(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    regular(&file)?;
    Ok(file)
}

fn regular(file: &File) -> io::Result<()> {
    match file.metadata()?.is_file() {
        true => Ok(()),
        false => Err(Errno::ESPIPE.into()),
    }
}

fn tmp_file(path: &Path, text: &str) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let parent = path.parent().unwrap_or(Path::new("."));
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o640)
        .open(parent);
    match opened {
        Ok(mut file) => {
            file.write_all(text.as_bytes())?;
            let by = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(
                rustix::fs::CWD,
                by,
                rustix::fs::CWD,
                path,
                rustix::fs::AtFlags::SYMLINK_FOLLOW,
            )?;
            Ok(())
        }
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o640)
                .open(path)?;
            file.write_all(text.as_bytes())
        }
        Err(error) => Err(error),
    }
}

/// rename(2), and where that says `EXDEV` of a directory, what mv(1) does. A
/// directory with files that have other names elsewhere is left alone: a copy
/// would separate them.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let is_directory = fs::symlink_metadata(from)?.is_dir();
    if is_directory && has_links(from)? {
        return Err(Errno::EMLINK.into());
    }
    match fs::rename(from, to) {
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) && is_directory => {
            if to.starts_with(from) {
                return Err(Errno::EINVAL.into());
            }
            match fs::symlink_metadata(to) {
                Ok(there) if there.is_dir() => fs::remove_dir(to)?,
                Ok(_) => return Err(Errno::ENOTDIR.into()),
                Err(_) => {}
            }
            copy(from, to)?;
            fs::remove_dir_all(from)
        }
        renamed => renamed,
    }
}

fn has_links(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        let linked = match metadata.is_dir() {
            true => has_links(&path)?,
            false => metadata.nlink() > 1,
        };
        if linked {
            return Ok(true);
        }
    }
    Ok(false)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
    } else if metadata.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if metadata.is_file() {
        let mut content = Vec::new();
        File::open(from)?.read_to_end(&mut content)?;
        File::create_new(to)?.write_all(&content)?;
    } else {
        mkfifo(to, Mode::S_IRUSR)?;
    }
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    if !metadata.is_symlink() {
        fs::set_permissions(to, metadata.permissions())?;
    }
    for (name, value) in xattrs(from)? {
        lsetxattr(to, &*name, value.as_bytes(), XattrFlags::empty())?;
    }
    set_time(to, metadata.mtime(), metadata.mtime_nsec())
}

/// What came of some operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operated {
    /// What the kernel said to each.
    pub said: Vec<String>,
    /// All that is there afterwards.
    pub tree: BTreeMap<String, Node>,
}

/// A file as a tree shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `st_mode` in octal, type included.
    pub mode: String,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Content of a file, a long one abridged; target of a link.
    pub content: String,
    /// Extended attributes `trusted.*` and `user.*`, without overlay's.
    pub xattrs: BTreeMap<String, String>,
    /// The first of the names of this file.
    pub first_name: String,
    /// Seconds of the last change where they were set by hand, else nothing.
    pub mtime: Option<i64>,
}

/// Times from here on are those of the check itself, which differ.
const LONG_AGO: i64 = 1_500_000_000;

/// A picture of everything in `directory`.
///
/// # Errors
/// Those of looking.
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

/// A content as a picture shows it: whole if it is short, else its beginning, its
/// length and a hash. Pictures are compared by their thousands.
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

fn xattrs(path: &Path) -> io::Result<BTreeMap<String, String>> {
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

/// The first difference between two trees, in words; `None` if there is none.
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

/// Makes a directory with `count` trees as [`fill`] makes them: 0, 1, 2…
///
/// # Errors
/// Those of writing.
pub fn trees(directory: &Path, count: usize) -> Result<()> {
    fs::create_dir(directory).with_context(|| format!("mkdir {directory:?}"))?;
    for n in 0..count {
        let tree = directory.join(n.to_string());
        fs::create_dir(&tree).with_context(|| format!("mkdir {tree:?}"))?;
        fill(&tree).with_context(|| format!("fill {tree:?}"))?;
    }
    Ok(())
}

/// Fills an empty directory with the files on which the operations work: all
/// old, none with two names.
///
/// # Errors
/// Those of writing.
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
