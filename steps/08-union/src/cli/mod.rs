//! The commands that a learner runs.
//!
//! | module | what |
//! |---|---|
//! | [`layer`] | `layer create|diff|tree|rm|ls` |
//! | [`whence`] | `where FILE` |
//! | [`compare`] | `compare`: what the drivers cost |
//! | [`aufs`] | `mount`, `umount`, `branches`: AUFS without a container |
//! | [`drivers`] | `drivers`: the drivers that work here |

pub mod aufs;
pub mod compare;
pub mod drivers;
pub mod layer;
pub mod whence;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use process::Exit;

use crate::detect;
use crate::driver::StorageDriver;
use crate::kind::Kind;
use crate::layers::store::default_root;

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Tool {
    /// Create, show and remove layers
    #[command(subcommand)]
    Layer(layer::LayerTool),
    /// Show which layer a file comes from, and why
    Where(whence::WhereArgs),
    /// Measure the storage drivers: time, copied bytes, disk space
    Compare(compare::CompareArgs),
    /// List the storage drivers, and why some do not work here
    Drivers(drivers::DriversArgs),
}

/// Which store a command works on.
#[derive(Args, Clone, Debug, Default)]
pub struct StoreArgs {
    /// Storage driver [default: overlay2 if it works here, else vfs]
    #[arg(long, value_enum, value_name = "DRIVER")]
    pub driver: Option<Kind>,

    /// State directory for layers [default: /var/lib/drydock, or
    /// $XDG_DATA_HOME/drydock without root]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Print each operation on standard error
    #[arg(short, long)]
    pub verbose: bool,
}

impl StoreArgs {
    /// The state directory: that of `--root`, or the default.
    pub fn root(&self) -> Result<PathBuf> {
        match &self.root {
            Some(root) => Ok(root.clone()),
            None => default_root(),
        }
    }

    /// The driver of `--driver`, or the default. Enables [`say!`](kit::say!) if
    /// `-v` was given.
    pub fn kind(&self) -> Result<Kind> {
        kit::set_verbose(self.verbose);
        match self.driver {
            Some(kind) => Ok(kind),
            None => detect::preferred(&self.root()?),
        }
    }

    /// Opens the driver.
    pub fn open(&self) -> Result<Box<dyn StorageDriver>> {
        detect::open(self.kind()?, &self.root()?)
    }
}

/// Runs one of the commands.
pub fn run(tool: Tool) -> Result<Exit> {
    match tool {
        Tool::Layer(tool) => layer::run(tool),
        Tool::Where(args) => whence::run(args),
        Tool::Compare(args) => compare::run(args),
        Tool::Drivers(args) => drivers::run(args),
    }?;
    Ok(Exit::Code(0))
}
