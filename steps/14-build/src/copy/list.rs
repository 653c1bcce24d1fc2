//! The child that copies, as a launch. It mounts the layer and copies instead of
//! executing a command: nothing of the image is loaded or executed.
//!
//! There is no `-init` layer below, as a container has one: what a `COPY` makes
//! is exactly what it says, also on `scratch`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use engine::cli::places::Places;
use engine::spec::Spec;
use kit::sys::exit;
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;
use process::{Command, Container, Exit, Isolation};
use rustix::fs::OFlags;
use union::driver::{Access, View};

use union::mounts::private::cut_off;
use union::{LayerId, StorageDriver, detect, remove_container, sweep};
use user::User;

use crate::context::ignore::Ignore;
use crate::copy::look::{Look, Looks};
use crate::copy::put::put;
use crate::copy::stage::{Links, Stage};
use crate::copy::tree::Tree;
use crate::copy::{Copied, From, Job, Source, Sources};

/// A layer that exists as long as this process lives, or until it is removed.
struct Made {
    driver: Box<dyn StorageDriver>,
    id: LayerId,
    /// Its lock says that this process lives.
    _note: File,
}

impl Made {
    fn new(places: &Places, spec: &Spec) -> Result<Self> {
        let driver = detect::open(spec.driver, &places.root)?;
        sweep(&*driver)?;
        let id: LayerId = spec.id.parse()?;
        let note = driver.store().note(&id, "")?;
        let made = Made {
            driver,
            id,
            _note: note,
        };
        match made.driver.create(&made.id, Some(&spec.layer)) {
            Ok(()) => Ok(made),
            Err(error) => Err(made.removed_after(error)),
        }
    }

    fn remove(self) -> Result<()> {
        remove_container(&*self.driver, &self.id)?;
        self.driver.store().forget(&self.id)
    }

    fn removed_after(self, error: anyhow::Error) -> anyhow::Error {
        match self.remove() {
            Ok(()) => error,
            Err(also) => error.context(format!("and its layer stays: {also:#}")),
        }
    }
}

/// What the child does.
enum Work {
    Copy,
    /// Writes [`Sources`] into the pipe.
    Look(Option<File>),
    /// Fills a directory of the host, and gives it the look of the source, but
    /// for this mode, user and group.
    Fill((Option<u32>, Option<u32>, Option<u32>)),
}

/// The isolation that copies, and then ends the process.
struct Copying {
    job: Job,
    work: Work,
    /// The layer that is filled, and the one from which the files come.
    to: Option<Box<dyn View>>,
    from: Option<Box<dyn View>>,
    roots: (Option<OwnedFd>, Option<OwnedFd>),
}

impl Isolation for Copying {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn namespaces(&self) -> CloneFlags {
        CloneFlags::CLONE_NEWNS
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        let views = [&self.to, &self.from];
        let views = views.into_iter().flatten().filter_map(|view| view.keeps());
        let roots = [&self.roots.0, &self.roots.1];
        let roots = roots.into_iter().flatten().map(AsFd::as_fd);
        let pipe = match &self.work {
            Work::Look(Some(pipe)) => Some(pipe.as_fd()),
            _ => None,
        };
        views.chain(roots).chain(pipe).collect()
    }

    /// The launcher's copies are closed: who reads would wait for its end.
    fn on_host(&mut self, _: Pid) -> Result<()> {
        for view in [&mut self.to, &mut self.from].into_iter().flatten() {
            view.handed_over();
        }
        if let Work::Look(pipe) = &mut self.work {
            *pipe = None;
        }
        Ok(())
    }

    fn in_container(&mut self) -> Result<()> {
        cut_off()?;
        let open = |view: &mut Option<Box<dyn View>>| {
            let root = view.as_mut().map(|view| view.detached());
            root.transpose()
        };
        if self.to.is_some() {
            self.roots.0 = open(&mut self.to)?;
        }
        self.roots.1 = open(&mut self.from)?;
        Ok(())
    }

    fn before_exec(&mut self) -> Result<()> {
        // Files get the modes that are asked for.
        umask(Mode::empty());
        let from = match self.roots.1.take() {
            Some(root) => Some(Tree::layer(root)),
            None => context(&self.job)?,
        };
        if let Work::Look(pipe) = &mut self.work {
            let mut pipe = pipe.take().context("no pipe")?;
            let sources = self.job.looked_at(from.as_ref(), None)?;
            let text = serde_json::to_vec(&sources)?;
            pipe.write_all(&text).context("write to a pipe")?;
            exit(0)
        }
        let root = self.roots.0.take().context("no root")?;
        let look = match &self.work {
            Work::Fill(given) => Some(self.look_of_directory(from.as_ref(), *given)?),
            _ => None,
        };
        let also = root.try_clone().context("dup")?;
        let mut copied = put(&self.job, from.as_ref(), root)?;
        if let Some(look) = look {
            let again = also.try_clone().context("dup")?;
            let stage = Stage::new(again, Links::Followed, (0, 0), None)?;
            stage.write(also.as_fd(), &look)?;
            copied.lost |= stage.has_lost();
        }
        exit(copied.status())
    }

    /// Layers that are mounted cannot be removed.
    fn cleanup(&mut self) -> Result<()> {
        (self.to, self.from) = (None, None);
        Ok(())
    }
}

