//! Where the entries of an archive go: names of the archive become places of
//! the layer. Links on the way are followed by hand, so that `/` and `..` in
//! them end at the layer's root, and the place that comes out is then opened
//! without following any (openat2(2), `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`).
//! Nobody else writes to the layer meanwhile; if somebody did, the second would
//! stop it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, chmodat, mkdirat};

use super::is_whiteout;
use crate::tree::remove::remove_at;
use crate::tree::{Place, Tree, file_type};

/// How many links the kernel follows in one path (path_resolution(7)).
const LINKS: usize = 40;

/// Finds places, and remembers the last directory: archives go through a tree
/// directory by directory.
pub struct Places<'a> {
    tree: &'a Tree,
    last: Option<Last>,
}

struct Last {
    named: PathBuf,
    real: PathBuf,
    directory: OwnedFd,
}

/// What is to be done about directories that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// They are made.
    Make,
    /// Then there is no such place.
    Refuse,
}

impl<'a> Places<'a> {
    /// The places of `tree`.
    pub fn new(tree: &'a Tree) -> Self {
        Places { tree, last: None }
    }

    /// The place that `named` means, which is not the root, and its path
    /// without links. Adds to `made` the directories that had to be made.
    ///
    /// # Errors
    /// If something on the way is no directory; those of mkdir(2).
    pub fn find(
        &mut self,
        named: &Path,
        missing: Missing,
        made: &mut Vec<PathBuf>,
    ) -> Result<(Place, PathBuf)> {
        let name = named.file_name().context("the root of the layer")?;
        let parent = named.parent().unwrap_or(Path::new(""));
        let last = match self.last.take() {
            Some(last) if last.named == parent => last,
            _ => self.open(parent, missing, made)?,
        };
        let place = Place {
            directory: last.directory.try_clone().context("dup")?,
            name: name.to_owned(),
        };
        let real = last.real.join(name);
        self.last = Some(last);
        Ok((place, real))
    }

    /// To be called when a directory or a link has gone: names may mean other
    /// places from now on.
    pub fn forget(&mut self) {
        self.last = None;
    }

    fn open(&self, named: &Path, missing: Missing, made: &mut Vec<PathBuf>) -> Result<Last> {
        let real = self.follow(named, missing, made)?;
        Ok(Last {
            directory: self.tree.directory(&real)?,
            named: named.to_owned(),
            real,
        })
    }

    fn follow(&self, named: &Path, missing: Missing, made: &mut Vec<PathBuf>) -> Result<PathBuf> {
        let mut names: VecDeque<OsString> = named.iter().map(OsStr::to_owned).collect();
        let mut real = PathBuf::new();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            match name.as_encoded_bytes() {
                b"/" => {
                    real = PathBuf::new();
                    continue;
                }
                b"." => continue,
                b".." => {
                    // As at the root of a file system: it has no parent.
                    real.pop();
                    continue;
                }
                _ => real.push(&name),
            }
            let stat = self.tree.stat(&real)?;
            let there = match stat {
                // The archive has taken away what it now puts something into.
                Some(stat) if missing == Missing::Make && is_whiteout(&stat) => {
                    let place = self.tree.place(&real)?;
                    remove_at(&place.directory, &place.name)?;
                    None
                }
                stat => stat.map(|stat| file_type(&stat)),
            };
            match there {
                Some(FileType::Directory) => {}
                Some(FileType::Symlink) => {
                    links += 1;
                    if links > LINKS {
                        bail!("{named:?} goes through more than {LINKS} links: refused");
                    }
                    let target = PathBuf::from(self.tree.link(&real)?);
                    real.pop();
                    for name in target.iter().rev() {
                        names.push_front(name.to_owned());
                    }
                }
                Some(_) => bail!("{real:?} is no directory"),
                None if missing == Missing::Refuse => bail!("there is no {real:?}"),
                None => {
                    self.make(&real)?;
                    made.push(real.clone());
                }
            }
        }
        Ok(real)
    }

    fn make(&self, path: &Path) -> Result<()> {
        let place = self.tree.place(path)?;
        mkdirat(&place.directory, &place.name, Mode::RWXU)
            .with_context(|| format!("mkdir({path:?})"))?;
        // Whatever the umask says.
        let mode = Mode::from_raw_mode(0o755);
        chmodat(&place.directory, &place.name, mode, AtFlags::empty())
            .with_context(|| format!("chmod({path:?}, 755)"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_no_further_than_the_root() {
        let layer = tempfile::tempdir().unwrap();
        let at = |name: &str| layer.path().join(name);
        fs::create_dir_all(at("usr/lib")).unwrap();
        symlink("usr/lib", at("lib")).unwrap();
        symlink("/usr", at("absolute")).unwrap();
        symlink("../../../../usr", at("usr/up")).unwrap();
        symlink("loop", at("loop")).unwrap();
        fs::write(at("file"), "").unwrap();
        let tree = Tree::open(layer.path()).unwrap();
        let mut places = Places::new(&tree);
        let mut real = |name: &str, missing| {
            let found = places.find(Path::new(name), missing, &mut Vec::new());
            found.map(|(_, real)| real)
        };
        for (named, expected) in [
            ("lib/x", "usr/lib/x"),
            ("absolute/lib/x", "usr/lib/x"),
            ("usr/up/up/lib/x", "usr/lib/x"),
            ("x", "x"),
        ] {
            assert_eq!(real(named, Missing::Refuse).unwrap(), Path::new(expected));
        }
        assert!(real("loop/x", Missing::Make).is_err());
        assert!(real("file/x", Missing::Make).is_err());
        assert!(real("new/x", Missing::Refuse).is_err());
        assert_eq!(
            real("lib/new/x", Missing::Make).unwrap(),
            Path::new("usr/lib/new/x")
        );
        assert!(at("usr/lib/new").is_dir());
    }
}
