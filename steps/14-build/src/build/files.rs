//! `WORKDIR`: a directory of a layer, without a command.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use engine::cli::places::Places;
use engine::list::layers;
use engine::spec::Spec;
use kit::sys::exit;
use process::{Command, Container, Exit, Isolation};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fchown, mkdirat, openat2};
use rustix::io::Errno;
use union::Harvest;
use user::User;

/// Makes the working directory of a container.
pub fn directory(places: &Places, spec: &Spec, harvest: Harvest) -> Result<Exit> {
    let union = layers(spec, places)?.harvest(Some(harvest));
    let root = union.mount_point().context("no layers")?;
    // Never executed.
    let command = Command {
        argv: vec!["mkdir".into()],
        env: Vec::new(),
    };
    Container::new(command)
        .keep_terminal()
        .with(User::new(spec.user.clone()))
        .with(union)
        .with(Making {
            root,
            path: spec.workdir.clone(),
        })
        .run()
}

/// The isolation that makes a directory, and then ends the process.
struct Making {
    root: PathBuf,
    path: PathBuf,
}

impl Isolation for Making {
    fn name(&self) -> &'static str {
        "workdir"
    }

    fn before_exec(&mut self) -> Result<()> {
        nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        make_directory(&self.root, &self.path, None)?;
        exit(0)
    }
}

/// Makes a directory of a root, and those above it. Links do not lead out.
fn make_directory(root: &Path, path: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let top = openat2(CWD, root, flags, Mode::empty(), ResolveFlags::empty())
        .with_context(|| format!("open({root:?})"))?;
    let mut so_far = PathBuf::new();
    let mut directory: OwnedFd = top.try_clone().context("dup")?;
    for name in path.strip_prefix("/").unwrap_or(path) {
        so_far.push(name);
        let mut found = openat2(&top, &so_far, flags, Mode::empty(), inside);
        if matches!(found, Err(Errno::NOENT)) {
            mkdirat(&directory, name, Mode::from_raw_mode(0o755))
                .with_context(|| format!("mkdir(/{})", so_far.display()))?;
            found = openat2(&top, &so_far, flags, Mode::empty(), inside);
            if let (Ok(made), Some((uid, gid))) = (&found, owner) {
                fchown(
                    made,
                    Some(rustix::fs::Uid::from_raw(uid)),
                    Some(rustix::fs::Gid::from_raw(gid)),
                )
                .with_context(|| format!("chown(/{})", so_far.display()))?;
            }
        }
        directory = found.with_context(|| format!("open(/{})", so_far.display()))?;
    }
    Ok(())
}
