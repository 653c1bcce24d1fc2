//! Where the files go: the rules of `COPY` for its destination.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use engine::image::source::decompress::decompress;
use kit::warn;
use rustix::fs::{FileType, Mode, OFlags};

use crate::context::ignore::Ignore;
use crate::copy::digest::Stamp;
use crate::copy::look::Look;
use crate::copy::owner::{Chmod, owner};
use crate::copy::stage::{Directory, Links, Place, Stage};
use crate::copy::tree::{Entry, Item, Tree, Visitor, clean, open_content, target};
use crate::copy::unpack::{Added, is_archive, unpack};
use crate::copy::{Copied, Job, Source};

/// A destination as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The path from the root.
    pub path: PathBuf,
    /// Whether it can only be a directory.
    pub is_directory: bool,
}

impl Destination {
    /// Reads a destination, relative to the working directory.
    pub fn new(text: &str, workdir: &Path) -> Self {
        let end = text.rsplit('/').next().unwrap_or_default();
        Destination {
            path: clean(&workdir.join(text)),
            is_directory: matches!(end, "" | "." | ".."),
        }
    }
}

/// Carries out a job: `tree` holds its sources, `root` becomes the layer's.
pub fn put(job: &Job, tree: Option<&Tree>, root: OwnedFd) -> Result<Copied> {
    ensure!(
        !job.destination.contains('\0'),
        "the destination has a NUL in it"
    );
    let links = match job.link {
        true => Links::Replaced,
        false => Links::Followed,
    };
    let mut stage = Stage::new(root, links, (0, 0), job.latest)?;
    let owner = job
        .chown
        .as_deref()
        .map(|text| owner(&stage, text).context("--chown"));
    let owner = owner.transpose()?;
    stage.makes_for(owner.unwrap_or((0, 0)));
    let exclude = match job.exclude.is_empty() {
        true => None,
        false => Some(Ignore::of(&job.exclude).context("--exclude")?),
    };
    let mut putting = Putting {
        to: Destination::new(&job.destination, &job.workdir),
        chmod: job.chmod.as_deref().map(Chmod::parse).transpose()?,
        owner,
        exclude,
        job,
        stage,
        stamp: Stamp::default(),
        above: Vec::new(),
        rename: None,
        links: HashMap::new(),
    };
    for source in &job.sources {
        putting.source(tree, source)?;
    }
    let stamp = putting.stamp.digest();
    let lost = putting.stage.has_lost();
    putting.stage.finish()?;
    // A layer does not change, and each mount of it has other numbers.
    let may_change = tree.is_some_and(Tree::may_change);
    let expected = job.stamp.as_ref().filter(|_| may_change);
    Ok(Copied {
        changed: expected.is_some_and(|expected| *expected != stamp),
        lost,
    })
}

struct Putting<'a> {
    job: &'a Job,
    to: Destination,
    owner: Option<(u32, u32)>,
    chmod: Option<Chmod>,
    exclude: Option<Ignore>,
    stage: Stage,
    stamp: Stamp,
    /// The directories of the walk, and whether they were made.
    above: Vec<(Directory, bool)>,
    /// The name that the next file gets, if that is not its own.
    rename: Option<OsString>,
    /// The first name of every file that has several.
    links: HashMap<(u64, u64), (PathBuf, OsString)>,
}

