//! A container on layers: an image's below, two of its own on top.
//!
//! ```text
//! ID          read-write: what the container changes, and what a diff of it shows
//! ID-init     read-only: what steps 04 and 06 mount on
//! image       read-only, shared by all containers of the image
//! ```

use std::cell::Cell;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use clap::Args;
use kit::{say, warn};
use nix::unistd::Pid;
use process::Isolation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use user::choice::Mapping;

use crate::detect;
use crate::driver::{Access, StorageDriver, View};
use crate::kind::Kind;
use crate::layers::id::LayerId;
use crate::layers::image::{import_directory, mount_points};
use crate::layers::store::{Store, default_root};
use crate::mounts::private::cut_off;
use kit::errno::is;

/// The options of the container's layers.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Union file system (step 08)")]
pub struct UnionSettings {
    /// How layers are kept [default: overlay2 where it works, else vfs]
    #[arg(long, value_enum, value_name = "DRIVER")]
    pub driver: Option<Kind>,

    /// The image: the topmost of its layers (step-08 layer create). With
    /// --rootfs instead, the directory is copied into a layer of this
    /// container's own
    #[arg(long, value_name = "ID")]
    pub layer: Option<LayerId>,

    /// Name of the container and of its layer [default: random]. One that was
    /// kept goes on where it stopped
    #[arg(long, value_name = "ID")]
    pub name: Option<LayerId>,

    /// Keep the container's layer when it ends; step-08 layer rm removes it
    #[arg(long)]
    pub keep: bool,

    /// Where layers are kept [default: /var/lib/drydock, or
    /// $XDG_DATA_HOME/drydock without root]
    #[arg(long, value_name = "DIR")]
    #[serde(with = "kit::text")]
    pub root: Option<PathBuf>,
}

impl UnionSettings {
    fn asked_for(&self) -> bool {
        self.driver.is_some() || self.layer.is_some() || self.name.is_some() || self.keep
    }
}

/// When a container has layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Whatever the options say.
    Always,
    /// If an option asks for them.
    IfAsked,
}

/// A container's root on layers, or nothing where none were asked for.
pub struct Union {
    container: Option<Box<Layered>>,
}

struct Layered {
    driver: Box<dyn StorageDriver>,
    image: Image,
    id: LayerId,
    keep: bool,
    shares_init: bool,
    /// Of the user namespace, where its root is not that of the host.
    mappings: Vec<Mapping>,
    view: Option<Box<dyn View>>,
    /// Where it is mounted.
    place: PathBuf,
    note: Option<File>,
    found_dead: Rc<Cell<bool>>,
}

#[derive(Debug)]
enum Image {
    /// A layer that there is.
    Layer(LayerId),
    /// A directory, to become a layer.
    Directory(PathBuf),
    /// None: a kept container brings its own.
    OfContainer,
}

impl Union {
    /// Decides on the driver and the container's name, and touches nothing but
    /// the state directory.
    ///
    /// `rootfs` is what `--rootfs` says.
    ///
    /// # Errors
    /// If there is nothing to stand on, or the driver does not work here.
    pub fn plan(args: UnionSettings, rootfs: Option<&Path>, layers: Layers) -> Result<Self> {
        // ANCHOR: exercise_plan_the_container
        if layers == Layers::IfAsked && !args.asked_for() {
            return Ok(Union { container: None });
        }
        let root = match args.root {
            Some(root) => root,
            None => default_root()?,
        };
        let image = match (args.layer, rootfs) {
            (Some(_), Some(_)) => {
                bail!("--layer and --rootfs both name the image: give one of them")
            }
            (Some(layer), None) => Image::Layer(layer),
            (None, Some(rootfs)) => Image::Directory(rootfs.to_owned()),
            (None, None) if args.name.is_some() => Image::OfContainer,
            (None, None) => bail!(
                "a container on layers needs an image: --layer ID (step-08 layer ls), or --rootfs \
                 DIR"
            ),
        };
        let kind = match args.driver {
            Some(kind) => kind,
            None => detect::preferred(&root)?,
        };
        let id = match args.name {
            Some(name) => name,
            None => random_id()?,
        };
        let driver = detect::open(kind, &root)?;
        Ok(Union {
            container: Some(Box::new(Layered {
                place: driver.mount_point(&id),
                driver,
                image,
                id,
                keep: args.keep,
                shares_init: false,
                mappings: Vec::new(),
                view: None,
                note: None,
                found_dead: Rc::default(),
            })),
        })
        // ANCHOR_END: exercise_plan_the_container
    }

