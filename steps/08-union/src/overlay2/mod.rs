//! overlay2: the kernel's overlay file system, overlayfs.rst. A layer is a
//! directory with its changes; the kernel shows a stack of them as one tree.
//!
//! ```text
//! overlay2/l/LINK         short name of a layer: a link to ../ID/diff
//! overlay2/ID/link        that short name, once there is a layer on it
//! overlay2/ID/lower       the short names of the layers below: l/A:l/B, nearest first
//! overlay2/ID/diff        the layer's changes: the upperdir of a container;
//!                         or a link to a directory that is used where it is
//! overlay2/ID/work        the workdir, on the same file system as diff
//! overlay2/ID/merged      where a container's view is mounted
//! ```
//!
//! Short names exist because mount(2) takes one page of options, 4096 bytes:
//! 128 ids of 64 digits with their paths do not fit, 128 of `l/` and 26 letters
//! do. They are relative to the driver's directory, so that a state directory
//! with `,`, `:` or `\` in its name needs no escapes. A layer gets its short
//! name when another layer is created on it: a container's layer, which has
//! none on top, has no short name.
//!
//! | module | what |
//! |---|---|
//! | this | the layers |
//! | [`stack`], [`options`] | the mount, its layers and settings |
//! | [`mount_legacy`] | the mount on kernels before 6.8 |
//! | [`size`] | a limit for a container's layer |
//! | [`lookup`] | which layer a file comes from |
//! | [`trial`] | whether it works here |

pub(crate) mod lookup;
mod mount_legacy;
pub(crate) mod options;
mod size;
pub(crate) mod stack;
pub(crate) mod trial;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use user::held::Users;

use crate::archive::{apply::apply, write};
use crate::driver::{Access, StorageDriver, View};
use crate::kind::Kind;
use crate::layers::finding::Finding;
use crate::layers::id::LayerId;
use crate::layers::lineage::{below_another, exists, layers_in, no_layer};
use crate::layers::store::Store;
use crate::layers::trash;
use crate::mounts::detached;
use crate::tree::Tree;
use crate::tree::root::new_root;
use crate::tree::size::size as size_of;
use kit::atomic_file::write_file;
use kit::lock::Lock;
use kit::own::{is_there, make, remove_file};

use options::{Attributes, Stack};
use stack::StackView;

/// The most layers below another: what fits into the page of options, and what
/// Docker allows.
pub(crate) const DEEPEST: usize = 128;

/// The length of a short name: 26 letters and digits, of 32, are 130 bits,
/// enough that no two layers get the same name.
const LINK_LENGTH: usize = 26;

