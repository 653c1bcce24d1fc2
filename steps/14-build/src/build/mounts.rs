//! `RUN --mount`: caches, files of other images, memory, secrets.
//!
//! ```text
//! DIR/build/cache/HEX        a cache, by the digest of its ID
//! DIR/build/cache/HEX.N      a further one of the same ID, for `sharing=private`
//! DIR/build/cache/HEX/lock   locked by who uses it
//! DIR/build/cache/HEX/data   its files
//! ```
//!
//! Nothing of a mount gets into the layer, not even the place at which it was
//! mounted. A secret gets nowhere but into the memory of the process that makes
//! the container, and into a file system in memory that only this container has.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use engine::image::digest::Digest;
use engine::spec::Spec;
use engine::volume::beside::{Secret, Viewed};
use engine::volume::options::{MountSource, Mounted, from_root};
use kit::lock::try_alone;
use kit::own::make;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::build::cache::Inputs;
use crate::build::options::SecretSource;
use crate::build::run::script;
use crate::build::stage::Stage;
use crate::copy::{From, Job, Source};
use crate::dockerfile::instruction::Run;
use crate::dockerfile::mount::{Kind, RunMount, Sharing};

/// The largest secret, in bytes: BuildKit's.
const LARGEST: u64 = 500 << 10;

/// The secrets of a container: files, and variables.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Secrets {
    /// Files in memory.
    pub files: Vec<Secret>,
    /// `NAME=VALUE`.
    #[serde(with = "kit::text")]
    pub variables: Vec<OsString>,
}

/// A cache that a container uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Its ID.
    pub id: String,
    /// The path in the container.
    #[serde(with = "kit::text")]
    pub target: PathBuf,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Who may use it at the same time.
    pub sharing: Shared,
    /// Its permissions, owner and group, when it is made.
    pub looks: (u32, u32, u32),
}

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shared {
    /// All.
    All,
    /// One after the other.
    One,
    /// All, each with one of its own.
    Own,
}

/// The mounts of a `RUN`.
#[derive(Debug, Default)]
pub struct Mounts {
    /// Its caches.
    pub caches: Vec<Used>,
    /// Its secrets.
    pub secrets: Secrets,
}

impl Mounts {
    /// Adds a heredoc that begins with `#!`: a file that is seen while it runs.
    pub fn script(&mut self, name: &str, text: &str, spec: &mut Spec) {
        spec.files.traceless = true;
        self.secrets.files.push(Secret {
            content: text.as_bytes().to_vec(),
            target: PathBuf::from(script(name)),
            mode: 0o755,
            uid: 0,
            gid: 0,
        });
    }
}

