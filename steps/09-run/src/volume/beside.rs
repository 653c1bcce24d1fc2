//! What a command is shown besides its image, and besides volumes: files of
//! another image, and secrets. Of both, nothing is left afterwards.
//!
//! They are put into a file system in memory that only the container's mount
//! namespace has, and step 04 binds them from there: the source of a bind is a
//! path, and a path of another image is resolved inside of that image first. A
//! link in it leads nowhere else.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kit::own::make;
use kit::random;
use nix::unistd::Pid;
use process::Isolation;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use serde::{Deserialize, Serialize};
use union::driver::{Access, View};
use union::mounts::detached::{self, FileSystem};
use union::mounts::private::cut_off;
use union::{Kind, LayerId, StorageDriver, detect, remove_container};

use mount::file_system::attach;

/// A file or a directory of another image, in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Viewed {
    /// The topmost layer of that image.
    pub layer: LayerId,
    /// The path in it.
    #[serde(with = "kit::text")]
    pub path: PathBuf,
    /// The path in the container.
    #[serde(with = "kit::text")]
    pub target: PathBuf,
    /// Whether it is read-only. If not, what is written is lost.
    pub read_only: bool,
}

/// A secret. It is no part of a [`Spec`](crate::spec::Spec), which is written to
/// the disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The secret itself.
    pub content: Vec<u8>,
    /// The file in the container that holds it.
    #[serde(with = "kit::text")]
    pub target: PathBuf,
    /// The permissions of the file.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:?})", self.target)
    }
}

/// The isolation that puts them where step 04 finds them.
pub struct Beside {
    /// The directory over which the file system in memory is mounted.
    place: PathBuf,
    root: PathBuf,
    kind: Kind,
    views: Vec<(Viewed, Option<Box<dyn View>>)>,
    secrets: Vec<Secret>,
    /// Layers for what is written, with the notes that say that this process
    /// lives.
    written: Vec<(LayerId, File)>,
    /// In the child: the files may be put.
    begun: bool,
}

impl Beside {
    /// The files of other images that `views` name, and `secrets`, below the state
    /// directory `root`.
    pub fn new(root: &Path, kind: Kind, views: &[Viewed], secrets: Vec<Secret>) -> Self {
        Beside {
            place: root.join("beside"),
            root: root.to_owned(),
            kind,
            views: views.iter().map(|view| (view.clone(), None)).collect(),
            secrets,
            written: Vec::new(),
            begun: false,
        }
    }

    /// The binds for step 04, as `--bind` takes them.
    pub fn binds(&self) -> Vec<OsString> {
        let bind = |name: String, target: &Path, read_only: bool| {
            let mode = if read_only { ":ro" } else { "" };
            let source = self.place.join(name);
            format!("{}:{}{mode}", source.display(), target.display()).into()
        };
        let views = self.views.iter().enumerate();
        let secrets = self.secrets.iter().enumerate();
        views
            .map(|(n, (view, _))| bind(format!("view-{n}"), &view.target, view.read_only))
            .chain(secrets.map(|(n, secret)| bind(format!("secret-{n}"), &secret.target, true)))
            .collect()
    }

    fn names(&self) -> Vec<String> {
        let views = (0..self.views.len()).map(|n| format!("view-{n}"));
        let secrets = (0..self.secrets.len()).map(|n| format!("secret-{n}"));
        views.chain(secrets).collect()
    }

    fn is_empty(&self) -> bool {
        self.views.is_empty() && self.secrets.is_empty()
    }

    fn put(&self, number: usize, secret: &Secret) -> Result<()> {
        let path = self.place.join(format!("secret-{number}"));
        let written = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(&secret.content)?;
                file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(secret.mode))
            });
        written.with_context(|| format!("write the secret for {:?}", secret.target))?;
        if (secret.uid, secret.gid) != (0, 0) {
            chown(&path, Some(secret.uid), Some(secret.gid))
                .with_context(|| format!("chown(the secret for {:?})", secret.target))?;
        }
        Ok(())
    }
}

