//! The table of the files that the kernel knows.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use fuser::FileType;
use rustix::io::Errno;

use crate::beneath::Result;
use crate::inode::{Identity, Key, Numbers};
use crate::node::{Dir, Entered, Io, Node, ROOT};

/// The first of the node ids that are not the file's inode number, because
/// another node with that number is still in use.
const SPLIT: u64 = 1 << 63;

/// The table of all nodes.
pub(crate) struct Nodes {
    pub(crate) numbers: Numbers,
    nodes: HashMap<u64, Node>,
    /// The ids of nodes by inode number, where the two differ.
    split: HashMap<u64, u64>,
    next_split: u64,
}

impl Nodes {
    /// A table with only the root.
    pub(crate) fn new(root: Entered) -> Self {
        let mut nodes = Nodes {
            numbers: Numbers::default(),
            nodes: HashMap::new(),
            split: HashMap::new(),
            next_split: SPLIT,
        };
        nodes.nodes.insert(ROOT, Node::new(root));
        nodes
    }

    /// The node with this id.
    ///
    /// # Errors
    /// `ESTALE` if there is none: the kernel then looks the name up again.
    pub(crate) fn get(&self, id: u64) -> Result<&Node> {
        self.nodes.get(&id).ok_or(Errno::STALE)
    }

    /// The node with this id, for a change.
    pub(crate) fn get_mut(&mut self, id: u64) -> Result<&mut Node> {
        self.nodes.get_mut(&id).ok_or(Errno::STALE)
    }

    /// A directory, as a place in its branches.
    ///
    /// # Errors
    /// `ENOENT` if it has been removed, `ENOTDIR` for other files.
    pub(crate) fn dir(&self, id: u64) -> Result<Dir> {
        let node = self.get(id)?;
        if node.kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        Ok(Dir {
            id,
            path: self.path(id)?,
            layers: node.layers.clone(),
            floor: node.floor,
        })
    }

    /// The path of a file below each branch's root, by the latest of its names.
    ///
    /// # Errors
    /// `ENOENT` if it has no name left.
    pub(crate) fn path(&self, id: u64) -> Result<PathBuf> {
        let mut names = Vec::new();
        let mut at = id;
        while at != ROOT {
            let (parent, name) = self.name(at)?;
            names.push(name);
            at = parent;
        }
        Ok(names.iter().rev().collect())
    }

    /// The latest name of a file, and the directory that has it.
    ///
    /// # Errors
    /// `ENOENT` if it has no name left.
    pub(crate) fn name(&self, id: u64) -> Result<(u64, &OsStr)> {
        let names = &self.get(id)?.names;
        let (parent, name) = names.last().ok_or(Errno::NOENT)?;
        Ok((*parent, name))
    }

    /// All paths of a file, the latest first.
    pub(crate) fn paths(&self, id: u64) -> Result<Vec<PathBuf>> {
        let names = &self.get(id)?.names;
        let path = |(parent, name): &(u64, OsString)| Some(self.path(*parent).ok()?.join(name));
        Ok(names.iter().rev().filter_map(path).collect())
    }

    /// Records that the kernel learns of a file by this name, and returns the
    /// id of its node.
    pub(crate) fn enter(&mut self, parent: u64, name: &OsStr, found: Entered) -> u64 {
        let id = self.id_for(&found);
        let node = self
            .nodes
            .entry(id)
            .or_insert_with(|| Node::new_ref(&found));
        node.lookups += 1;
        node.detached = None;
        node.layers = found.layers;
        node.key = found.key;
        node.floor = found.floor;
        let named = |(p, n): &(u64, OsString)| *p == parent && n == name;
        if node.kind == FileType::Directory && !node.names.iter().any(named) {
            // A directory has one name: the old one is gone.
            let old = std::mem::take(&mut node.names);
            old.into_iter().for_each(|(parent, _)| self.unref(parent));
        }
        self.add_name(id, parent, name);
        id
    }

    /// The id of the node for a file: its inode number, unless a node with that
    /// number is in use for a file that the kernel must not confuse with it.
    fn id_for(&mut self, found: &Entered) -> u64 {
        let ino = found.identity.ino;
        let id = self.split.get(&ino).copied().unwrap_or(ino);
        let Some(node) = self.nodes.get(&id) else {
            return id;
        };
        let other = node.kind != found.kind
            || node.identity != found.identity
            || (node.detached.is_some() && node.key != found.key)
            || matches!(node.io, Io::Passed(_, open) if open != found.key);
        if !other {
            return id;
        }
        self.next_split += 1;
        self.split.insert(ino, self.next_split);
        self.next_split
    }

    /// Adds a name to a node, as the latest.
    pub(crate) fn add_name(&mut self, id: u64, parent: u64, name: &OsStr) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let named = |(p, n): &(u64, OsString)| *p == parent && n == name;
        if let Some(at) = node.names.iter().position(named) {
            let latest = node.names.remove(at);
            node.names.push(latest);
            return;
        }
        node.names.push((parent, name.to_owned()));
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children += 1;
        }
    }

    /// Removes a name of a node, and returns whether it has others left.
    pub(crate) fn remove_name(&mut self, id: u64, parent: u64, name: &OsStr) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else {
            return false;
        };
        let named = |(p, n): &(u64, OsString)| *p == parent && n == name;
        let Some(at) = node.names.iter().position(named) else {
            return !node.names.is_empty();
        };
        node.names.remove(at);
        let left = !node.names.is_empty();
        self.unref(parent);
        left
    }

    /// The node that the kernel knows by a name, if any.
    pub(crate) fn child(&self, parent: u64, name: &OsStr, identity: Identity) -> Option<u64> {
        let id = self.split.get(&identity.ino).copied();
        let id = id.unwrap_or(identity.ino);
        let named = |(p, n): &(u64, OsString)| *p == parent && n == name;
        let node = self.nodes.get(&id)?;
        node.names.iter().any(named).then_some(id)
    }

    /// Records where a file is after it was copied up.
    pub(crate) fn moved(&mut self, id: u64, key: Key, layers: Vec<usize>) -> Result<()> {
        let node = self.get_mut(id)?;
        node.key = key;
        node.layers = layers;
        Ok(())
    }

    /// Counts an open handle.
    pub(crate) fn opened(&mut self, id: u64, io: Io) -> Result<()> {
        let node = self.get_mut(id)?;
        node.handles += 1;
        node.io = io;
        Ok(())
    }

    /// Counts a closed handle.
    pub(crate) fn closed(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.handles = node.handles.saturating_sub(1);
            if node.handles == 0 {
                node.io = Io::Closed;
            }
        }
        self.drop_unused(id);
    }

    /// Subtracts the lookups that the kernel has forgotten.
    pub(crate) fn forget(&mut self, id: u64, lookups: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.lookups = node.lookups.saturating_sub(lookups);
        }
        self.drop_unused(id);
    }

    fn unref(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.children = node.children.saturating_sub(1);
        }
        self.drop_unused(id);
    }

    fn drop_unused(&mut self, id: u64) {
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            let unused = |node: &Node| node.lookups + node.children + node.handles == 0;
            if id == ROOT || !self.nodes.get(&id).is_some_and(unused) {
                continue;
            }
            let Some(node) = self.nodes.remove(&id) else {
                continue;
            };
            if self.split.get(&node.identity.ino) == Some(&id) {
                self.split.remove(&node.identity.ino);
            }
            for (parent, _) in node.names {
                if let Some(node) = self.nodes.get_mut(&parent) {
                    node.children = node.children.saturating_sub(1);
                }
                waiting.push(parent);
            }
        }
    }
}
