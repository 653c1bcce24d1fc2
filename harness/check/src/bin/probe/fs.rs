//! `probe` on file systems: performs operations in sequence, and prints the
//! resulting tree.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use check::fsops::{self, Op, Operated};
use clap::Subcommand;

use crate::print;

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Files {
    /// Do a list of operations (JSON) in a directory, and print what the kernel
    /// said to each, and the tree that came of them
    Operate {
        /// Where
        directory: PathBuf,
        /// The operations
        #[arg(default_value = "[]")]
        operations: String,
    },
    /// The same with a list of such lists, each in a tree of its own below the
    /// directory: FIRST, FIRST + 1…
    OperateAll {
        /// Where the trees are
        directory: PathBuf,
        /// The name of the first
        first: usize,
        /// The operations
        sequences: String,
    },
    /// Make such trees, called 0, 1, 2…, and print their number
    Trees {
        /// Where; it must not be there
        directory: PathBuf,
        /// How many
        count: usize,
    },
}

impl Files {
    /// Runs the subcommand and prints its result.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Files::Operate {
                directory,
                operations,
            } => {
                let operations: Vec<Op> =
                    serde_json::from_str(&operations).context("parse the operations")?;
                print(&operate(&directory, &operations)?)
            }
            Files::OperateAll {
                directory,
                first,
                sequences,
            } => {
                let sequences: Vec<Vec<Op>> =
                    serde_json::from_str(&sequences).context("parse the operations")?;
                let done: Result<Vec<Operated>> = (first..)
                    .zip(&sequences)
                    .map(|(n, ops)| operate(&directory.join(n.to_string()), ops))
                    .collect();
                print(&done?)
            }
            Files::Trees { directory, count } => {
                fsops::trees(&directory, count)?;
                print(&count)
            }
        }
    }
}

fn operate(directory: &Path, operations: &[Op]) -> Result<Operated> {
    Ok(Operated {
        said: fsops::run(directory, operations),
        tree: fsops::tree(directory)?,
    })
}
