//! Pseudo-links: hard links of a branch that is not written stay hard links of
//! one another when one of them is copied up.
//!
//! The copy gets one more name, in `.wh..wh.plnk` of its branch, which
//! identifies its original. A name that still leads to the original then leads
//! to the copy. Beside it a symbolic link holds two numbers as its target: how
//! many names the original has, and how many of them are covered, that is,
//! hidden or now names of the copy.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, Statx, linkat, mkdirat, readlinkat, symlinkat, unlinkat};
use rustix::io::Errno;

use crate::Union;
use crate::beneath::{Result, magic, optional, stat_at, stat_fd};
use crate::inode::{Key, birth};
use crate::node::lock;
use crate::whiteout;

/// The directory of pseudo-links, in a branch's root.
const DIRECTORY: &str = ".wh..wh.plnk";
/// The suffix of the symbolic link with the numbers.
const COUNT: &str = ".n";

/// The lasting identity of a file with several names. Branches are counted from
/// the bottom: those below the written one are the same in each mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    from_bottom: usize,
    ino: u64,
    birth: u64,
}

impl Origin {
    fn name(&self) -> String {
        format!("{}.{}.{}", self.from_bottom, self.ino, self.birth)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut numbers = name.split('.').map(|number| number.parse().ok());
        let mut next = || numbers.next()?;
        Some(Origin {
            from_bottom: usize::try_from(next()?).ok()?,
            ino: next()?,
            birth: next()?,
        })
    }
}

struct Links {
    /// The copy, and the branch that has it.
    copy: Option<(usize, Key)>,
    /// The number of names of the original, and how many of them are covered.
    names: u32,
    covered: u32,
}

/// All known originals with several names.
#[derive(Default)]
pub(crate) struct Plinks {
    links: HashMap<Origin, Links>,
    copies: HashMap<Key, Origin>,
}

impl Union {
    /// The identity of a file as an original, if it has several names.
    pub(crate) fn origin(&self, branch: usize, stat: &Statx) -> Option<Origin> {
        (stat.stx_nlink > 1).then(|| Origin {
            from_bottom: self.branches.len() - branch,
            ino: stat.stx_ino,
            birth: birth(stat),
        })
    }

    /// Reads the pseudo-links of earlier mounts.
    pub(crate) fn load_plinks(&self) -> Result<()> {
        for (branch, place) in self.branches.iter().enumerate() {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            let at = Path::new(DIRECTORY);
            let Some(dir) = optional(place.open_at(at, flags))?.filter(|_| place.writable()) else {
                continue;
            };
            for (name, _) in whiteout::names(&dir)? {
                let origin = name
                    .to_str()
                    .and_then(|name| match name.strip_suffix(COUNT) {
                        Some(origin) => Origin::parse(origin),
                        None => None,
                    });
                if let Some(origin) = origin {
                    self.load(branch, &dir, origin)?;
                }
            }
        }
        Ok(())
    }

    fn load(&self, branch: usize, dir: &OwnedFd, origin: Origin) -> Result<()> {
        let count = readlinkat(dir, origin.name() + COUNT, Vec::new())?;
        let numbers = count.to_str().ok().and_then(|text| {
            let (names, covered) = text.split_once('/')?;
            Some((names.parse().ok()?, covered.parse().ok()?))
        });
        let Some((names, covered)) = numbers else {
            return Ok(());
        };
        let copy = optional(stat_at(dir, OsStr::new(&origin.name())))?;
        let copy = copy.map(|stat| (branch, Key::of(branch, &stat)));
        let mut plinks = lock(&self.plinks);
        if let Some((_, key)) = copy {
            plinks.copies.insert(key, origin);
        }
        let links = Links {
            copy,
            names,
            covered,
        };
        plinks.links.insert(origin, links);
        Ok(())
    }

    /// Whether there are copies of files with several names.
    pub(crate) fn has_plinks(&self) -> bool {
        !lock(&self.plinks).copies.is_empty()
    }

    /// The copy that a name of the original leads to, if there is one.
    pub(crate) fn linked(&self, origin: Origin) -> Result<Option<(usize, Statx)>> {
        let copy = lock(&self.plinks).links.get(&origin).and_then(|l| l.copy);
        let Some((branch, _)) = copy else {
            return Ok(None);
        };
        let place = optional(self.branches[branch].place(&path(&origin)))?;
        place
            .map(|place| Ok((branch, stat_fd(&place)?)))
            .transpose()
    }

    /// The path of a copy by its pseudo-link, whatever names it has lost.
    pub(crate) fn plink_path(&self, key: Key) -> Option<PathBuf> {
        lock(&self.plinks).copies.get(&key).map(path)
    }