impl Copying {
    /// The look of the directory that fills another one.
    fn look_of_directory(
        &self,
        tree: Option<&Tree>,
        (mode, uid, gid): (Option<u32>, Option<u32>, Option<u32>),
    ) -> Result<Look> {
        let (Some(tree), Some(Source::Path(path))) = (tree, self.job.sources.first()) else {
            bail!("no source");
        };
        let items = tree.items(path, false)?;
        let item = items
            .first()
            .with_context(|| format!("{path:?}: not found"))?;
        ensure!(item.found.is_directory(), "{path:?} is not a directory");
        let found = &item.found;
        let mut look = tree.look(found.file.as_fd(), &found.stat, &found.path)?;
        look.mode = mode.unwrap_or(look.mode);
        look.owner = (uid.unwrap_or(look.owner.0), gid.unwrap_or(look.owner.1));
        Ok(look)
    }
}

/// The files of the context.
pub fn context(job: &Job) -> Result<Option<Tree>> {
    let From::Context(Some(files)) = &job.from else {
        return Ok(None);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&files.directory, flags, rustix::fs::Mode::empty())
        .with_context(|| format!("open {:?}", files.directory))?;
    let ignore = files.ignore.as_deref().map(Ignore::parse).transpose()?;
    let looks = match files.unpacked {
        true => Some(Looks::read(&files.directory)?),
        false => None,
    };
    Ok(Some(Tree::context(root, ignore, looks)))
}

// ANCHOR: list
/// Builds the child. Root's child is root of the host, as the owner of the
/// layers, whatever users its containers have; that of anybody else is root of a
/// user namespace.
fn child(spec: &Spec, copying: Copying) -> Container {
    // Never executed.
    let command = Command {
        argv: vec!["copy".into()],
        env: Vec::new(),
    };
    let container = Container::new(command).keep_terminal();
    let container = match rustix::process::geteuid().is_root() {
        true => container,
        false => container.with(User::new(spec.user.clone())),
    };
    container.with(copying)
}
// ANCHOR_END: list

/// The layer from which the files of a job come, if they come from one.
fn layer_of(job: &Job) -> Option<&LayerId> {
    let from_tree = job.sources.iter().any(|one| matches!(one, Source::Path(_)));
    match &job.from {
        From::Layer(layer) if from_tree => Some(layer),
        _ => None,
    }
}

/// Carries out a job; see [`run`](crate::copy::run).
pub fn copy<T>(
    places: &Places,
    spec: &Spec,
    job: &Job,
    harvest: impl FnOnce(&dyn StorageDriver, &LayerId, Copied) -> Result<T>,
) -> Result<T> {
    let made = Made::new(places, spec)?;
    let done = (|| {
        let copied = fill(&made, spec, job)?;
        harvest(&*made.driver, &made.id, copied)
    })();
    match done {
        Ok(done) => made.remove().map(|()| done),
        Err(error) => Err(made.removed_after(error)),
    }
}

fn fill(made: &Made, spec: &Spec, job: &Job) -> Result<Copied> {
    let driver = &*made.driver;
    let from = layer_of(job).map(|layer| driver.view(layer, Access::ReadOnly));
    let copying = Copying {
        job: job.clone(),
        work: Work::Copy,
        to: Some(driver.view(&made.id, Access::ReadWrite)?),
        from: from.transpose()?,
        roots: (None, None),
    };
    match child(spec, copying).run().map_err(plain)? {
        Exit::Code(code) => Copied::of_status(code).context("the copying process has failed"),
        _ => bail!("the copying process was killed"),
    }
}

/// Fills a directory of the host with files of a layer; see
/// [`fill`](crate::copy::fill).
pub fn fill_directory(
    places: &Places,
    spec: &Spec,
    job: &Job,
    to: &Path,
    looks: (Option<u32>, Option<u32>, Option<u32>),
) -> Result<()> {
    let driver = detect::open(spec.driver, &places.root)?;
    let layer = layer_of(job).context("no layer")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(to, flags, rustix::fs::Mode::empty())
        .with_context(|| format!("open {to:?}"))?;
    let copying = Copying {
        job: job.clone(),
        work: Work::Fill(looks),
        to: None,
        from: Some(driver.view(layer, Access::ReadOnly)?),
        roots: (Some(root), None),
    };
    match child(spec, copying).run().map_err(plain)? {
        Exit::Code(code) if Copied::of_status(code).is_some() => Ok(()),
        _ => bail!("the copying process was killed"),
    }
}

/// Looks at the sources of a job that lie in a layer.
pub fn look(places: &Places, spec: &Spec, job: &Job, layer: &LayerId) -> Result<Sources> {
    let driver = detect::open(spec.driver, &places.root)?;
    let (mut ours, theirs) = std::io::pipe().context("pipe")?;
    let copying = Copying {
        job: job.clone(),
        work: Work::Look(Some(File::from(OwnedFd::from(theirs)))),
        to: None,
        from: Some(driver.view(layer, Access::ReadOnly)?),
        roots: (None, None),
    };
    let running = child(spec, copying).create().map_err(plain)?.start();
    let mut text = Vec::new();
    let read = ours.read_to_end(&mut text);
    let exit = running.and_then(|running| running.wait()).map_err(plain)?;
    read.context("read from a pipe")?;
    ensure!(exit == Exit::Code(0), "the process that looks was killed");
    serde_json::from_slice(&text).context("read what the child says")
}

/// An error of the child's without the name of the isolation.
fn plain(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    match text.strip_prefix("copy: ") {
        Some(rest) => anyhow::anyhow!("{rest}"),
        None => error,
    }
}