/// The source of a new layer's content.
enum Fill<'a> {
    /// A function that fills the layer's directory.
    With(&'a mut dyn FnMut(&Tree) -> Result<()>),
    /// A directory that is used where it is.
    Elsewhere(&'a Path),
}

/// The overlay2 driver.
#[derive(Debug)]
pub(crate) struct Overlay2 {
    store: Store,
    attributes: Attributes,
}

impl Overlay2 {
    /// Opens the driver below the state directory `root`.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let store = Store::open(root, Kind::Overlay2)?;
        make(&store.directory().join("l"), 0o710)?;
        Ok(Overlay2 {
            store,
            attributes: Attributes::of_caller()?,
        })
    }

    fn path(&self, id: &LayerId) -> PathBuf {
        self.store.directory().join(id)
    }

    /// The content of the file `file` of a layer; `None` if the layer has no
    /// such file.
    fn read(&self, id: &LayerId, file: &str) -> Result<Option<String>> {
        let path = self.path(id).join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.layer(id)?;
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("read {path:?}")),
        }
    }

    /// The directory of an existing layer.
    fn layer(&self, id: &LayerId) -> Result<PathBuf> {
        let path = self.path(id);
        if !is_there(&path)? {
            bail!("{}", no_layer(id));
        }
        Ok(path)
    }

    /// The entries of `lower` for a new layer on `id`. Gives `id` a short name
    /// if it has none.
    fn stack_on(&self, id: &LayerId) -> Result<Vec<String>> {
        let link = match self.read(id, "link")? {
            Some(link) => link,
            None => {
                let link = random_name()?;
                let short = self.store.directory().join("l").join(&link);
                let target = Path::new("..").join(id).join("diff");
                symlink(&target, &short).with_context(|| format!("symlink({short:?})"))?;
                write_file(&self.path(id).join("link"), &link)?;
                link
            }
        };
        let mut stack = vec![format!("l/{link}")];
        stack.extend(self.lowers(id)?);
        Ok(stack)
    }

    /// The entries of a layer's `lower`, nearest first.
    fn lowers(&self, id: &LayerId) -> Result<Vec<String>> {
        let lower = self.read(id, "lower")?.unwrap_or_default();
        let entries = lower.split(':').filter(|entry| !entry.is_empty());
        Ok(entries.map(str::to_owned).collect())
    }

    /// The layer that a short name stands for.
    fn named(&self, link: &str) -> Result<LayerId> {
        let path = self.store.directory().join(link);
        let target = fs::read_link(&path).with_context(|| format!("readlink({path:?})"))?;
        let id = target.parent().and_then(Path::file_name);
        id.and_then(|id| id.to_str())
            .with_context(|| format!("{path:?} leads to {target:?}, which is not a layer"))?
            .parse()
    }

    /// Locks the store, and removes the remains of killed processes: half-made
    /// layers, whose names begin with a dot, and short names that lead nowhere.
    fn lock(&self) -> Result<Lock> {
        let lock = self.store.lock()?;
        if trash::sweep(self.store.directory())? {
            self.remove_lost_names()?;
        }
        Ok(lock)
    }

    /// Removes the short names of layers that are gone: a process that was
    /// killed while it removed a layer leaves them.
    fn remove_lost_names(&self) -> Result<()> {
        let names = self.store.directory().join("l");
        for entry in fs::read_dir(&names).with_context(|| format!("read {names:?}"))? {
            let path = entry.with_context(|| format!("read {names:?}"))?.path();
            let target = fs::read_link(&path).with_context(|| format!("readlink({path:?})"))?;
            if let Some(layer) = target.parent()
                && !is_there(&names.join(layer))?
            {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn make_layer(&self, id: &LayerId, parent: Option<&LayerId>, fill: Fill<'_>) -> Result<()> {
        let _lock = self.lock()?;
        // `l` is the directory of short names.
        if id.as_str() == "l" || self.exists(id)? {
            bail!("{}", exists(id));
        }
        let lower = match parent {
            Some(parent) => self.stack_on(parent)?,
            None => Vec::new(),
        };
        if lower.len() > DEEPEST {
            bail!(
                "layer {id} would have {} layers below it, and overlay2 takes {DEEPEST}: put \
                 several into one",
                lower.len()
            );
        }
        // Not a layer's name: it marks the remains of an interrupted creation.
        let new = self.store.directory().join(format!(".{id}"));
        let made = self.write_layer(&new, &lower, parent, fill).and_then(|()| {
            let done = self.path(id);
            fs::rename(&new, &done).with_context(|| format!("rename({new:?}, {done:?})"))
        });
        match made {
            Ok(()) => Ok(()),
            Err(error) => {
                trash::take(&new);
                Err(error)
            }
        }
    }

    fn write_layer(
        &self,
        new: &Path,
        lower: &[String],
        parent: Option<&LayerId>,
        fill: Fill<'_>,
    ) -> Result<()> {
        DirBuilder::new()
            .mode(0o710)
            .create(new)
            .with_context(|| format!("mkdir({new:?})"))?;
        if !lower.is_empty() {
            let path = new.join("lower");
            fs::write(&path, lower.join(":")).with_context(|| format!("write {path:?}"))?;
        }
        make(&new.join("work"), 0o700)?;
        make(&new.join("merged"), 0o700)?;
        let path = new.join("diff");
        let fill = match fill {
            Fill::With(fill) => fill,
            Fill::Elsewhere(directory) => {
                return symlink(directory, &path)
                    .with_context(|| format!("symlink({directory:?}, {path:?})"));
            }
        };
        let below = parent.map(|parent| self.path(parent).join("diff"));
        fill(&new_root(&path, below.as_deref())?)
    }

    /// The stack that [`view`](StorageDriver::view) mounts.
    fn stack_view(&self, id: &LayerId, access: Access) -> Result<StackView> {
        let stack = match access {
            Access::ReadOnly => Stack {
                lower: [vec![format!("{id}/diff")], self.lowers(id)?].concat(),
                upper: None,
            },
            Access::ReadWrite => Stack {
                lower: self.lowers(id)?,
                upper: Some(id.clone()),
            },
        };
        Ok(StackView::new(
            self.store.directory(),
            stack,
            self.attributes,
        ))
    }
}

impl StorageDriver for Overlay2 {
    fn kind(&self) -> Kind {
        Kind::Overlay2
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        let mut status = vec![(
            "File system below".into(),
            detached::file_system(self.store.directory())?,
        )];
        status.extend(self.attributes.explained());
        Ok(status)
    }

    fn layers(&self) -> Result<Vec<LayerId>> {
        let mut layers = layers_in(self.store.directory())?;
        layers.retain(|id| id.as_str() != "l");
        Ok(layers)
    }

    fn parents(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        self.lowers(id)?
            .iter()
            .map(|link| self.named(link))
            .collect()
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        is_there(&self.path(id))
    }

    fn create(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<()> {
        self.make_layer(id, parent, Fill::With(&mut |_| Ok(())))
    }

    fn import(&self, id: &LayerId, parent: Option<&LayerId>, diff: &mut dyn Read) -> Result<()> {
        let marks = self.attributes.marks();
        let mut below = Vec::new();
        if let Some(parent) = parent {
            // First, because its error says that there is no such layer.
            let parents = self.parents(parent)?;
            below.push(Tree::open(&self.path(parent).join("diff"))?);
            for id in parents {
                below.push(Tree::open(&self.path(&id).join("diff"))?);
            }
        }
        let fill = &mut |tree: &Tree| apply(tree, marks, &below, diff);
        self.make_layer(id, parent, Fill::With(fill))
    }

    /// Makes `diff` a symbolic link to the directory, to which the short name
    /// then leads.
    fn refer(&self, id: &LayerId, directory: &Path) -> Result<bool> {
        let directory =
            fs::canonicalize(directory).with_context(|| format!("realpath({directory:?})"))?;
        if self.store.directory().starts_with(&directory) {
            // The mount would fail with ELOOP: a layer must not lie in another.
            bail!(
                "{directory:?} holds the state directory itself: give another --root, outside it"
            );
        }
        self.make_layer(id, None, Fill::Elsewhere(&directory))?;
        Ok(true)
    }

    /// The layer is renamed, and gets another `lower`: that of the container has
    /// an `-init` layer in it, of which the changes know nothing.
    // ANCHOR: promote
    fn promote(&self, container: &LayerId, id: &LayerId, parent: Option<&LayerId>) -> Result<bool> {
        let _lock = self.lock()?;
        if self.exists(id)? {
            bail!("{}", exists(id));
        }
        let from = self.layer(container)?;
        // A layer that others are on would be gone from below them.
        if self.read(container, "link")?.is_some() {
            return Ok(false);
        }
        let lower = match parent {
            Some(parent) => self.stack_on(parent)?,
            None => Vec::new(),
        };
        if lower.len() > DEEPEST {
            bail!(
                "layer {id} would have {} layers below it, and overlay2 takes {DEEPEST}",
                lower.len()
            );
        }
        // Not a layer's name: if this process is killed here, the remains are
        // removed as those of an interrupted creation.
        let new = self.store.directory().join(format!(".{id}"));
        fs::rename(&from, &new).with_context(|| format!("rename({from:?}, {new:?})"))?;
        let made = (|| -> Result<()> {
            match lower.is_empty() {
                true => remove_file(&new.join("lower"))?,
                false => write_file(&new.join("lower"), lower.join(":"))?,
            }
            let done = self.path(id);
            fs::rename(&new, &done).with_context(|| format!("rename({new:?}, {done:?})"))
        })();
        match made {
            Ok(()) => Ok(true),
            Err(error) => {
                trash::take(&new);
                Err(error)
            }
        }
    }
    // ANCHOR_END: promote

    fn limit(&self, id: &LayerId, bytes: u64) -> Result<()> {
        let _lock = self.lock()?;
        size::limit(&self.layer(id)?, bytes)
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        let _lock = self.lock()?;
        let short = self.read(id, "link")?.map(|link| format!("l/{link}"));
        // A layer without a short name has no layer on top.
        if let Some(short) = &short {
            for other in self.layers()? {
                if self.lowers(&other)?.contains(short) {
                    bail!("{}", below_another(id, &other));
                }
            }
        }
        let path = self.layer(id)?;
        // One that is kept after all, because this process is killed, gets its
        // limit again at its next start.
        size::forget(&path)?;
        // Renamed first: from here on the layer does not exist, even if this
        // process is killed.
        let gone = trash::set_aside(&path)?;
        if let Some(short) = &short {
            remove_file(&self.store.directory().join(short))?;
        }
        if let Some(gone) = gone {
            trash::take(&gone);
        }
        Ok(())
    }

    fn mount_point(&self, id: &LayerId) -> PathBuf {
        self.path(id).join("merged")
    }

    fn view(&self, id: &LayerId, access: Access) -> Result<Box<dyn View>> {
        Ok(Box::new(self.stack_view(id, access)?.made_by_root()?))
    }

    fn view_for(&self, id: &LayerId, access: Access, users: &Users) -> Result<Box<dyn View>> {
        Ok(Box::new(self.stack_view(id, access)?.made_for(users)?))
    }

    fn diff_until(&self, id: &LayerId, latest: Option<i64>, to: &mut dyn Write) -> Result<()> {
        let tree = Tree::open(&self.layer(id)?.join("diff"))?;
        write::layer(&tree, self.attributes.marks(), latest, to)
    }

    fn directories(&self, id: &LayerId) -> Result<Vec<(&'static str, String)>> {
        let part = |id: &LayerId, name| self.path(id).join(name).display().to_string();
        let parents = self.parents(id)?;
        let lower: Vec<String> = parents.iter().map(|below| part(below, "diff")).collect();
        Ok(vec![
            ("LowerDir", lower.join(":")),
            ("MergedDir", part(id, "merged")),
            ("UpperDir", part(id, "diff")),
            ("WorkDir", part(id, "work")),
        ])
    }

    fn usage(&self, id: &LayerId) -> Result<u64> {
        let diff = self.layer(id)?.join("diff");
        // A directory elsewhere takes no space here.
        if diff.is_symlink() {
            return Ok(0);
        }
        size_of(&Tree::open(&diff)?)
    }

    fn space(&self) -> Result<u64> {
        size_of(&Tree::open(self.store.directory())?)
    }

    fn lookup(&self, id: &LayerId, path: &Path) -> Result<Vec<Finding>> {
        lookup::lookup(&self.stack(id)?, self.attributes.marks(), path)
    }

    fn names(&self, id: &LayerId, path: &Path) -> Result<BTreeSet<OsString>> {
        lookup::names(&self.stack(id)?, path)
    }
}

impl Overlay2 {
    /// The trees of a layer and of those below it.
    fn stack(&self, id: &LayerId) -> Result<Vec<(LayerId, Tree)>> {
        let mut stack = vec![id.clone()];
        stack.extend(self.parents(id)?);
        let mut trees = Vec::new();
        for id in stack {
            let tree = Tree::open(&self.path(&id).join("diff"))?;
            trees.push((id, tree));
        }
        Ok(trees)
    }
}

/// A random short name for a layer.
fn random_name() -> Result<String> {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    Ok(kit::random::bytes::<LINK_LENGTH>()?
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_stack_fits_into_a_page_of_options() {
        let stack: Vec<_> = (0..DEEPEST)
            .map(|_| format!("l/{}", random_name().unwrap()))
            .collect();
        assert_ne!(stack[0], stack[1]);
        let longest = "x".repeat(128);
        let options = format!(
            "lowerdir={},upperdir={longest}/diff,workdir={longest}/work",
            stack.join(":")
        );
        assert!(options.len() < 4096, "{}", options.len());
    }
}
