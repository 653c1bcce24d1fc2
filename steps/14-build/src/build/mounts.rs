//! `RUN --mount`: caches, files of other images, memory, secrets.
//!
//! ```text
//! DIR/build/cache/HEX        a cache, by the digest of its ID and of what it is
//!                            filled with
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
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use engine::cli::places::Places;
use engine::image::digest::Digest;
use engine::image::store::names;
use engine::spec::Spec;
use engine::volume::beside::Secret;
use engine::volume::options::{MountSource, Mounted};
use kit::lock::{Turn, try_alone};
use kit::own::make;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use union::LayerId;
use union::layers::trash;

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
    /// What it is filled with when it is made; `None` for nothing.
    pub from: Option<Filling>,
    /// Its permissions, owner and group, when it is made.
    pub looks: (Option<u32>, Option<u32>, Option<u32>),
}

/// What a cache is filled with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filling {
    /// A layer, with those below it.
    pub layer: LayerId,
    /// The path of a directory there.
    pub source: String,
}

impl Used {
    /// The name of its directory. One that is filled with something else is
    /// another cache.
    fn name(&self) -> Digest {
        let mut text = self.id.clone();
        if let Some(Filling { layer, source }) = &self.from {
            text += &format!("\0{layer}\0{source}");
        }
        Digest::of(text.as_bytes())
    }
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

/// Where a `RUN` finds a heredoc that is a program of its own.
pub fn script(name: &str) -> String {
    format!("/dev/pipes/{name}")
}

/// The directory of all caches.
pub fn caches(root: &Path) -> PathBuf {
    root.join("build/cache")
}

/// Takes the caches of a container, and adds them to its description. They are
/// held until the files are closed. Breaks off if the caller goes away meanwhile.
// ANCHOR: take
pub fn take(
    places: &Places,
    used: &[Used],
    spec: &mut Spec,
    caller: &UnixStream,
) -> Result<Vec<File>> {
    let mut held = Vec::new();
    for cache in used {
        let (data, lock) = take_one(places, cache, spec, caller)
            .with_context(|| format!("the cache {:?}", cache.id))?;
        held.push(lock);
        spec.files.mounted.push(Mounted {
            source: MountSource::Host {
                path: data,
                make: false,
            },
            target: cache.target.clone(),
            read_only: cache.read_only,
            nonrecursive: false,
        });
    }
    Ok(held)
}
// ANCHOR_END: take

fn take_one(
    places: &Places,
    cache: &Used,
    spec: &Spec,
    caller: &UnixStream,
) -> Result<(PathBuf, File)> {
    let directory = caches(&places.root);
    if let Some(above) = directory.parent() {
        make(above, 0o711)?;
    }
    make(&directory, 0o711)?;
    let name = cache.name();
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
                made(&place, &data, |new| filled(places, cache, spec, new))?;
            }
            return Ok((data, file));
        }
    }
    bail!("all of them are in use")
}

/// Makes the directory of a cache, whole or not at all: one that is not yet filled
/// has another name. Of those who want it at the same time one fills it.
// ANCHOR: made
fn made(place: &Path, data: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let Some(_alone) = kit::lock::directory(place, Turn::Judging)? else {
        bail!("{place:?} is gone");
    };
    if data.exists() {
        return Ok(());
    }
    for name in names(place)? {
        // What a build that was killed has begun.
        if name.starts_with(".data-") {
            trash::discard(&place.join(name))?;
        }
    }
    let new = place.join(format!(".data-{}", kit::random::hex::<8>()?));
    let done = fs::create_dir(&new)
        .with_context(|| format!("mkdir({new:?})"))
        .and_then(|()| fill(&new))
        .and_then(|()| {
            fs::rename(&new, data).with_context(|| format!("rename({new:?}, {data:?})"))
        });
    if done.is_err() && new.exists() {
        trash::discard(&new)?;
    }
    done
}
// ANCHOR_END: made

/// Fills the directory of a new cache.
fn filled(places: &Places, cache: &Used, spec: &Spec, new: &Path) -> Result<()> {
    let (mode, uid, gid) = cache.looks;
    if let Some(Filling { layer, source }) = &cache.from {
        return crate::copy::fill(places, spec, (layer, source), new, cache.looks)
            .with_context(|| format!("source={source}"));
    }
    fs::set_permissions(new, fs::Permissions::from_mode(mode.unwrap_or(0o755)))
        .with_context(|| format!("chmod({new:?})"))?;
    match (uid.unwrap_or(0), gid.unwrap_or(0)) {
        (0, 0) => Ok(()),
        (uid, gid) => chown(new, Some(uid), Some(gid)).with_context(|| format!("chown({new:?})")),
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
