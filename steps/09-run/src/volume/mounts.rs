//! The isolation that makes a container's volumes, and fills new ones with the
//! files that the image has at their place.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::mem::take;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kit::lock::{Lock, LockFile, Turn};
use kit::own::make;
use kit::say;
use mount::file_system::attach;
use nix::unistd::Pid;
use process::Isolation;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use union::driver::Access;
use union::mounts::detached;
use union::tree::Tree;
use union::tree::copy::copy;
use user::choice::Mapping;

use crate::spec::Spec;
use crate::volume::Volumes;
use crate::volume::options::MountSource;

/// The volumes of a container, and the directories of the host that are mounted
/// in it.
///
/// Comes between the layers and step 04 in the list:
/// [`in_container`](Self::in_container) copies files of the image, which
/// nothing may cover yet.
pub struct VolumeMounts {
    volumes: Volumes,
    used: Vec<Used>,
    /// Directories of the host that are created if they are missing.
    made: Vec<PathBuf>,
    binds: Vec<OsString>,
    /// Where the layers are mounted before they become the root.
    root: PathBuf,
    /// The container's id.
    id: String,
    /// Whether anonymous volumes are removed when the container ends.
    remove: bool,
    /// Locks that keep others from removing the volumes.
    held: Vec<File>,
    /// Set if root inside is another user outside.
    shown: Option<Shown>,
}

/// Volumes that belong, as seen in the container, to the users of a map. The
/// launcher makes the mounts; the child, which may not enter the state
/// directory, attaches them.
struct Shown {
    users: Vec<Mapping>,
    /// A directory that the child can reach. It holds an empty directory per
    /// volume, on which the child mounts the volume in a namespace of its own.
    place: PathBuf,
    /// Each volume's mount, and the lock for filling the volume.
    volumes: Vec<(OwnedFd, LockFile)>,
}

impl Shown {
    fn path(&self, number: usize) -> PathBuf {
        self.place.join(number.to_string())
    }

    /// Attaches the mounts, in the child. Returns where each is, and its lock.
    fn attach(mut self) -> Result<Vec<(PathBuf, Option<LockFile>)>> {
        let volumes = take(&mut self.volumes).into_iter().enumerate();
        volumes
            .map(|(number, (volume, lock))| {
                let path = self.path(number);
                attach(volume, &path)?;
                Ok((path, Some(lock)))
            })
            .collect()
    }
}

struct Used {
    name: String,
    /// The path in the container.
    target: PathBuf,
    anonymous: bool,
    copy: bool,
}

impl VolumeMounts {
    /// The volumes of `spec`. `root` is where the container's layers are
    /// mounted before they become its root. `users` are the maps of users who
    /// have other IDs outside and are to own the volumes inside:
    /// [`UserSettings::other_users`].
    ///
    /// [`UserSettings::other_users`]: user::UserSettings::other_users
    pub fn new(volumes: Volumes, spec: &Spec, root: Option<PathBuf>, users: Vec<Mapping>) -> Self {
        let shown = (!users.is_empty()).then(|| Shown {
            users,
            place: volumes.everybodys_place(),
            volumes: Vec::new(),
        });
        let mut this = VolumeMounts {
            volumes,
            used: Vec::new(),
            made: Vec::new(),
            binds: Vec::new(),
            root: root.unwrap_or_default(),
            id: spec.id.clone(),
            remove: spec.auto_remove,
            held: Vec::new(),
            shown,
        };
        for mount in &spec.files.mounted {
            let source = match &mount.source {
                MountSource::Host { path, make } => {
                    if *make {
                        this.made.push(path.clone());
                    }
                    path.clone()
                }
                MountSource::Volume {
                    name,
                    anonymous,
                    copy,
                } => {
                    let data = match &this.shown {
                        Some(shown) => shown.path(this.used.len()),
                        None => this.volumes.data(name),
                    };
                    this.used.push(Used {
                        name: name.clone(),
                        target: mount.target.clone(),
                        anonymous: *anonymous,
                        copy: *copy,
                    });
                    data
                }
            };
            let mode = match (mount.read_only, mount.nonrecursive) {
                (true, true) => ":ro,nonrecursive",
                (true, false) => ":ro",
                (false, true) => ":nonrecursive",
                (false, false) => "",
            };
            let target = mount.target.display();
            this.binds
                .push(format!("{}:{target}{mode}", source.display()).into());
        }
        this
    }

    /// Keeps anonymous volumes, whatever the description says.
    #[must_use]
    pub fn keep(mut self) -> Self {
        self.remove = false;
        self
    }

