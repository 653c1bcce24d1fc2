//! The commands of `step-07`.

use std::io::{Write, stdout};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use kit::sys;
use nix::sys::signal::Signal;
use process::Exit;

use crate::group::find;
use crate::lab::hierarchy;
use crate::lab::tool::{self as lab, HierarchyTool};
use crate::observe::freeze::{self, GroupState};
use crate::observe::stats::{self};
use crate::observe::table::{details, table};
use crate::observe::top;

/// What `step-07` can do besides launching.
#[derive(Subcommand, Clone, Debug)]
pub enum Tool {
    /// Show the resource usage of a container, or a table of all containers
    Stats(StatsArgs),
    /// Show the table of all containers, updated every second, until q is
    /// pressed
    Top,
    /// Freeze all processes of a container
    Pause(GroupArgs),
    /// Thaw a frozen container
    Resume(GroupArgs),
    /// Create and examine v1 hierarchies
    #[command(subcommand)]
    Hierarchy(HierarchyTool),
    /// Remove the groups of killed launchers, and all hierarchies created by
    /// step-07
    Restore,
}

/// The argument of `step-07 stats`.
#[derive(Args, Clone, Debug)]
pub struct StatsArgs {
    /// A process in the group, or the group's name [default: a table of all containers]
    #[arg(value_name = "PID|GROUP")]
    pub group: Option<String>,
}

/// The argument of `step-07 pause` and `step-07 resume`.
#[derive(Args, Clone, Debug)]
pub struct GroupArgs {
    /// A process in the group, or the group's name
    #[arg(value_name = "PID|GROUP")]
    pub group: String,
}

/// Runs a command.
pub fn run(tool: Tool) -> Result<Exit> {
    match tool {
        Tool::Stats(args) => stats(args),
        Tool::Top => top::run(),
        Tool::Pause(args) => set(&args.group, GroupState::Frozen),
        Tool::Resume(args) => set(&args.group, GroupState::Thawed),
        Tool::Hierarchy(tool) => lab::run(tool),
        Tool::Restore => restore(),
    }
}

/// Prints the use of one group, or a table of the groups of all containers.
fn stats(args: StatsArgs) -> Result<Exit> {
    // A reader that closes the pipe early (`| head`) ends this program quietly.
    sys::signals::default_action(Signal::SIGPIPE)?;
    let text = match args.group {
        Some(what) => details(&stats::of(&find::group(&what)?)?),
        None => table(&stats::all()?, None),
    };
    stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")?;
    Ok(Exit::Code(0))
}

/// Freezes or thaws the group of a container. Refuses the group of any other
/// process.
fn set(what: &str, state: GroupState) -> Result<Exit> {
    let group = find::group(what)?;
    // The group of another process may contain the caller's own shell.
    if let Some(member) = group.members.iter().find(|m| !find::is_container(&m.dir)) {
        bail!("{} is not the group of a container", member.dir.display());
    }
    freeze::set(&group, state)?;
    Ok(Exit::Code(0))
}

/// Removes the groups of launchers that were killed, and the hierarchies of
/// `step-07 hierarchy make`, and prints each in a line.
fn restore() -> Result<Exit> {
    let hierarchies = hierarchy::remove_all();
    let groups = find::sweep();
    for name in hierarchies.iter().flatten() {
        kit::outln!("removed hierarchy {name}")?;
    }
    for dir in groups.iter().flatten() {
        kit::outln!("removed cgroup {}", dir.display())?;
    }
    hierarchies?;
    groups.map(|_| Exit::Code(0))
}
