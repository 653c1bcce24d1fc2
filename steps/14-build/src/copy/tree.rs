//! The files that a source names: found in a tree, and walked through.
//!
//! The tree is somebody's, who may change it meanwhile and wishes for files that
//! are not in it. So names are resolved here, part by part, each opened without
//! following a link (`O_NOFOLLOW`); `..` goes back to a directory that is still
//! open, and a link is read and resolved in the same way, from the tree's root.
//! There is no name that leads out.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{
    Dir, FileType, Mode, OFlags, Stat, fstat, getxattr, listxattr, openat, readlinkat,
};
use rustix::io::Errno;
use union::tree::node::{Xattrs, ours};

use crate::context::ignore::Ignore;
use crate::context::pattern::Pattern;
use crate::copy::look::{Look, Looks};

/// The most links in one name, as in the kernel (path_resolution(7)).
const LINKS: usize = 40;

/// The deepest directory that is copied. Each one on the way down is open, on
/// both sides.
pub const DEEPEST: usize = 256;

/// A tree of files.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// What is left out of it.
    ignore: Option<Ignore>,
    /// What its files look like, if the directory does not show that.
    looks: Option<Looks>,
    /// Whether it is a context: its files belong to root, whoever owns them
    /// here, and only files, directories and links count.
    is_context: bool,
}

/// A file that was found.
#[derive(Debug)]
pub struct Found {
    /// The file, for questions only (`O_PATH`).
    pub file: OwnedFd,
    /// Its path from the root of the tree, without links.
    pub path: PathBuf,
    /// Its status.
    pub stat: Stat,
}

/// What a name leads to.
enum Lookup {
    Found(Found),
    /// Nothing is there: the path without the links that were followed.
    Missing(PathBuf),
}

impl Lookup {
    fn found(self) -> Option<Found> {
        match self {
            Lookup::Found(found) => Some(found),
            Lookup::Missing(_) => None,
        }
    }
}

/// What a source stands for: one file or directory.
#[derive(Debug)]
pub struct Item {
    /// The file; a link is followed.
    pub found: Found,
    /// The name by which it was found; empty for the root.
    pub name: OsString,
    /// The directories above it that are copied as well (`--parents`), the
    /// outermost first.
    pub parents: Vec<(OsString, Look)>,
    /// Whether the directory itself is copied, and not only its content.
    pub whole: bool,
}

/// A file on a walk.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The file (`O_PATH`).
    pub file: BorrowedFd<'a>,
    /// Its status.
    pub stat: &'a Stat,
    /// Its path from the root of the tree.
    pub path: &'a Path,
    /// Its name there.
    pub name: &'a OsStr,
    /// What it looks like.
    pub look: Look,
}