/// Mounts the file or directory `path` of the tree at `whole` on `place`.
fn show(whole: &Path, path: &Path, place: &Path) -> Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::open(whole, flags | OFlags::DIRECTORY, Mode::empty())
        .with_context(|| format!("open({whole:?})"))?;
    let relative = match path.strip_prefix("/") {
        Ok(relative) if !relative.as_os_str().is_empty() => relative,
        _ => Path::new("."),
    };
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(&top, relative, flags, Mode::empty(), inside)
        .with_context(|| format!("{path:?} of the other image"))?;
    let kind = fstat(&found).context("fstat")?;
    match FileType::from_raw_mode(kind.st_mode) {
        FileType::Directory => {
            fs::create_dir(place).with_context(|| format!("mkdir({place:?})"))?
        }
        _ => drop(File::create_new(place).with_context(|| format!("open({place:?}, O_CREAT)"))?),
    }
    // The mount outlives the descriptor.
    let magic = format!("/proc/self/fd/{}", found.as_raw_fd());
    attach(detached::bind(Path::new(&magic), Access::ReadWrite)?, place)
}

impl Isolation for Beside {
    fn name(&self) -> &'static str {
        "beside"
    }

    fn prepare(&mut self) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        make(&self.place, 0o711)?;
        // Step 04 wants sources that exist. These are covered in the child, which
        // finds its own there; they are empty, and stay.
        for name in self.names() {
            let path = self.place.join(name);
            let made = File::options().create(true).append(true).open(&path);
            made.with_context(|| format!("open({path:?}, O_CREAT)"))?;
        }
        if self.views.is_empty() {
            return Ok(());
        }
        let driver = detect::open(self.kind, &self.root)?;
        for (viewed, view) in &mut self.views {
            if viewed.read_only {
                *view = Some(driver.view(&viewed.layer, Access::ReadOnly)?);
                continue;
            }
            let id: LayerId = random::hex::<32>()?.parse()?;
            let note = driver.store().note(&id, "")?;
            self.written.push((id.clone(), note));
            driver.create(&id, Some(&viewed.layer))?;
            *view = Some(driver.view(&id, Access::ReadWrite)?);
        }
        Ok(())
    }

    fn on_host(&mut self, _: Pid) -> Result<()> {
        for (_, view) in &mut self.views {
            if let Some(view) = view {
                view.handed_over();
            }
        }
        Ok(())
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        let views = self.views.iter();
        views
            .filter_map(|(_, view)| view.as_ref()?.keeps())
            .collect()
    }

    fn in_container(&mut self) -> Result<()> {
        if self.is_empty() || self.begun {
            return Ok(());
        }
        self.begun = true;
        // Before the first mount: mounts may propagate to the host.
        cut_off()?;
        let memory = FileSystem::new("tmpfs")?;
        memory.set("mode", "0711")?;
        let memory = detached::mount(memory, Access::ReadWrite, Access::ReadWrite)?;
        attach(memory, &self.place)?;
        for (number, secret) in self.secrets.iter().enumerate() {
            self.put(number, secret)?;
        }
        let place = self.place.clone();
        for (number, (viewed, view)) in self.views.iter_mut().enumerate() {
            let whole = place.join(format!("whole-{number}"));
            fs::create_dir(&whole).with_context(|| format!("mkdir({whole:?})"))?;
            if let Some(view) = view {
                view.mount(&whole)?;
            }
            show(&whole, &viewed.path, &place.join(format!("view-{number}")))?;
        }
        self.views.clear();
        self.secrets.clear();
        Ok(())
    }

    fn cleanup(&mut self) -> Result<()> {
        // Layers that are mounted cannot be removed.
        self.views.clear();
        if self.written.is_empty() {
            return Ok(());
        }
        let driver: Box<dyn StorageDriver> = detect::open(self.kind, &self.root)?;
        for (id, _note) in self.written.drain(..) {
            remove_container(&*driver, &id)?;
            driver.store().forget(&id)?;
        }
        Ok(())
    }
}
