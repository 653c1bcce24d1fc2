//! `builder prune`, and the groups of commands that have more in this step.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use engine::cli::places::Places;
use lifecycle::cli::is_sure;
use lifecycle::cli::words::bytes;
use lifecycle::config::Config;
use process::Exit;
use registry::cli::{All, Here, image};

use crate::build::prune::{self, Kept, Wanted};
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
    /// The commands of step 13.
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
    let mut wanted = Wanted {
        all: args.all,
        unused_for: None,
    };
    for filter in &args.filter {
        match filter.split_once('=') {
            Some(("until" | "unused-for", time)) => {
                let least = humantime::parse_duration(time);
                wanted.unused_for = Some(least.with_context(|| format!("--filter {filter}"))?);
            }
            _ => bail!("invalid filter '{filter}': use until=24h"),
        }
    }
    if !args.force {
        let what = match args.all {
            true => "all build cache",
            false => "all dangling build cache",
        };
        if !is_sure(&format!("WARNING! This will remove {what}.\n"))? {
            return Ok(Exit::Code(0));
        }
    }
    let pruned = prune::prune(&here.images, &prune::kinds(&here.images), wanted)?;
    if !pruned.ids.is_empty() {
        kit::outln!("Deleted build cache objects:\n{}\n", pruned.ids.join("\n"))?;
    }
    kit::outln!("Total reclaimed space: {}", bytes(pruned.bytes))?;
    Ok(Exit::Code(0))
}

/// Runs a command of an earlier step.
pub(super) fn all(command: All, places: &Places, config: &Config) -> Result<Exit> {
    let here = Here::open(places, config.storage_driver)?;
    command.run(places, config, &Kept { here: &here })
}
