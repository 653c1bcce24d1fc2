//! The child that copies, as a launch. Of a container that runs it is given the
//! root, and enters at most its user namespace: so it has the rights of the
//! container's root, and no more. Of one that does not run, it mounts layers and
//! volumes as a start would.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use engine::cli::places::Places;
use engine::container::Record;
use engine::list::layers;
use engine::volume::Volumes;
use engine::volume::mounts::VolumeMounts;
use kit::sys::exit;
use mount::InPlace;
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, umask};
use process::{Command, Container, Isolation};
use rustix::fs::{OFlags, open};
use std::os::unix::fs::MetadataExt;
use user::User;
use user::isolation::become_root;

use crate::copy::names::Names;
use crate::copy::receive::{Destination, receive};
use crate::copy::send::{Source, send};

/// What the child does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Writes files of the container into the pipe.
    Send(Source),
    /// Makes files of what comes from the pipe.
    Receive(Destination),
}

/// Where the child finds the container's files.
enum Root {
    /// The root of a process.
    Open(OwnedFd),
    /// A directory on which everything is mounted.
    At(PathBuf),
}

/// The isolation that copies, and then ends the process.
struct Copying {
    root: Root,
    work: Work,
    pipe: Option<File>,
    /// The container, for errors.
    name: String,
}

impl Isolation for Copying {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        let root = match &self.root {
            Root::Open(root) => Some(root.as_fd()),
            Root::At(_) => None,
        };
        let pipe = self.pipe.as_ref().map(AsFd::as_fd);
        root.into_iter().chain(pipe).collect()
    }

    /// The launcher's copy is closed: who reads would wait for its end.
    fn on_host(&mut self, _: nix::unistd::Pid) -> Result<()> {
        self.pipe = None;
        Ok(())
    }

    fn before_exec(&mut self) -> Result<()> {
        let root = match &self.root {
            Root::Open(root) => root.try_clone().context("dup")?,
            Root::At(path) => Names::Host.directory(path)?,
        };
        let names = Names::Inside(root);
        let mut pipe = self.pipe.take().context("no pipe")?;
        // Files get the modes that the archive names.
        umask(Mode::empty());
        match &self.work {
            Work::Send(source) => {
                if !send(&names, source, &mut pipe)? {
                    bail!(
                        "Could not find the file {} in container {}",
                        source.written.path.display(),
                        self.name
                    );
                }
            }
            Work::Receive(to) => {
                receive(&names, to, &mut pipe)?;
                // To its end, or who writes gets SIGPIPE for a few zeroes.
                let mut rest = pipe.take(64 << 20);
                std::io::copy(&mut rest, &mut std::io::sink()).context("read the archive")?;
            }
        }
        exit(0)
    }
}

/// The isolation that enters a user namespace.
struct Users(File);

impl Isolation for Users {
    fn name(&self) -> &'static str {
        "user"
    }

    fn joins(&self) -> Option<(BorrowedFd<'_>, CloneFlags)> {
        Some((self.0.as_fd(), CloneFlags::CLONE_NEWUSER))
    }

    fn in_container(&mut self) -> Result<()> {
        become_root()
    }
}

/// Builds the child.
///
/// # Errors
/// If the container's first process ends meanwhile.
// ANCHOR: list
pub fn child(places: &Places, record: &Record, work: Work, pipe: OwnedFd) -> Result<Container> {
    let spec = &record.spec;
    let copying = |root| Copying {
        root,
        work,
        pipe: Some(pipe.into()),
        name: spec.name.clone(),
    };
    // Never executed.
    let command = Command {
        argv: vec!["cp".into()],
        env: Vec::new(),
    };
    let container = Container::new(command).keep_terminal();
    if record.is_running() && record.pid != 0 {
        let (root, users) = of_process(record)?;
        let container = match users {
            Some(users) => container.with(Users(users)),
            None => container,
        };
        return Ok(container.with(copying(Root::Open(root))));
    }
    let users = spec.user.other_users()?;
    let union = layers(spec, places)?.keep().for_users(users.clone())?;
    let place = union.mount_point().context("no layers")?;
    let volumes = Volumes::new(&places.root);
    let volumes = VolumeMounts::new(volumes, spec, Some(place.clone()), users).keep();
    let mounts = InPlace::new(place.clone(), volumes.binds(), spec.files.read_only);
    Ok(container
        .with(User::new(spec.user.clone()))
        .with(union)
        .with(volumes)
        .with(mounts)
        .with(copying(Root::At(place))))
}
// ANCHOR_END: list

/// The root of a container's first process, with everything that is mounted
/// there, and its user namespace if that is not the caller's.
fn of_process(record: &Record) -> Result<(OwnedFd, Option<File>)> {
    let pid = record.pid;
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        open(&*path, flags, rustix::fs::Mode::empty()).with_context(|| format!("open {path}"))?;
    let path = format!("/proc/{pid}/ns/user");
    let users = match File::open(&path) {
        Ok(users) => Some(users),
        // A kernel without user namespaces.
        Err(error) if !Path::new("/proc/self/ns/user").exists() => {
            kit::say!("{path}: {error}");
            None
        }
        Err(error) => return Err(Error::new(error).context(format!("open {path}"))),
    };
    // They are open now: those of this process, and not of another one with its
    // PID.
    ensure!(
        record.launcher.is_parent_of(pid),
        "container {} is not running",
        record.spec.name
    );
    let Some(users) = users else {
        return Ok((root, None));
    };
    let own = std::fs::metadata("/proc/self/ns/user").context("stat /proc/self/ns/user")?;
    let its = users.metadata().context("fstat")?;
    let same = (own.dev(), own.ino()) == (its.dev(), its.ino());
    Ok((root, (!same).then_some(users)))
}