    /// Makes the pseudo-link of the copy that is `name` in the root of
    /// `branch`.
    pub(crate) fn make_plink(&self, origin: Origin, branch: usize, name: &OsStr) -> Result<()> {
        let root = &self.branches[branch].root;
        let dir = self.plink_dir(branch)?;
        optional(unlinkat(&dir, origin.name(), AtFlags::empty()))?;
        linkat(root, name, &dir, origin.name(), AtFlags::empty())
    }

    /// Records a copy that has taken one name of the original.
    pub(crate) fn copied(&self, origin: Origin, names: u32, copy: (usize, Key)) -> Result<()> {
        let mut plinks = lock(&self.plinks);
        plinks.copies.insert(copy.1, origin);
        let links = plinks.links.entry(origin).or_insert(Links {
            copy: None,
            names,
            covered: 0,
        });
        links.copy = Some(copy);
        drop(plinks);
        self.cover(origin, names)
    }

    /// Records that a name of an original with `names` names is hidden, or
    /// belongs to the copy.
    pub(crate) fn cover(&self, origin: Origin, names: u32) -> Result<()> {
        let mut plinks = lock(&self.plinks);
        let links = plinks.links.entry(origin).or_insert(Links {
            copy: None,
            names,
            covered: 0,
        });
        links.covered += 1;
        let count = format!("{}/{}", links.names, links.covered);
        let branch = links.copy.map(|(branch, _)| branch);
        drop(plinks);
        let below = self.branches.len() - origin.from_bottom;
        let Some(branch) = branch.or_else(|| self.writable(below).next()) else {
            return Ok(());
        };
        let dir = self.plink_dir(branch)?;
        let name = origin.name() + COUNT;
        optional(unlinkat(&dir, &name, AtFlags::empty()))?;
        symlinkat(count, &dir, &name)
    }

    /// Makes `name` a real name of the copy, in the copy's branch.
    pub(crate) fn make_real(&self, place: &OwnedFd, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        linkat(CWD, magic(place), dir, name, AtFlags::SYMLINK_FOLLOW)
    }

    /// Removes a copy that has no name left but the pseudo-link.
    pub(crate) fn drop_plink(&self, key: Key) -> Result<()> {
        let Some(at) = self.plink_path(key) else {
            return Ok(());
        };
        let Some(place) = optional(self.branches[key.branch].place(&at))? else {
            return Ok(());
        };
        if self.visible_links(key.branch, &stat_fd(&place)?) > 0 {
            return Ok(());
        }
        let mut plinks = lock(&self.plinks);
        let Some(origin) = plinks.copies.remove(&key) else {
            return Ok(());
        };
        plinks
            .links
            .entry(origin)
            .and_modify(|links| links.copy = None);
        drop(plinks);
        let root = &self.branches[key.branch].root;
        optional(unlinkat(root, at, AtFlags::empty())).map(drop)
    }

    /// The number of visible names of a file.
    pub(crate) fn visible_links(&self, branch: usize, stat: &Statx) -> u32 {
        let plinks = lock(&self.plinks);
        if plinks.links.is_empty() {
            return stat.stx_nlink;
        }
        let copied = plinks.copies.get(&Key::of(branch, stat));
        let origin = copied.copied().or_else(|| self.origin(branch, stat));
        let Some(links) = origin.and_then(|origin| plinks.links.get(&origin)) else {
            return stat.stx_nlink;
        };
        let uncovered = links.names.saturating_sub(links.covered);
        match copied {
            // One name is the pseudo-link.
            Some(_) => stat.stx_nlink.saturating_sub(1) + uncovered,
            None => uncovered,
        }
    }

    fn plink_dir(&self, branch: usize) -> Result<OwnedFd> {
        let root = &self.branches[branch].root;
        match mkdirat(root, DIRECTORY, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        self.branches[branch].dir(Path::new(DIRECTORY))
    }
}

fn path(origin: &Origin) -> PathBuf {
    let name = OsString::from(origin.name());
    Path::new(OsStr::from_bytes(DIRECTORY.as_bytes())).join(name)
}

#[cfg(test)]
mod tests {
    use super::Origin;

    #[test]
    fn a_pseudo_link_tells_what_it_is_a_copy_of() {
        let origin = Origin {
            from_bottom: 2,
            ino: 17,
            birth: u64::MAX,
        };
        assert_eq!(Origin::parse(&origin.name()), Some(origin));
        assert_eq!(Origin::parse("2.x.1"), None);
        assert_eq!(Origin::parse("2"), None);
    }
}