/// Who is shown the files of a walk.
pub trait Visitor {
    /// A directory begins.
    fn enter(&mut self, entry: &Entry<'_>) -> Result<()>;
    /// It ends.
    fn leave(&mut self, entry: &Entry<'_>) -> Result<()>;
    /// Any other file.
    fn file(&mut self, entry: &Entry<'_>) -> Result<()>;
    /// A file that is not copied, since it is none.
    fn odd(&mut self, path: &Path, what: &str) -> Result<()>;
}

impl Found {
    /// What kind of file it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }
}

impl Entry<'_> {
    /// What kind of file it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Opens a file of any kind without following a link, and without any effect on
/// a device.
pub fn open_path(directory: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

/// The path of an open file, for calls that take no descriptor of it.
pub fn through_proc(file: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Opens for reading a file that is known to be a regular one.
pub fn open_content(file: &impl AsRawFd) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(through_proc(file), flags, Mode::empty())
        .map(File::from)
        .context("open")
}

/// The target of a link.
pub fn target(link: impl AsFd) -> Result<OsString> {
    let target = readlinkat(link, "", Vec::new()).context("readlink")?;
    Ok(OsString::from_vec(target.into_bytes()))
}

/// The parts of a path, the last one first, as a stack to take them from.
pub fn stacked(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev();
    parts
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// The names in a directory, sorted.
fn names(directory: impl AsFd) -> Result<Vec<OsString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let listed = openat(directory, ".", flags, Mode::empty()).and_then(Dir::new);
    let mut names = Vec::new();
    for entry in listed.context("open")? {
        let entry = entry.context("readdir")?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort();
    Ok(names)
}

/// What Docker says of a source that does not exist.
fn missing(path: &Path) -> anyhow::Error {
    let shown = Path::new("/").join(path);
    anyhow::anyhow!("{:?}: not found", shown.to_string_lossy())
}

impl Tree {
    /// The files of a context.
    pub fn context(root: OwnedFd, ignore: Option<Ignore>, looks: Option<Looks>) -> Self {
        Tree {
            root,
            ignore,
            looks,
            is_context: true,
        }
    }

    /// The files of a layer and those below it.
    pub fn layer(root: OwnedFd) -> Self {
        Tree {
            root,
            ignore: None,
            looks: None,
            is_context: false,
        }
    }

    /// Whether the same files may look otherwise a moment later.
    pub fn may_change(&self) -> bool {
        self.is_context
    }

    // ANCHOR: find
    /// Finds a file; `None` if there is none.
    fn find(&self, path: &Path) -> Result<Option<Found>> {
        self.look_up(path).map(Lookup::found)
    }

    /// Finds a file. Links lead to where they would lead if the tree were all
    /// there is.
    fn look_up(&self, path: &Path) -> Result<Lookup> {
        let mut left = stacked(path);
        let mut above: Vec<(OsString, OwnedFd)> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                above.pop();
                continue;
            }
            let directory = above.last().map_or(&self.root, |(_, opened)| opened);
            let file = match open_path(directory, &name) {
                Ok(file) => file,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => {
                    let here: PathBuf = above.iter().map(|(name, _)| name).collect();
                    let rest: PathBuf = left.iter().rev().collect();
                    return Ok(Lookup::Missing(clean(&here.join(name).join(rest))));
                }
                Err(errno) => return Err(errno).with_context(|| format!("open {name:?}")),
            };
            let stat = fstat(&file).with_context(|| format!("stat {name:?}"))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                ensure!(above.len() < DEEPEST, too_deep());
                above.push((name, file));
                continue;
            }
            links += 1;
            ensure!(links <= LINKS, "{path:?} is behind more than {LINKS} links");
            let target = target(&file).with_context(|| format!("{name:?}"))?;
            if Path::new(&target).has_root() {
                above.clear();
            }
            left.extend(stacked(Path::new(&target)));
        }
        let path: PathBuf = above.iter().map(|(name, _)| name).collect();
        let file = match above.pop() {
            Some((_, file)) => file,
            None => self.root.try_clone().context("dup")?,
        };
        let stat = fstat(&file).context("stat")?;
        Ok(Lookup::Found(Found { file, path, stat }))
    }
    // ANCHOR_END: find

    /// Finds a source: it must exist, and not be left out.
    fn item(&self, path: &Path) -> Result<Item> {
        let found = match self.look_up(path).with_context(|| shown(path))? {
            Lookup::Found(found) => found,
            Lookup::Missing(path) => return Err(missing(&path)),
        };
        if !self.keeps(&found)? {
            return Err(missing(path).context("it is left out of the context by .dockerignore"));
        }
        if let Some(what) = self.odd(found.kind()) {
            bail!("{}: it is {what}, which is not copied", shown(path));
        }
        Ok(Item {
            found,
            name: path.file_name().unwrap_or_default().to_owned(),
            parents: Vec::new(),
            whole: false,
        })
    }

    /// Whether a file, or anything in a directory, is not left out.
    fn keeps(&self, found: &Found) -> Result<bool> {
        let Some(ignore) = &self.ignore else {
            return Ok(true);
        };
        if found.path.as_os_str().is_empty()
            || !ignore.leaves_out(&found.path, found.is_directory())
        {
            return Ok(true);
        }
        Ok(found.is_directory()
            && ignore.may_keep_below(&found.path)
            && self.keeps_any(ignore, found.file.as_fd(), &found.path, 0)?)
    }

    fn keeps_any(
        &self,
        ignore: &Ignore,
        directory: BorrowedFd<'_>,
        path: &Path,
        depth: usize,
    ) -> Result<bool> {
        ensure!(depth < DEEPEST, too_deep());
        for name in names(directory).with_context(|| shown(path))? {
            let path = path.join(&name);
            let Some((file, stat)) = opened(directory, &name)? else {
                continue;
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if !ignore.leaves_out(&path, is_directory)
                || is_directory
                    && ignore.may_keep_below(&path)
                    && self.keeps_any(ignore, file.as_fd(), &path, depth + 1)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a file is that is not copied from a context.
    fn odd(&self, kind: FileType) -> Option<&'static str> {
        match kind {
            FileType::Socket => Some("a socket"),
            FileType::CharacterDevice | FileType::BlockDevice if self.is_context => {
                Some("a device")
            }
            _ => None,
        }
    }

    /// Finds what a source stands for. Without wildcards it must exist.
    pub fn items(&self, source: &str, parents: bool) -> Result<Vec<Item>> {
        ensure!(!source.contains('\0'), "{source:?} has a NUL in it");
        if parents {
            return self.items_with_parents(source);
        }
        let path = clean(Path::new(source));
        let plain: PathBuf = path.iter().take_while(|part| !is_wild(part)).collect();
        let Ok(wild) = path.strip_prefix(&plain) else {
            bail!("{source:?} is no path");
        };
        if wild.as_os_str().is_empty() {
            return Ok(vec![self.item(&path)?]);
        }
        let patterns: Vec<Pattern> = wild
            .iter()
            .map(|part| Pattern::new(&part.to_string_lossy()))
            .collect::<Result<_>>()
            .with_context(|| format!("{source:?}"))?;
        let mut items = Vec::new();
        if let Some(base) = self.find(&plain).with_context(|| shown(&plain))?
            && base.is_directory()
        {
            self.matching(base.file.as_fd(), &base.path, &patterns, &mut items)?;
        }
        Ok(items)
    }

    /// Finds what matches: a pattern for each part of the path.
    fn matching(
        &self,
        directory: BorrowedFd<'_>,
        path: &Path,
        patterns: &[Pattern],
        items: &mut Vec<Item>,
    ) -> Result<()> {
        let Some((pattern, rest)) = patterns.split_first() else {
            return Ok(());
        };
        for name in names(directory).with_context(|| shown(path))? {
            if !pattern.matches(&name.to_string_lossy()) {
                continue;
            }
            let path = path.join(&name);
            let Some((file, stat)) = opened(directory, &name)? else {
                continue;
            };
            if !rest.is_empty() {
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    self.matching(file.as_fd(), &path, rest, items)?;
                }
                continue;
            }
            let found = Found { file, path, stat };
            if !self.keeps(&found)? || self.odd(found.kind()).is_some() {
                continue;
            }
            // By its path: it may be a link.
            items.push(self.item(&found.path)?);
        }
        Ok(())
    }

    /// `--parents`: paths are kept from the beginning, or from `/./` on; `**`
    /// stands for any number of directories.
    fn items_with_parents(&self, source: &str) -> Result<Vec<Item>> {
        let (base, below) = source.split_once("/./").unwrap_or(("", source));
        let below = clean(Path::new(below));
        let base_path = clean(Path::new(base));
        let Some(base) = self.find(&base_path).with_context(|| shown(&base_path))? else {
            return Err(missing(&base_path));
        };
        if below.as_os_str().is_empty() {
            let name = OsString::new();
            return Ok(vec![Item {
                found: base,
                name,
                parents: Vec::new(),
                whole: false,
            }]);
        }
        let patterns: Vec<_> = below.iter().collect();
        let mut items = Vec::new();
        let mut parents = Vec::new();
        self.below(&base, &patterns, &mut parents, &mut items)?;
        if items.is_empty() && !below.iter().any(is_wild) {
            return Err(missing(&base_path.join(&below)));
        }
        Ok(items)
    }

    fn below(
        &self,
        directory: &Found,
        patterns: &[&OsStr],
        parents: &mut Vec<(OsString, Look)>,
        items: &mut Vec<Item>,
    ) -> Result<()> {
        ensure!(parents.len() < DEEPEST, too_deep());
        let Some((first, rest)) = patterns.split_first() else {
            return Ok(());
        };
        let any_depth = *first == "**";
        // `a/**` is everything in `a`; `**/b` is also `b` itself.
        if any_depth && !rest.is_empty() {
            self.below(directory, rest, parents, items)?;
        }
        let pattern = Pattern::new(&first.to_string_lossy())?;
        let shown = shown(&directory.path);
        for name in names(&directory.file).with_context(|| shown.clone())? {
            let matches = any_depth || pattern.matches(&name.to_string_lossy());
            let Some((file, stat)) = opened(directory.file.as_fd(), &name)? else {
                continue;
            };
            let path = directory.path.join(&name);
            let found = Found { file, path, stat };
            if !matches || !self.keeps(&found)? || self.odd(found.kind()).is_some() {
                continue;
            }
            if rest.is_empty() {
                let known = items.iter().any(|item| item.found.path == found.path);
                if !known {
                    items.push(Item {
                        found,
                        name,
                        parents: parents.clone(),
                        whole: true,
                    });
                }
            } else if found.is_directory() {
                let look = self.look(found.file.as_fd(), &found.stat, &found.path)?;
                parents.push((name, look));
                let next = if any_depth { patterns } else { rest };
                self.below(&found, next, parents, items)?;
                parents.pop();
            }
        }
        Ok(())
    }

    /// What a file looks like in an image.
    pub fn look(&self, file: BorrowedFd<'_>, stat: &Stat, path: &Path) -> Result<Look> {
        if let Some(look) = self.looks.as_ref().and_then(|looks| looks.of(path)) {
            return Ok(look.clone());
        }
        let mut xattrs = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Directory => attributes(&file)?,
            _ => Xattrs::new(),
        };
        xattrs.retain(|name, _| match self.is_context {
            true => is_of_contexts(name),
            false => !name.as_bytes().starts_with(b"trusted."),
        });
        Ok(Look {
            mode: stat.st_mode & 0o7777,
            owner: match self.is_context {
                true => (0, 0),
                false => (stat.st_uid, stat.st_gid),
            },
            mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
            xattrs,
        })
    }

    /// Shows a visitor what an item holds, in the order of names. The directory
    /// of an item that is not copied as a whole is not shown itself.
    pub fn walk(
        &self,
        item: &Item,
        exclude: Option<&Ignore>,
        visitor: &mut dyn Visitor,
    ) -> Result<()> {
        let found = &item.found;
        if let Some(exclude) = exclude
            && !item.name.is_empty()
            && (item.whole || !found.is_directory())
            && exclude.leaves_out(&item.below(), found.is_directory())
        {
            return Ok(());
        }
        let base = match item.whole {
            true => item.below(),
            false => PathBuf::new(),
        };
        let walk = Walk {
            tree: self,
            exclude,
        };
        let path = &found.path;
        if !item.whole && found.is_directory() {
            return walk.content(found.file.as_fd(), path, &base, 0, visitor);
        }
        let look = self.look(found.file.as_fd(), &found.stat, path)?;
        let entry = Entry {
            file: found.file.as_fd(),
            stat: &found.stat,
            path,
            name: &item.name,
            look,
        };
        walk.entry(&entry, &base, 0, visitor)
    }
}

impl Item {
    /// Its path below the destination.
    fn below(&self) -> PathBuf {
        let names = self.parents.iter().map(|(name, _)| name);
        names.chain([&self.name]).collect()
    }
}

struct Walk<'a> {
    tree: &'a Tree,
    exclude: Option<&'a Ignore>,
}

impl Walk<'_> {
    fn entry(
        &self,
        entry: &Entry<'_>,
        below: &Path,
        depth: usize,
        visitor: &mut dyn Visitor,
    ) -> Result<()> {
        if entry.kind() != FileType::Directory {
            return visitor.file(entry).with_context(|| shown(entry.path));
        }
        visitor.enter(entry).with_context(|| shown(entry.path))?;
        self.content(entry.file, entry.path, below, depth + 1, visitor)?;
        visitor.leave(entry).with_context(|| shown(entry.path))
    }

