//! A container on layers: those of an image below, two of its own on top.
//!
//! ```text
//! ID          read-write: the container's changes, which a diff of it shows
//! ID-init     read-only: the mount points of steps 04 and 06
//! image       read-only, shared by all containers of the image
//! ```

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use cgroups::Bytes;
use clap::Args;
use kit::process_identity::looks_for_the_dead;
use kit::{say, warn};
use nix::unistd::Pid;
use process::{Exit, Isolation};
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
use crate::size_option::SizeOption;
use kit::errno::is;

/// The options of the container's layers.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Union file system (step 08)")]
pub struct UnionSettings {
    /// Storage driver [default: overlay2 if it works here, else vfs]
    #[arg(long, value_enum, value_name = "DRIVER")]
    pub driver: Option<Kind>,

    /// Topmost layer of the image (see step-08 layer create). With --rootfs
    /// instead, the directory is copied into a layer of the container
    #[arg(long, value_name = "ID")]
    pub layer: Option<LayerId>,

    /// Name of the container and of its layer [default: random]. The layer of a
    /// kept container is used again
    #[arg(long, value_name = "ID")]
    pub name: Option<LayerId>,

    /// Keep the container's layer when it exits (step-08 layer rm removes it)
    #[arg(long)]
    pub keep: bool,

    /// Limit the container's layer: size=10g. Drivers: overlay2, btrfs,
    /// devicemapper
    #[arg(long = "storage-opt", value_name = "size=BYTES", value_parser = SizeOption::only)]
    pub size: Option<Bytes>,

    /// State directory for layers [default: /var/lib/drydock, or
    /// $XDG_DATA_HOME/drydock without root]
    #[arg(long, value_name = "DIR")]
    #[serde(with = "kit::text")]
    pub root: Option<PathBuf>,
}

impl UnionSettings {
    fn asked_for(&self) -> bool {
        self.driver.is_some()
            || self.layer.is_some()
            || self.name.is_some()
            || self.size.is_some()
            || self.keep
    }
}

/// When a container has layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Always, whatever the options are.
    Always,
    /// If an option of this step is given.
    IfAsked,
}

/// The isolation that mounts the container's root from layers. It does nothing
/// if no layers were asked for.
pub struct Union {
    container: Option<Box<Layered>>,
}

/// What becomes of a container's layer when its command has ended with status 0,
/// before the layer is removed: [`Union::harvest`].
#[derive(Clone)]
pub struct Harvest(Rc<Harvester>);

type Harvester = dyn Fn(&dyn StorageDriver, &LayerId) -> Result<()>;

impl Harvest {
    /// Calls `work` with the driver and the container's layer, which is not
    /// mounted any more and which no other process removes meanwhile.
    pub fn new(work: impl Fn(&dyn StorageDriver, &LayerId) -> Result<()> + 'static) -> Self {
        Harvest(Rc::new(work))
    }
}

impl fmt::Debug for Harvest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Harvest")
    }
}

struct Layered {
    driver: Box<dyn StorageDriver>,
    image: Image,
    id: LayerId,
    keep: bool,
    shares_init: bool,
    size: Option<Bytes>,
    /// Maps of the user namespace; empty if its root is root of the host.
    mappings: Vec<Mapping>,
    view: Option<Box<dyn View>>,
    /// The directory on which the view is mounted.
    place: PathBuf,
    note: Option<File>,
    found_dead: Rc<Cell<bool>>,
    harvest: Option<Harvest>,
    /// Mount points of this container alone.
    points: Vec<(PathBuf, bool)>,
    /// Whether the command has ended with status 0.
    succeeded: bool,
}

#[derive(Debug)]
enum Image {
    /// An existing layer.
    Layer(LayerId),
    /// A directory that is copied into a layer.
    Directory(PathBuf),
    /// No image given: a kept container has its own.
    OfContainer,
}