    /// On the layers of an image, which `settings` name.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn on_image(settings: UnionSettings) -> Result<Self> {
        Self::plan(settings, None, Layers::Always)
    }

    /// Has all containers of an image share one `-init`, that of the image: what
    /// this step puts into it is the same for all. It goes with the image.
    #[must_use]
    pub fn share_init(mut self) -> Self {
        if let Some(container) = &mut self.container {
            container.shares_init = true;
        }
        self
    }

    /// Has the layers shown to the users of a namespace with these maps, as
    /// theirs: [`UserSettings::other_users`]. Without any nothing changes.
    ///
    /// # Errors
    /// If a map leaves out ID 0, which owns the files of the layers. Those of
    /// mkdir(2), for the place where the root will be.
    ///
    /// [`UserSettings::other_users`]: user::UserSettings::other_users
    pub fn for_users(mut self, mappings: Vec<Mapping>) -> Result<Self> {
        if let Some(container) = &mut self.container
            && !mappings.is_empty()
        {
            for mapping in &mappings {
                if mapping.maps.iter().all(|map| map.inside != 0) {
                    bail!(
                        "{option} does not map {} 0, which owns the files of the layers: map it as \
                         well, as in {option} 0:100000:65536",
                        mapping.ids.noun(),
                        option = mapping.ids.option(),
                    );
                }
            }
            container.place = container.driver.store().everybodys_place()?;
            container.mappings = mappings;
        }
        Ok(self)
    }

    /// Where the container's root will be, for step 04 to pivot to; `None`
    /// without layers.
    pub fn mount_point(&self) -> Option<PathBuf> {
        self.container.as_ref().map(|c| c.place.clone())
    }

    /// Becomes true in `prepare` if there were containers whose launcher was
    /// killed: who keeps more of a container than its layers will look then.
    pub fn found_dead(&self) -> Rc<Cell<bool>> {
        let container = self.container.as_ref();
        container.map_or_else(Rc::default, |container| Rc::clone(&container.found_dead))
    }
}

fn random_id() -> Result<LayerId> {
    format!("c{}", kit::random::hex::<8>()?).parse()
}

impl Isolation for Union {
    fn name(&self) -> &'static str {
        "union"
    }

    fn prepare(&mut self) -> Result<()> {
        match &mut self.container {
            Some(container) => container.prepare(),
            None => Ok(()),
        }
    }

    fn on_host(&mut self, _: Pid) -> Result<()> {
        if let Some(view) = self.container.as_mut().and_then(|c| c.view.as_mut()) {
            view.handed_over();
        }
        Ok(())
    }

    /// The layers, if they are mounted already, until they have their place.
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        let view = self.container.as_ref().and_then(|c| c.view.as_ref());
        view.and_then(|view| view.keeps()).into_iter().collect()
    }

    // ANCHOR: in_container
    /// In the child, in its mount namespace: when the namespace ends, the
    /// kernel unmounts the view, whoever was killed.
    fn in_container(&mut self) -> Result<()> {
        let Some(container) = &mut self.container else {
            return Ok(());
        };
        let Some(view) = &mut container.view else {
            return Ok(());
        };
        // Before the first mount: the tree may be shared with the host's.
        cut_off()?;
        say!("mount {} on {:?}", container.id, container.place);
        view.mount(&container.place).map_err(|error| {
            if container.mappings.is_empty() || !is(&error, &[Errno::ACCESS]) {
                return error;
            }
            error.context(
                "the users of the map must be able to reach the state directory: chmod o+x \
                     the directories above it, or choose another --root",
            )
        })
    }
    // ANCHOR_END: in_container

    fn cleanup(&mut self) -> Result<()> {
        match &mut self.container {
            Some(container) => container.cleanup(),
            None => Ok(()),
        }
    }
}

impl Layered {
    fn prepare(&mut self) -> Result<()> {
        let driver = &*self.driver;
        self.found_dead.set(sweep(driver)?);
        let what = if self.keep { KEEP } else { "" };
        self.note = Some(driver.store().note(&self.id, what)?);
        self.layers()?;
        self.view = Some(self.view()?);
        Ok(())
    }

    fn view(&self) -> Result<Box<dyn View>> {
        if self.mappings.is_empty() {
            return self.driver.view(&self.id, Access::ReadWrite);
        }
        let users = user::held::with_maps(&self.mappings)?;
        self.driver.view_for(&self.id, Access::ReadWrite, &users)
    }