    /// Shows what is in a directory. `below` is its path within the source, to
    /// which `--exclude` refers.
    fn content(
        &self,
        directory: BorrowedFd<'_>,
        path: &Path,
        below: &Path,
        depth: usize,
        visitor: &mut dyn Visitor,
    ) -> Result<()> {
        ensure!(depth <= DEEPEST, too_deep());
        for name in names(directory).with_context(|| shown(path))? {
            let (path, below) = (path.join(&name), below.join(&name));
            let Some((file, stat)) = opened(directory, &name)? else {
                continue;
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let found = Found { file, path, stat };
            if !self.tree.keeps(&found)? {
                continue;
            }
            if let Some(what) = self.tree.odd(kind) {
                visitor.odd(&found.path, what)?;
                continue;
            }
            if let Some(exclude) = self.exclude
                && exclude.leaves_out(&below, found.is_directory())
                && !(found.is_directory() && exclude.may_keep_below(&below))
            {
                continue;
            }
            let file = found.file.as_fd();
            let look = self.tree.look(file, &found.stat, &found.path);
            let entry = Entry {
                file,
                stat: &found.stat,
                path: &found.path,
                name: &name,
                look: look.with_context(|| shown(&found.path))?,
            };
            self.entry(&entry, &below, depth, visitor)?;
        }
        Ok(())
    }
}

fn too_deep() -> String {
    format!("directories are nested more than {DEEPEST} deep")
}

/// A path as it is called in messages.
fn shown(path: &Path) -> String {
    format!("{:?}", Path::new("/").join(path).to_string_lossy())
}

/// A file in a directory, with its status; `None` if somebody has removed it
/// meanwhile.
fn opened(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Option<(OwnedFd, Stat)>> {
    let file = match open_path(directory, name) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno).with_context(|| format!("open {name:?}")),
    };
    let stat = fstat(&file).with_context(|| format!("stat {name:?}"))?;
    Ok(Some((file, stat)))
}