impl Union {
    /// Chooses the image, the driver and the container's name. Writes only to
    /// the state directory.
    ///
    /// `rootfs` is the value of `--rootfs`.
    ///
    /// # Errors
    /// If no image is given, or two, or if the driver does not work here.
    pub fn plan(args: UnionSettings, rootfs: Option<&Path>, layers: Layers) -> Result<Self> {
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
                size: args.size,
                mappings: Vec::new(),
                view: None,
                note: None,
                found_dead: Rc::default(),
                harvest: None,
                points: Vec::new(),
                succeeded: false,
            })),
        })
    }

    /// Plans a container on the layers of the image that `settings` name.
    pub fn on_image(settings: UnionSettings) -> Result<Self> {
        Self::plan(settings, None, Layers::Always)
    }

    /// Makes all containers of an image share the `-init` layer of the image:
    /// its content is the same for all. It is removed with the image.
    #[must_use]
    pub fn share_init(mut self) -> Self {
        if let Some(container) = &mut self.container {
            container.shares_init = true;
        }
        self
    }

    /// Keeps the container's layer, whatever the settings say.
    #[must_use]
    pub fn keep(mut self) -> Self {
        if let Some(container) = &mut self.container {
            container.keep = true;
        }
        self
    }

    /// Makes mount points, each a directory or a file, below the container's own
    /// layer: in an `-init` layer of its own.
    #[must_use]
    pub fn mount_points(mut self, points: Vec<(PathBuf, bool)>) -> Self {
        if let Some(container) = &mut self.container {
            container.points = points;
        }
        self
    }

    /// Has `harvest` called with the container's layer if its command ends with
    /// status 0: after the layer has been unmounted, before it is removed.
    #[must_use]
    pub fn harvest(mut self, harvest: Option<Harvest>) -> Self {
        if let Some(container) = &mut self.container {
            container.harvest = harvest;
        }
        self
    }

    /// Shows the layers to a user namespace with these maps
    /// ([`UserSettings::other_users`]) as files of its users. An empty list
    /// changes nothing.
    ///
    /// # Errors
    /// If a map does not include ID 0, which owns the files of the layers.
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

    /// The directory on which the container's root will be mounted, for step 04
    /// to pivot_root(2) to; `None` without layers.
    pub fn mount_point(&self) -> Option<PathBuf> {
        self.container.as_ref().map(|c| c.place.clone())
    }

    /// A flag that `prepare` sets if it finds containers whose launcher was
    /// killed. A caller that keeps more of a container than its layers then
    /// cleans up as well.
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

    /// The mount of the layers, if it was made before the child was born, until
    /// it is attached.
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        let view = self.container.as_ref().and_then(|c| c.view.as_ref());
        view.and_then(|view| view.keeps()).into_iter().collect()
    }

    // ANCHOR: in_container
    /// Mounts the view in the child's mount namespace. When the namespace ends,
    /// the kernel unmounts the view, whichever process was killed.
    fn in_container(&mut self) -> Result<()> {
        let Some(container) = &mut self.container else {
            return Ok(());
        };
        let Some(view) = &mut container.view else {
            return Ok(());
        };
        // Before the first mount: mounts may propagate to the host.
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

    fn ended(&mut self, exit: Exit) -> Result<()> {
        if let Some(container) = &mut self.container {
            container.succeeded = exit == Exit::Code(0);
        }
        Ok(())
    }

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
        // Among many containers not every start looks.
        let looks = looks_for_the_dead(driver.store().containers()?)?;
        self.found_dead.set(looks && sweep(driver)?);
        let what = if self.keep { KEEP } else { "" };
        self.note = Some(driver.store().note(&self.id, what)?);
        self.layers()?;
        // Whether the layer is new or not: who made it may have been killed.
        if let Some(size) = self.size {
            self.driver.limit(&self.id, size.0)?;
        }
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
            Image::OfContainer => {
                bail!("there is no kept container {id}: give its image by --layer or --rootfs")
            }
            Image::Directory(directory) => {
                let image = image_of(id)?;
                say!("copy {directory:?} into layer {image}");
                import_directory(driver, &image, None, directory)
                    .with_context(|| format!("--rootfs {directory:?}"))?;
                image
            }
        };
        if !driver.exists(&init)?
            && let Err(error) = driver.import(&init, Some(&image), &mut &mount_points(&self.points)?[..])
            // If it is shared, another container may have made it first.
            && !driver.exists(&init)?
        {
            return Err(error);
        }
        driver.create(id, Some(&init))
        // ANCHOR_END: exercise_layers_of_a_container
    }
    // ANCHOR_END: layers

    fn cleanup(&mut self) -> Result<()> {
        // Layers that are mounted cannot be removed.
        self.view = None;
        // Held to the end: once its lock is released, other processes take this
        // container for a dead one and remove it too.
        let Some(note) = self.note.take() else {
            return Ok(());
        };
        let harvested = match self.harvest.take().filter(|_| self.succeeded) {
            Some(Harvest(harvest)) => harvest(&*self.driver, &self.id),
            None => Ok(()),
        };
        if self.keep || removed_or_told(&*self.driver, &self.id, &note)? {
            self.driver.store().forget(&self.id)?;
        }
        harvested
    }
}

/// The id of the layer into which the directory of `--rootfs` is copied.
fn image_of(id: &LayerId) -> Result<LayerId> {
    format!("{id}-image").parse()
}

/// The content of the note of a container that is kept, and of one whose layers
/// could not be removed and were reported.
const KEEP: &str = "keep\n";
const TOLD: &str = "told\n";

/// Removes those layers of a container that exist. Several processes may do so
/// at the same time.
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

/// Removes the layers of a container whose note the caller holds, and returns
/// whether they are gone. If not, warns once and marks the note, for the next
/// start to try again.
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

/// The first 16 bytes of a note: none is longer.
fn read_note(note: &File, id: &LayerId) -> Result<String> {
    let mut bytes = [0; 16];
    let length = note
        .read_at(&mut bytes, 0)
        .with_context(|| format!("read the note of {id}"))?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// Removes the remains of containers whose launcher was killed, and returns
/// whether there were any. One that cannot be removed is a warning and does not
/// stop the rest.
// ANCHOR: sweep
pub fn sweep(driver: &dyn StorageDriver) -> Result<bool> {
    // ANCHOR: exercise_sweep
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
    // ANCHOR_END: exercise_sweep
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