    // ANCHOR: layers
    fn layers(&self) -> Result<()> {
        // ANCHOR: exercise_layers_of_a_container
        let (driver, id) = (&*self.driver, &self.id);
        let init = match &self.image {
            Image::Layer(image) if self.shares_init => image.init()?,
            _ => id.init()?,
        };
        if driver.exists(id)? {
            if driver.parents(id)?.first() != Some(&init) {
                bail!("{id} is the layer of an image, not of a container: choose another --name");
            }
            return Ok(());
        }
        let image = match &self.image {
            Image::Layer(layer) => layer.clone(),
            Image::OfContainer => bail!(
                "there is no container {id} that was kept: give its image by --layer or --rootfs"
            ),
            Image::Directory(directory) => {
                let image = image_of(id)?;
                say!("copy {directory:?} into layer {image}");
                import_directory(driver, &image, None, directory)
                    .with_context(|| format!("--rootfs {directory:?}"))?;
                image
            }
        };
        if !driver.exists(&init)?
            && let Err(error) = driver.import(&init, Some(&image), &mut &mount_points()?[..])
            // Where it is shared, another container may have been quicker.
            && !driver.exists(&init)?
        {
            return Err(error);
        }
        driver.create(id, Some(&init))
        // ANCHOR_END: exercise_layers_of_a_container
    }
    // ANCHOR_END: layers

    fn cleanup(&mut self) -> Result<()> {
        // Before the layers can go, nothing may be mounted from them.
        self.view = None;
        // Held to the end: once it is given back, others take this container
        // for a dead one's, and remove it too.
        let Some(note) = self.note.take() else {
            return Ok(());
        };
        if self.keep || removed_or_told(&*self.driver, &self.id, &note)? {
            self.driver.store().forget(&self.id)?;
        }
        Ok(())
    }
}

/// The name of the layer that a container on a directory gets for it.
fn image_of(id: &LayerId) -> Result<LayerId> {
    format!("{id}-image").parse()
}

/// What is in the note of a container that is kept, and of one whose layers
/// could not be removed, which has been told.
const KEEP: &str = "keep\n";
const TOLD: &str = "told\n";

/// Removes the layers of a container, as far as there are any. Others may do the
/// same at the same time.
///
/// # Errors
/// Those of the driver.
pub fn remove_container(driver: &dyn StorageDriver, id: &LayerId) -> Result<()> {
    for layer in [id.clone(), id.init()?, image_of(id)?] {
        if driver.exists(&layer)?
            && let Err(error) = driver.remove(&layer)
            && driver.exists(&layer)?
        {
            return Err(error);
        }
    }
    Ok(())
}

/// The same for a container of which the caller has the note; whether they are
/// gone. If not, that is told once and noted, for the next start to try again.
fn removed_or_told(driver: &dyn StorageDriver, id: &LayerId, note: &File) -> Result<bool> {
    let Err(error) = remove_container(driver, id) else {
        return Ok(true);
    };
    if read_note(note, id)? == TOLD {
        say!("still: {error:#}");
    } else {
        warn!("the layers of container {id} stay, and are tried again later: {error:#}");
        note.write_all_at(TOLD.as_bytes(), 0)
            .with_context(|| format!("write the note of {id}"))?;
    }
    Ok(false)
}

/// The beginning of a note: more than that nobody has written.
fn read_note(note: &File, id: &LayerId) -> Result<String> {
    let mut bytes = [0; 16];
    let length = note
        .read_at(&mut bytes, 0)
        .with_context(|| format!("read the note of {id}"))?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// Removes what containers have left whose launcher was killed; whether there
/// were any. One that cannot be removed is told, and nobody else's concern.
///
/// # Errors
/// Those of reading the notes.
// ANCHOR: sweep
pub(crate) fn sweep(driver: &dyn StorageDriver) -> Result<bool> {
    let store: &Store = driver.store();
    let dead = store.dead()?;
    let found = !dead.is_empty();
    for (id, note) in dead {
        let swept = sweep_one(driver, &id, &note);
        if let Err(error) = swept.with_context(|| format!("what is left of container {id}")) {
            warn!("{error:#}");
        }
    }
    Ok(found)
}
// ANCHOR_END: sweep

fn sweep_one(driver: &dyn StorageDriver, id: &LayerId, note: &File) -> Result<()> {
    if read_note(note, id)? != KEEP {
        say!("remove what is left of container {id}");
        if !removed_or_told(driver, id, note)? {
            return Ok(());
        }
    }
    driver.store().forget(id)
}
