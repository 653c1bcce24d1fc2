//! Lookup of a name in the stack: the highest branch wins, directories merge,
//! whiteouts and opaque directories end the search.

use std::ffi::OsStr;

use fuser::FileType;
use rustix::fs::Statx;

use crate::Union;
use crate::beneath::kind;
use crate::beneath::{Result, optional, stat_at};
use crate::node::{Dir, Entered, lock};
use crate::plink::Origin;
use crate::whiteout;

/// The result of a lookup.
pub(crate) struct Found {
    /// The branches that have the file, with its attributes there, the highest
    /// first; none if there is no such file. More than one only for a
    /// directory.
    pub(crate) layers: Vec<(usize, Statx)>,
    /// The branch whose whiteout of the name ends the search.
    pub(crate) whiteout: Option<usize>,
    /// The lowest branch that counts.
    pub(crate) floor: usize,
    /// The name as one of several of its file, if it is one. The file itself is
    /// in another branch if it was copied up by another of its names.
    pub(crate) original: Option<Original>,
}

/// One of several names of a file.
#[derive(Clone, Copy)]
pub(crate) struct Original {
    pub(crate) branch: usize,
    pub(crate) origin: Origin,
    pub(crate) names: u32,
}

impl Found {
    /// The branch that has the name.
    pub(crate) fn branch(&self) -> Option<usize> {
        let original = self.original.map(|original| original.branch);
        original.or(self.layers.first().map(|(branch, _)| *branch))
    }

    /// The highest branch that has the file, with its attributes there.
    pub(crate) fn top(&self) -> Option<(usize, &Statx)> {
        self.layers.first().map(|(branch, stat)| (*branch, stat))
    }

    /// Whether the file is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        let dir = |(_, stat): (usize, &Statx)| kind(stat) == FileType::Directory;
        self.top().is_some_and(dir)
    }
}

impl Union {
    /// Looks up `name` in all branches of a directory. A directory that has
    /// vanished from one of them counts as empty there.
    pub(crate) fn find(&self, dir: &Dir, name: &OsStr) -> Result<Found> {
        self.find_from(dir, name, 0)
    }

    /// Whether a branch below `branch` has the name, which would show if
    /// nothing above hid it.
    pub(crate) fn exists_below(&self, dir: &Dir, name: &OsStr, branch: usize) -> Result<bool> {
        Ok(!self.find_from(dir, name, branch + 1)?.layers.is_empty())
    }

    fn find_from(&self, dir: &Dir, name: &OsStr, highest: usize) -> Result<Found> {
        let mut found = Found {
            layers: Vec::new(),
            whiteout: None,
            floor: dir.floor,
            original: None,
        };
        for &index in dir.layers.iter().filter(|&&index| index >= highest) {
            let branch = &self.branches[index];
            let Some(parent) = optional(branch.dir(&dir.path))? else {
                continue;
            };
            let Some(stat) = optional(stat_at(&parent, name))? else {
                if branch.whiteouts && whiteout::exists(&parent, name)? {
                    found.whiteout = Some(index);
                    found.floor = index;
                    break;
                }
                continue;
            };
            if kind(&stat) != FileType::Directory {
                // A directory above it hides it.
                if found.layers.is_empty() {
                    found.original = self.origin(index, &stat).map(|origin| Original {
                        branch: index,
                        origin,
                        names: stat.stx_nlink,
                    });
                    let copy = match found.original {
                        Some(original) => self.linked(original.origin)?,
                        None => None,
                    };
                    found.layers.push(copy.unwrap_or((index, stat)));
                }
                found.floor = index;
                break;
            }
            found.layers.push((index, stat));
            // A name and its own whiteout in one branch: an interrupted change.
            // The whiteout hides the branches below.
            let ends = branch.whiteouts
                && (whiteout::is_opaque(&parent, name)? || whiteout::exists(&parent, name)?);
            if ends {
                found.floor = index;
                break;
            }
        }
        Ok(found)
    }

    /// Records that the kernel knows what was found by its name, and returns
    /// the id of its node and its attributes in the highest branch.
    ///
    /// # Errors
    /// `ENOENT` if nothing was found, `ENAMETOOLONG` if the name is too long
    /// for the union.
    pub(crate) fn enter(&self, parent: u64, name: &OsStr, found: &Found) -> Result<(u64, Statx)> {
        let mut nodes = lock(&self.nodes);
        let (branch, stat) = found.top().ok_or(whiteout::absent(name))?;
        let key = crate::inode::Key::of(branch, stat);
        let dev = self.devices[branch];
        let entered = Entered {
            identity: nodes.numbers.identity(key, stat, dev),
            kind: kind(stat),
            layers: found.layers.iter().map(|(branch, _)| *branch).collect(),
            key,
            floor: found.floor,
        };
        let id = nodes.enter(parent, name, entered);
        drop(nodes);
        let mut stat = merged(found, *stat);
        if kind(&stat) != FileType::Directory {
            stat.stx_nlink = self.visible_links(branch, &stat);
        }
        Ok((id, stat))
    }

    /// The id of the node that the kernel knows by this name, if any.
    pub(crate) fn known(&self, parent: u64, name: &OsStr, found: &Found) -> Option<u64> {
        let mut nodes = lock(&self.nodes);
        let (branch, stat) = found.top()?;
        let key = crate::inode::Key::of(branch, stat);
        let identity = nodes.numbers.identity(key, stat, self.devices[branch]);
        nodes.child(parent, name, identity)
    }
}

/// The attributes of a merged directory. The link count is the highest possible
/// one, as in AUFS: programs take it for the most subdirectories that they may
/// find.
pub(crate) fn merged(found: &Found, mut top: Statx) -> Statx {
    for (_, stat) in found.layers.iter().skip(1) {
        top.stx_nlink += stat.stx_nlink.saturating_sub(2);
    }
    top
}