/// A path without `.` and `..`, by its text, relative to the root.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Whether a part of a path has wildcards. A backslash takes the meaning of what
/// follows it.
fn is_wild(part: &OsStr) -> bool {
    let mut bytes = part.as_bytes().iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Whether a file of a context brings an attribute along. Labels of security
/// modules and lists of access belong to the machine where the context is.
pub fn is_of_contexts(name: &OsStr) -> bool {
    name == "security.capability" || name.as_bytes().starts_with(b"user.") && !ours(name)
}

/// The extended attributes of an open file, without those of overlay.
fn attributes(file: &impl AsRawFd) -> Result<Xattrs> {
    let path = through_proc(file);
    let mut xattrs = Xattrs::new();
    let mut names = vec![0; 1024];
    let length = loop {
        match listxattr(&path, &mut names[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) if names.len() < 65536 => names.resize(65536, 0),
            Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => return Ok(xattrs),
            Err(errno) => return Err(errno).context("listxattr"),
        }
    };
    for name in names[..length].split(|byte| *byte == 0) {
        let name = OsStr::from_bytes(name);
        if name.is_empty() || ours(name) {
            continue;
        }
        let mut value = vec![0; 65536];
        match getxattr(&path, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                xattrs.insert(name.to_owned(), value);
            }
            // It is gone since, or not for the caller.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno).with_context(|| format!("getxattr({name:?})")),
        }
    }
    Ok(xattrs)
}

impl Tree {
    /// Reads a small regular file; `None` if there is none.
    pub fn read(&self, path: &Path, most: u64) -> Result<Option<String>> {
        use std::io::Read;
        let Some(found) = self.find(path)? else {
            return Ok(None);
        };
        ensure!(
            found.kind() == FileType::RegularFile,
            "{} is not a regular file",
            shown(path)
        );
        let mut bytes = Vec::new();
        open_content(&found.file)?
            .take(most + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("read {}", shown(path)))?;
        ensure!(
            bytes.len() as u64 <= most,
            "{} has more than {most} bytes",
            shown(path)
        );
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Whether a path leads to a directory.
    pub fn is_directory(&self, path: &Path) -> Result<bool> {
        Ok(self.find(path)?.is_some_and(|found| found.is_directory()))
    }
}