impl Stage<'_> {
    /// Reads the mounts of a `RUN`, and adds them to the description of its
    /// container and to what its layer depends on.
    pub fn mounts(&self, run: &Run, spec: &mut Spec, inputs: &mut Inputs) -> Result<Mounts> {
        let mut mounts = Mounts::default();
        spec.files.traceless = !run.mounts.is_empty();
        for text in &run.mounts {
            let text = self.variables().word(text)?;
            let mount = RunMount::parse(&text)?;
            self.mount(&mount, spec, inputs, &mut mounts)
                .with_context(|| format!("--mount={text}"))?;
        }
        Ok(mounts)
    }

    fn mount(
        &self,
        mount: &RunMount,
        spec: &mut Spec,
        inputs: &mut Inputs,
        mounts: &mut Mounts,
    ) -> Result<()> {
        let workdir = spec.workdir.clone();
        let inside = |path: &str| from_root(&workdir.join(path).to_string_lossy());
        let target = mount.target.as_deref().map(inside);
        let needed = || {
            let target = target.clone().context("a target is needed")?;
            ensure!(target != Path::new("/"), "invalid mount target \"/\"");
            Ok(target)
        };
        match mount.kind {
            Kind::Ssh => bail!("type=ssh is not supported: use a secret"),
            Kind::Tmpfs => {
                let target = needed()?;
                let size = mount.size.map(|size| format!(":size={size}"));
                spec.files
                    .tmpfs
                    .push(format!("{}{}", target.display(), size.unwrap_or_default()));
            }
            Kind::Cache => {
                ensure!(
                    mount.from.is_none() && mount.source.is_none(),
                    "a cache with from or source is not supported: fill it by a command"
                );
                let target = needed()?;
                mounts.caches.push(Used {
                    id: match &mount.id {
                        Some(id) => id.clone(),
                        None => target.display().to_string(),
                    },
                    target,
                    read_only: mount.readonly,
                    sharing: match mount.sharing {
                        Sharing::Shared => Shared::All,
                        Sharing::Locked => Shared::One,
                        Sharing::Private => Shared::Own,
                    },
                    looks: (
                        mount.mode.unwrap_or(0o755),
                        mount.uid.unwrap_or(0),
                        mount.gid.unwrap_or(0),
                    ),
                });
            }
            Kind::Secret => self.secret(mount, target, &mut mounts.secrets)?,
            Kind::Bind => {
                let viewed = self.bind(mount, needed()?, inputs)?;
                spec.files.viewed.push(viewed);
            }
        }
        Ok(())
    }

    fn secret(
        &self,
        mount: &RunMount,
        target: Option<PathBuf>,
        secrets: &mut Secrets,
    ) -> Result<()> {
        let of_target = target.as_ref().and_then(|target| target.file_name());
        let id = mount
            .id
            .clone()
            .or_else(|| mount.source.clone())
            .or_else(|| Some(of_target?.to_string_lossy().into_owned()))
            .context("a secret needs an id")?;
        let Some(source) = self.build().options.secrets.get(&id) else {
            ensure!(!mount.required, "secret {id}: not found");
            return Ok(());
        };
        let content = read_secret(source).with_context(|| format!("secret {id}"))?;
        if let Some(name) = &mount.env {
            let mut pair = OsString::from(format!("{name}="));
            pair.push(OsString::from_vec(content.clone()));
            secrets.variables.push(pair);
            if target.is_none() {
                return Ok(());
            }
        }
        let usual = || from_root(&format!("/run/secrets/{id}"));
        secrets.files.push(Secret {
            content,
            target: target.unwrap_or_else(usual),
            mode: mount.mode.unwrap_or(0o400),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
        });
        Ok(())
    }

    fn bind(&self, mount: &RunMount, target: PathBuf, inputs: &mut Inputs) -> Result<Viewed> {
        let source = mount.source.clone().unwrap_or_else(|| "/".into());
        let shown = target.display().to_string();
        if let Some(from) = &mount.from {
            let image = self.image_of_copy(from)?;
            let layer = match image.top()? {
                Some(layer) => layer,
                None => self.build().empty_layer()?,
            };
            let path = from_root(&source);
            // The layers below are in the name of the topmost one.
            let what = format!("{} of {}", path.display(), layer);
            inputs.besides.insert(format!("the mount on {shown}"), what);
            return Ok(Viewed {
                layer,
                path,
                target,
                read_only: mount.readonly,
            });
        }
        // Files of the context become a layer of their own, without those that
        // `.dockerignore` leaves out.
        let source = source.trim_start_matches('/').to_owned();
        let source = match source.is_empty() {
            true => ".".to_owned(),
            false => source,
        };
        let job = Job {
            add: false,
            from: From::Context(self.build().context.files.clone()),
            sources: vec![Source::Path(source.clone())],
            destination: "/".into(),
            workdir: "/".into(),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            unpack: None,
            latest: self.build().options.epoch,
            stamp: None,
        };
        let (layer, files) = self.layer_of(job, &format!("{source} for {shown}"))?;
        // A directory's content is copied, a file by its name.
        let name = Path::new(&source).file_name();
        let is_file = name.is_some_and(|name| {
            let file = self.build().context.files.as_ref();
            file.is_some_and(|files| files.directory.join(&source).is_file()) && !name.is_empty()
        });
        let path = match (is_file, name) {
            (true, Some(name)) => Path::new("/").join(name),
            _ => PathBuf::from("/"),
        };
        inputs.files.extend(
            files
                .into_iter()
                .map(|(name, digest)| (format!("{shown}: {name}"), digest)),
        );
        Ok(Viewed {
            layer,
            path,
            target,
            read_only: mount.readonly,
        })
    }
}