    /// The binds for step 04, as `--bind` takes them: the volumes, and
    /// directories of the host.
    pub fn binds(&self) -> Vec<OsString> {
        self.binds.clone()
    }

    /// Makes an ID-mapped mount of each volume for the users of the map:
    /// mount_setattr(2), “ID-mapped mounts”.
    fn show(&mut self) -> Result<()> {
        let Some(shown) = &mut self.shown else {
            return Ok(());
        };
        if self.used.is_empty() {
            return Ok(());
        }
        make(&shown.place, 0o711)?;
        let users = user::held::with_maps(&shown.users)?;
        for Used { name, .. } in &self.used {
            let data = self.volumes.data(name);
            let mount = detached::bind(&data, Access::ReadWrite)?;
            detached::map_ids(&mount, users.as_fd())
                .with_context(|| format!("show the volume {name:?} to the users of --uid-map"))?;
            let lock = LockFile::of(&self.volumes.directory_of(name))?;
            make(&shown.path(shown.volumes.len()), 0o711)?;
            shown.volumes.push((mount, lock));
        }
        Ok(())
    }
}

impl Isolation for VolumeMounts {
    fn name(&self) -> &'static str {
        "volumes"
    }

    fn prepare(&mut self) -> Result<()> {
        for used in &self.used {
            let container = used.anonymous.then_some(&*self.id);
            let held = self.volumes.take(&used.name, used.anonymous, container)?;
            self.held.push(held);
        }
        self.show()?;
        for path in &self.made {
            match fs::create_dir(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(path)
                    .with_context(|| format!("make the missing source {path:?} on the host"))?,
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(error)
                        .with_context(|| format!("make the missing source {path:?} on the host"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Closes the launcher's descriptors of the mounts and locks. The child has
    /// its own, and a lock is released when the last one is closed (flock(2)).
    fn on_host(&mut self, _: Pid) -> Result<()> {
        self.shown = None;
        Ok(())
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        let shown = self.shown.iter().flat_map(|shown| &shown.volumes);
        shown
            .flat_map(|(volume, lock)| [volume.as_fd(), lock.as_fd()])
            .collect()
    }

    /// Fills new volumes from the layers, which are mounted and not covered
    /// yet.
    fn in_container(&mut self) -> Result<()> {
        let places = match self.shown.take() {
            Some(shown) => shown.attach()?,
            None => {
                let data = |used: &Used| (self.volumes.data(&used.name), None);
                self.used.iter().map(data).collect()
            }
        };
        for (used, (path, lock)) in self.used.iter().zip(places) {
            if used.copy {
                let alone = || match lock {
                    Some(lock) => lock.wait(Turn::Judging),
                    None => self.volumes.fill_alone(&used.name),
                };
                fill(&path, alone, &self.root, &used.target)
                    .with_context(|| format!("fill the volume {:?}", used.name))?;
            }
        }
        Ok(())
    }

    fn cleanup(&mut self) -> Result<()> {
        self.held.clear();
        if !self.remove {
            return Ok(());
        }
        for used in &self.used {
            // It stays if another container has it, by its long name.
            if used.anonymous {
                self.volumes.remove_if_there(&used.name)?;
            }
        }
        Ok(())
    }
}

/// Copies the image's directory `target` into the volume at `data` if that is
/// empty: with owners, modes and times, also those of the directory itself.
/// `alone` waits until nobody else fills the volume.
// ANCHOR: fill
fn fill(
    data: &Path,
    alone: impl FnOnce() -> Result<Lock>,
    root: &Path,
    target: &Path,
) -> Result<()> {
    // ANCHOR: exercise_fill_a_volume
    let is_empty = || -> Result<bool> {
        let reading = || format!("readdir({data:?})");
        let mut entries = fs::read_dir(data).with_context(reading)?;
        let first = entries.next().transpose().with_context(reading)?;
        Ok(first.is_none())
    };
    if !is_empty()? {
        return Ok(());
    }
    let Some(image) = directory_in(root, target)? else {
        return Ok(());
    };
    // Two containers with the same new volume may start at once.
    let _alone = alone()?;
    if is_empty()? {
        say!("copy {target:?} of the image into its volume");
        copy(&Tree::at(&image)?, &Tree::open(data)?)?;
    }
    Ok(())
    // ANCHOR_END: exercise_fill_a_volume
}
// ANCHOR_END: fill

/// The directory `path` of a root; `None` if there is none. Links in the path
/// do not lead out of the root.
fn directory_in(root: &Path, path: &Path) -> Result<Option<OwnedFd>> {
    let top = Tree::open(root)?;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let found = openat2(
        top.root(),
        relative,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    match found {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("openat2({path:?}, RESOLVE_IN_ROOT)")),
    }
}
