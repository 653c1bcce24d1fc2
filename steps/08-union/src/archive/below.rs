//! The finished layers below a layer, seen as the one tree that a container
//! would see of them.
//!
//! Nothing writes to them any more, so that results are cached.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{FileType, Stat};

use super::{Marks, PREFIX, is_opaque, is_whited_out, is_whiteout};
use crate::tree::{Tree, file_type};

/// The names of every file with several names in a layer, by device and inode.
type Links = HashMap<(u64, u64), Vec<PathBuf>>;

/// The layers below, the nearest first.
#[derive(Debug)]
pub(super) struct Below<'a> {
    trees: &'a [Tree],
    marks: Marks,
    /// The layers of which each directory that was looked up is merged.
    directories: HashMap<PathBuf, Vec<usize>>,
    links: HashMap<usize, Links>,
}

/// A file of a layer below.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lower {
    /// The index of its layer; 0 is the nearest.
    pub layer: usize,
    /// Its status (stat(2)).
    pub stat: Stat,
}

impl<'a> Below<'a> {
    /// The merged tree of `trees`, which mark deletions by `marks`.
    pub(super) fn new(trees: &'a [Tree], marks: Marks) -> Self {
        Below {
            trees,
            marks,
            directories: HashMap::new(),
            links: HashMap::new(),
        }
    }

    /// The tree of a layer.
    pub(super) fn tree(&self, layer: usize) -> &'a Tree {
        &self.trees[layer]
    }

    /// The layers of which the directory `path` is merged, the nearest first;
    /// none if there is no such directory.
    pub(super) fn directory(&mut self, path: &Path) -> Result<Vec<usize>> {
        if let Some(merged) = self.directories.get(path) {
            return Ok(merged.clone());
        }
        let (_, merged) = self.look(path)?;
        self.directories.insert(path.to_owned(), merged.clone());
        Ok(merged)
    }

    /// The file at `path`. No directory of the path may be a symbolic link.
    pub(super) fn find(&mut self, path: &Path) -> Result<Option<Lower>> {
        Ok(self.look(path)?.0)
    }

    fn look(&mut self, path: &Path) -> Result<(Option<Lower>, Vec<usize>)> {
        let Some(name) = path.file_name() else {
            // Overlay and AUFS merge the roots of layers, opaque or not.
            return Ok((None, (0..self.trees.len()).collect()));
        };
        let (mut nearest, mut merged) = (None, Vec::new());
        if self.marks == Marks::Aufs && name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            return Ok((None, merged));
        }
        for layer in self.directory(path.parent().unwrap_or(Path::new("")))? {
            let tree = &self.trees[layer];
            if is_whited_out(tree, self.marks, path)? {
                break;
            }
            let Some(stat) = tree.stat(path)? else {
                continue;
            };
            let is_directory = file_type(&stat) == FileType::Directory;
            if is_directory || nearest.is_none() {
                nearest.get_or_insert(Lower { layer, stat });
            }
            if !is_directory {
                break;
            }
            merged.push(layer);
            if is_opaque(tree, self.marks, path)? {
                break;
            }
        }
        Ok((nearest, merged))
    }

    /// The names of the file `lower` in its layer, visible or not.
    pub(super) fn names(&mut self, lower: &Lower) -> Result<Vec<PathBuf>> {
        let links = match self.links.entry(lower.layer) {
            Entry::Occupied(links) => links.into_mut(),
            Entry::Vacant(free) => free.insert(links(&self.trees[lower.layer])?),
        };
        let file = (lower.stat.st_dev, lower.stat.st_ino);
        Ok(links.get(&file).cloned().unwrap_or_default())
    }
}

fn links(tree: &Tree) -> Result<Links> {
    let mut links = Links::new();
    tree.walk(Path::new(""), &mut |path, stat| {
        let has_others = stat.st_nlink > 1 && file_type(stat) != FileType::Directory;
        if has_others && !is_whiteout(stat) {
            let names = links.entry((stat.st_dev, stat.st_ino)).or_default();
            names.push(path.to_owned());
        }
        Ok(true)
    })?;
    Ok(links)
}