impl Putting<'_> {
    fn source(&mut self, tree: Option<&Tree>, source: &Source) -> Result<()> {
        match source {
            Source::Path(path) => {
                let tree = tree.context("there is no context to copy from")?;
                let items = tree.items(path, self.job.parents)?;
                if items.len() > 1 && !self.to.is_directory && !self.job.parents {
                    let files = items.iter().filter(|item| !item.found.is_directory());
                    let into = self.stage.is_directory(&self.to.path)?;
                    if files.count() > 1 && !into {
                        warn!(
                            "{path:?} stands for {} files, and only the last of them stays as \
                             {:?}: end it with a slash if it is to be a directory",
                            items.len(),
                            self.job.destination
                        );
                    }
                }
                for item in &items {
                    self.links.clear();
                    let path = Path::new("/").join(&item.found.path);
                    self.item(tree, item)
                        .with_context(|| format!("copy {:?}", path.to_string_lossy()))?;
                }
                Ok(())
            }
            Source::Text { name, content } => {
                let look = self.look(Look {
                    mode: 0o644,
                    owner: (0, 0),
                    mtime: now(),
                    xattrs: Default::default(),
                });
                let Place { directory, name } = self.file_at(OsStr::new(name))?;
                let file = self.stage.create(&directory, &name, content.len() as u64)?;
                std::io::Write::write_all(&mut &file, content.as_bytes()).context("write")?;
                self.stage.touch(&directory.path);
                self.stage.write(file.as_fd(), &look)
            }
            Source::Download {
                file,
                name,
                address,
                modified,
            } => {
                let mut from = File::open(file).with_context(|| format!("open {file:?}"))?;
                if self.job.unpack == Some(true) && is_archive(&mut from)? {
                    return self.unpack(&from).with_context(|| address.clone());
                }
                ensure!(
                    !self.to.is_directory || !name.is_empty(),
                    "cannot determine filename for {address}"
                );
                let look = self.look(Look {
                    mode: 0o600,
                    owner: (0, 0),
                    mtime: modified.map_or_else(now, |seconds| (seconds, 0)),
                    xattrs: Default::default(),
                });
                let size = from.metadata().context("fstat")?.len();
                let Place { directory, name } = self.file_at(OsStr::new(name))?;
                self.stage.copy(&directory, &name, &from, size, &look)?;
                self.stage.touch(&directory.path);
                Ok(())
            }
        }
    }

    // ANCHOR: item
    /// Copies a file to the destination, or the content of a directory into it.
    fn item(&mut self, tree: &Tree, item: &Item) -> Result<()> {
        let is_directory = item.found.is_directory();
        let unpacks = self.job.add && self.job.unpack.unwrap_or(true);
        if unpacks && item.found.kind() == FileType::RegularFile {
            let mut file = open_content(&item.found.file)?;
            if is_archive(&mut file)? {
                self.stamp.add(&item.found.path, &item.found.stat);
                return self.unpack(&file);
            }
        }
        if item.whole {
            return self.with_parents(tree, item);
        }
        if is_directory {
            let into = self.stage.directory(&self.to.path)?;
            self.stage.touch(&into.path);
            self.above.push((into, false));
            self.walk(tree, item)?;
            self.above.pop();
            return Ok(());
        }
        let Place { directory, name } = self.file_at(&item.name)?;
        self.stage.touch(&directory.path);
        self.above.push((directory, false));
        self.rename = Some(name);
        self.walk(tree, item)?;
        self.above.pop();
        Ok(())
    }

    /// The place for a file that is called `name` in its source: in a directory
    /// it keeps its name.
    fn file_at(&mut self, name: &OsStr) -> Result<Place> {
        if self.to.is_directory || self.stage.is_directory(&self.to.path)? {
            let directory = self.stage.directory(&self.to.path)?;
            let name = name.to_owned();
            return Ok(Place { directory, name });
        }
        self.stage.place(&self.to.path)
    }
    // ANCHOR_END: item

    fn with_parents(&mut self, tree: &Tree, item: &Item) -> Result<()> {
        let mut into = self.stage.directory(&self.to.path)?;
        self.stage.touch(&into.path);
        let depth = self.above.len();
        for (name, look) in &item.parents {
            let (next, made) = self.stage.enter(&into, name)?;
            if made {
                let look = Look {
                    owner: self.owner.unwrap_or(look.owner),
                    ..look.clone()
                };
                self.stage.write(next.file.as_fd(), &look)?;
            }
            into = next;
        }
        self.above.push((into, false));
        self.walk(tree, item)?;
        self.above.truncate(depth);
        Ok(())
    }

    fn walk(&mut self, tree: &Tree, item: &Item) -> Result<()> {
        let exclude = self.exclude.take();
        let walked = tree.walk(item, exclude.as_ref(), self);
        self.exclude = exclude;
        self.rename = None;
        walked
    }

    /// Unpacks an archive into the destination, whose files keep their owners
    /// and modes.
    fn unpack(&mut self, from: &File) -> Result<()> {
        let into = self.stage.directory(&self.to.path)?;
        let root = into.file.try_clone().context("dup")?;
        let mut stage = Stage::new(root, Links::Followed, (0, 0), self.job.latest)?;
        let from = decompress(from).context("unpack")?;
        unpack(&mut stage, from, &mut Added)?;
        stage.finish()
    }

    fn look(&self, look: Look) -> Look {
        self.look_of(look, FileType::RegularFile)
    }

    fn look_of(&self, mut look: Look, kind: FileType) -> Look {
        if let Some(owner) = self.owner {
            look.owner = owner;
        }
        if let Some(chmod) = &self.chmod {
            look.mode = chmod.apply(look.mode, kind == FileType::Directory);
        }
        look
    }

    fn at(&self) -> Result<Directory> {
        let (directory, _) = self.above.last().context("no directory")?;
        Ok(Directory {
            file: directory.file.try_clone().context("dup")?,
            path: directory.path.clone(),
        })
    }

    fn put(&mut self, entry: &Entry<'_>, name: &OsStr) -> Result<()> {
        self.stamp.add(entry.path, entry.stat);
        let at = self.at()?;
        let look = self.look_of(entry.look.clone(), entry.kind());
        if entry.stat.st_nlink > 1 {
            let key = (entry.stat.st_dev, entry.stat.st_ino);
            if let Some((directory, first)) = self.links.get(&key) {
                let other = self.stage.known(directory)?;
                return self.stage.link(&at, name, &other, first);
            }
            self.links.insert(key, (at.path.clone(), name.to_owned()));
        }
        match entry.kind() {
            FileType::RegularFile => {
                let from = open_content(&entry.file)?;
                let size = entry.stat.st_size as u64;
                self.stage.copy(&at, name, &from, size, &look)
            }
            FileType::Symlink => {
                let target = target(entry.file)?;
                self.stage.symlink(&at, name, &target, &look)
            }
            kind => self.stage.node(&at, name, kind, entry.stat.st_rdev, &look),
        }
    }
}

