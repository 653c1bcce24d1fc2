//! The differences between two trees, by which drivers that keep whole trees
//! find the changes of a layer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FileType, Stat};

use super::node::{Metadata, same_type};
use super::{Tree, file_type};

/// The kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// New, or different from before.
    Changed,
    /// Removed.
    Deleted,
}

/// The changes that turn `before` into `after`, in the order of paths, with the
/// directories above each change. The content of a deleted directory is not
/// listed.
///
/// Content is compared byte by byte where the sizes are equal, because a time
/// can be set back. Hard links go together: if one name of a file is listed,
/// all are.
pub fn changes(before: &Tree, after: &Tree) -> Result<BTreeMap<PathBuf, Change>> {
    // ANCHOR: exercise_what_has_changed
    let mut changed = BTreeMap::new();
    if differs(before, after, Path::new(""))? {
        changed.insert(PathBuf::new(), Change::Changed);
    }
    directory(before, after, Path::new(""), &mut changed)?;
    together(before, after, &mut changed)?;
    with_directories(&mut changed);
    Ok(changed)
    // ANCHOR_END: exercise_what_has_changed
}

fn directory(
    before: &Tree,
    after: &Tree,
    path: &Path,
    changed: &mut BTreeMap<PathBuf, Change>,
) -> Result<()> {
    let old: BTreeSet<_> = before.names(path)?.into_iter().collect();
    let new: BTreeSet<_> = after.names(path)?.into_iter().collect();
    for name in old.union(&new) {
        let path = path.join(name);
        match (old.contains(name), new.contains(name)) {
            (true, false) => {
                changed.insert(path, Change::Deleted);
            }
            (false, _) => add_all(after, &path, changed)?,
            (true, true) => {
                if differs(before, after, &path)? {
                    changed.insert(path.clone(), Change::Changed);
                }
                let (Some(b), Some(a)) = (before.stat(&path)?, after.stat(&path)?) else {
                    continue;
                };
                match (is_directory(&b), is_directory(&a)) {
                    (true, true) => directory(before, after, &path, changed)?,
                    (false, true) => add_all(after, &path, changed)?,
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

fn add_all(after: &Tree, path: &Path, changed: &mut BTreeMap<PathBuf, Change>) -> Result<()> {
    changed.insert(path.to_owned(), Change::Changed);
    let Some(stat) = after.stat(path)? else {
        return Ok(());
    };
    if is_directory(&stat) {
        after.walk(path, &mut |path, _| {
            changed.insert(path.to_owned(), Change::Changed);
            Ok(true)
        })?;
    }
    Ok(())
}

/// Whether the file at `path` differs; for a directory, without its content.
pub fn differs(before: &Tree, after: &Tree, path: &Path) -> Result<bool> {
    let (Some(b), Some(a)) = (before.stat(path)?, after.stat(path)?) else {
        return Ok(true);
    };
    if !same_type(&b, &a) || Metadata::read(before, path, &b)? != Metadata::read(after, path, &a)? {
        return Ok(true);
    }
    Ok(match file_type(&a) {
        FileType::RegularFile => {
            a.st_size != b.st_size
                || !same_content(before, after, path).with_context(|| format!("{path:?}"))?
        }
        FileType::Symlink => before.link(path)? != after.link(path)?,
        FileType::CharacterDevice | FileType::BlockDevice => a.st_rdev != b.st_rdev,
        _ => false,
    })
}

fn same_content(before: &Tree, after: &Tree, path: &Path) -> Result<bool> {
    let (mut b, mut a) = (before.file(path)?, after.file(path)?);
    let (mut old, mut new) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let length = a.read(&mut new).context("read")?;
        if length == 0 {
            return Ok(true);
        }
        if b.read_exact(&mut old[..length]).is_err() || old[..length] != new[..length] {
            return Ok(false);
        }
    }
}

fn is_directory(stat: &Stat) -> bool {
    file_type(stat) == FileType::Directory
}

/// Adds the other names of every changed file, and all names of files whose set
/// of names has changed.
fn together(before: &Tree, after: &Tree, changed: &mut BTreeMap<PathBuf, Change>) -> Result<()> {
    let (old, new) = (names_of_files(before)?, names_of_files(after)?);
    for (path, names) in &new {
        let moved = old.get(path).map_or(1, BTreeSet::len) != names.len()
            || old.get(path).is_some_and(|old| old != names);
        if moved || names.iter().any(|name| changed.contains_key(name)) {
            changed.extend(names.iter().map(|name| (name.clone(), Change::Changed)));
        }
    }
    // Files that had several names and have one now.
    for path in old.keys() {
        if !new.contains_key(path) && after.stat(path)?.is_some() {
            changed.insert(path.clone(), Change::Changed);
        }
    }
    Ok(())
}

/// For every path with more than one name, all names of its file.
fn names_of_files(tree: &Tree) -> Result<HashMap<PathBuf, BTreeSet<PathBuf>>> {
    let mut files: HashMap<(u64, u64), BTreeSet<PathBuf>> = HashMap::new();
    tree.walk(Path::new(""), &mut |path, stat| {
        if stat.st_nlink > 1 && !is_directory(stat) {
            files
                .entry((stat.st_dev, stat.st_ino))
                .or_default()
                .insert(path.to_owned());
        }
        Ok(true)
    })?;
    let mut by_path = HashMap::new();
    for names in files.into_values().filter(|names| names.len() > 1) {
        for name in &names {
            by_path.insert(name.clone(), names.clone());
        }
    }
    Ok(by_path)
}

fn with_directories(changed: &mut BTreeMap<PathBuf, Change>) {
    let above: BTreeSet<PathBuf> = changed
        .keys()
        .flat_map(|path| path.ancestors().skip(1).map(Path::to_owned))
        .collect();
    for directory in above {
        changed.entry(directory).or_insert(Change::Changed);
    }
}
