//! `probe` on file systems: operations one after the other, and a picture of
//! what came of them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use harness::fsops::{self, Op, Operated};

/// What to do.
#[derive(Subcommand)]
pub enum Files {
    /// Do a list of operations (JSON) in a directory, and print what the kernel
    /// said to each, and the tree that came of them
    Operate {
        /// Where
        directory: PathBuf,
        /// The operations
        #[arg(default_value = "[]")]
        operations: String,
    },
}

impl Files {
    /// Does it.
    pub fn run(self) -> Result<Operated> {
        let Files::Operate {
            directory,
            operations,
        } = self;
        let operations: Vec<Op> =
            serde_json::from_str(&operations).context("parse the operations")?;
        Ok(Operated {
            said: fsops::run(&directory, &operations),
            tree: fsops::tree(&directory)?,
        })
    }
}