fn read_secret(source: &SecretSource) -> Result<Vec<u8>> {
    let content = match source {
        SecretSource::Variable(name) => {
            let value = std::env::var_os(name);
            value
                .with_context(|| format!("the variable {name} is not set"))?
                .into_vec()
        }
        SecretSource::File(path) => {
            let file = File::open(path).with_context(|| format!("open {path:?}"))?;
            let mut content = Vec::new();
            file.take(LARGEST + 1)
                .read_to_end(&mut content)
                .with_context(|| format!("read {path:?}"))?;
            content
        }
    };
    ensure!(
        content.len() as u64 <= LARGEST,
        "it is larger than {} KiB",
        LARGEST >> 10
    );
    Ok(content)
}

/// The directory of all caches.
pub fn caches(root: &Path) -> PathBuf {
    root.join("build/cache")
}

/// Takes the caches of a container, and adds them to its description. They are
/// held until the files are closed. Breaks off if the caller goes away meanwhile.
// ANCHOR: take
pub fn take(root: &Path, used: &[Used], spec: &mut Spec, caller: &UnixStream) -> Result<Vec<File>> {
    let directory = caches(root);
    let mut held = Vec::new();
    for cache in used {
        let (data, lock) = take_one(&directory, cache, caller)
            .with_context(|| format!("the cache {:?}", cache.id))?;
        held.push(lock);
        spec.files.mounted.push(Mounted {
            source: MountSource::Host {
                path: data,
                make: false,
            },
            target: cache.target.clone(),
            read_only: cache.read_only,
        });
    }
    Ok(held)
}
// ANCHOR_END: take

fn take_one(directory: &Path, cache: &Used, caller: &UnixStream) -> Result<(PathBuf, File)> {
    if let Some(above) = directory.parent() {
        make(above, 0o711)?;
    }
    make(directory, 0o711)?;
    let name = Digest::of(cache.id.as_bytes());
    for number in 0.. {
        let place = directory.join(match number {
            0 => name.hex().to_owned(),
            number => format!("{}.{number}", name.hex()),
        });
        loop {
            make(&place, 0o711)?;
            let path = place.join("lock");
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .with_context(|| format!("open({path:?}, O_CREAT)"))?;
            let taken = match cache.sharing {
                Shared::All => wait(&file, FlockOperation::NonBlockingLockShared, caller)?,
                Shared::One => wait(&file, FlockOperation::NonBlockingLockExclusive, caller)?,
                Shared::Own => try_alone(&file, &path)?,
            };
            if !taken {
                break;
            }
            // Somebody may have removed it since.
            if !kit::lock::is_at(&file, &path)? {
                continue;
            }
            file.set_modified(std::time::SystemTime::now())
                .with_context(|| format!("futimens({path:?})"))?;
            let data = place.join("data");
            if !data.exists() {
                made(&data, cache.looks)?;
            }
            return Ok((data, file));
        }
    }
    bail!("all of them are in use")
}

/// Makes the directory of a cache, whole or not at all.
fn made(data: &Path, (mode, uid, gid): (u32, u32, u32)) -> Result<()> {
    let new = data.with_file_name(format!(".data-{}", kit::random::hex::<8>()?));
    let done = fs::create_dir(&new)
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(mode)))
        .and_then(|()| match (uid, gid) {
            (0, 0) => Ok(()),
            (uid, gid) => chown(&new, Some(uid), Some(gid)),
        })
        .and_then(|()| fs::rename(&new, data));
    match done {
        // Somebody else was faster.
        Err(_) if data.exists() => fs::remove_dir(&new).with_context(|| format!("rmdir({new:?})")),
        done => done.with_context(|| format!("make {data:?}")),
    }
}

/// Waits for a lock, or the end of the caller.
fn wait(file: &File, operation: FlockOperation, caller: &UnixStream) -> Result<bool> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(errno) => return Err(errno).context("flock"),
        }
        let mut fds = [PollFd::from_borrowed_fd(caller.as_fd(), PollFlags::IN)];
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        };
        match poll(&mut fds, Some(&pause)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => bail!("the build was broken off"),
            Err(errno) => return Err(errno).context("poll"),
        }
    }
}
