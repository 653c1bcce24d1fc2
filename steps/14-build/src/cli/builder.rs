//! `builder prune`, and the groups of commands that have more in this step.

use anyhow::Result;
use clap::{Args, Subcommand};
use engine::cli::places::Places;
use lifecycle::config::Config;
use process::Exit;
use registry::cli::{All, Here, image};

use crate::build::prune;
use crate::cli::build::BuildArgs;

/// `drydock builder …`
#[derive(Subcommand)]
pub enum Builder {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Remove build cache
    Prune(PruneArgs),
}

/// `drydock image …`
#[derive(Subcommand)]
pub enum Image {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Those of step 13.
    #[command(flatten)]
    Group(image::Group),
}

/// The options of `builder prune`.
#[derive(Args)]
pub struct PruneArgs {
    /// Remove all unused build cache, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. 'until=24h')
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

/// `builder prune`.
pub(super) fn prune(here: &Here, args: &PruneArgs) -> Result<Exit> {
    let _ = (&args.filter, args.force);
    prune::prune(here, args.all)
}

/// Runs a command of an earlier step.
pub(super) fn all(command: All, places: &Places, config: &Config) -> Result<Exit> {
    command.run(places, config)
}
