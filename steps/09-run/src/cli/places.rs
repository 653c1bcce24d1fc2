//! The directories of the engine: `--root` and `--state`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

/// The directories of the engine, for every command.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Global options")]
pub struct PlacesArgs {
    /// State directory for images, layers and volumes [default:
    /// /var/lib/drydock, or $XDG_DATA_HOME/drydock without root]
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,

    /// Directory for the records of containers [default: containers in --root]
    #[arg(long, value_name = "DIR", global = true)]
    pub state: Option<PathBuf>,

    /// Print each step of the engine on standard error
    #[arg(long, global = true)]
    pub verbose: bool,
}

/// The directories of the engine, absolute. Neither needs to exist.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory of images, layers and volumes.
    pub root: PathBuf,
    /// The directory of the records of containers.
    pub state: PathBuf,
}

impl PlacesArgs {
    /// Fills in the defaults and makes both paths absolute.
    ///
    /// # Errors
    /// If an ordinary user has neither `XDG_DATA_HOME` nor `HOME`, and no
    /// `--root` is given.
    pub fn places(self) -> Result<Places> {
        let root = match self.root {
            Some(root) => root,
            None => union::layers::store::default_root()?,
        };
        let root = std::path::absolute(&root)?;
        let state = match self.state {
            Some(state) => std::path::absolute(state)?,
            None => root.join("containers"),
        };
        Ok(Places { root, state })
    }
}
