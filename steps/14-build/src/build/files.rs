//! `WORKDIR`: a directory of a layer, without a command.

use std::path::PathBuf;

use anyhow::{Context, Result};
use engine::cli::places::Places;
use engine::list::layers;
use engine::spec::Spec;
use kit::sys::exit;
use nix::sched::CloneFlags;
use nix::sys::stat::umask;
use process::{Command, Container, Exit, Isolation};
use rustix::fs::{Mode, OFlags, open};
use union::Harvest;
use user::User;

use crate::copy::owner::owner;
use crate::copy::stage::{Links, Stage};

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
            user: spec.user.user.as_ref().map(ToString::to_string),
        })
        .run()
}

/// The isolation that makes a directory, and then ends the process.
struct Making {
    root: PathBuf,
    path: PathBuf,
    user: Option<String>,
}

impl Isolation for Making {
    fn name(&self) -> &'static str {
        "workdir"
    }

    /// The layers are mounted in a namespace of its own, and end with it.
    fn namespaces(&self) -> CloneFlags {
        CloneFlags::CLONE_NEWNS
    }

    fn before_exec(&mut self) -> Result<()> {
        umask(nix::sys::stat::Mode::empty());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(&self.root, flags, Mode::empty())
            .with_context(|| format!("open({:?})", self.root))?;
        let mut stage = Stage::new(root, Links::Followed, (0, 0), None)?;
        if let Some(user) = &self.user {
            let owner = owner(&stage, user).context("USER")?;
            stage.makes_for(owner);
        }
        stage.directory(&self.path)?;
        stage.finish()?;
        exit(0)
    }
}