impl Visitor for Putting<'_> {
    fn enter(&mut self, entry: &Entry<'_>) -> Result<()> {
        self.stamp.add(entry.path, entry.stat);
        let at = self.at()?;
        let entered = self.stage.enter(&at, entry.name)?;
        self.above.push(entered);
        Ok(())
    }

    fn leave(&mut self, entry: &Entry<'_>) -> Result<()> {
        let (directory, made) = self.above.pop().context("no directory")?;
        if made {
            let look = self.look_of(entry.look.clone(), FileType::Directory);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let open = rustix::fs::openat(&directory.file, ".", flags, Mode::empty());
            return self.stage.write(open.context("open")?.as_fd(), &look);
        }
        self.stage.touch(&directory.path);
        Ok(())
    }

    fn file(&mut self, entry: &Entry<'_>) -> Result<()> {
        let name = self.rename.take();
        self.put(entry, name.as_deref().unwrap_or(entry.name))
    }

    fn odd(&mut self, path: &Path, what: &str) -> Result<()> {
        let shown = Path::new("/").join(path);
        warn!("{:?} is {what}, and is not copied", shown.to_string_lossy());
        Ok(())
    }
}

fn now() -> (i64, i64) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (now.as_secs() as i64, now.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_makes_a_directory() {
        let new = |text: &str| {
            let new = Destination::new(text, Path::new("/w"));
            (new.path.to_str().unwrap().to_owned(), new.is_directory)
        };
        assert_eq!(new("a"), ("w/a".into(), false));
        assert_eq!(new("a/"), ("w/a".into(), true));
        assert_eq!(new("."), ("w".into(), true));
        assert_eq!(new(""), ("w".into(), true));
        assert_eq!(new("./"), ("w".into(), true));
        assert_eq!(new("../../.."), ("".into(), true));
        assert_eq!(new("/a/./b/../c"), ("a/c".into(), false));
        assert_eq!(new("/"), ("".into(), true));
    }
}
