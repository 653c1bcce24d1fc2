//! The bench: what containers cost on this host, compared with other engines.
//!
//! | module | what |
//! |---|---|
//! | [`start`], [`whereto`], [`runtime`], [`stay`], [`density`], [`native`], [`images`], [`pull`], [`build`] | the benches |
//! | [`claims`] | container against virtual machine |
//! | [`contenders`], [`bundle`], [`inside`], [`peers`] | the engines that start containers here, and what each of them isolates |
//! | [`keepers`], [`dockerd`], [`docker_registry`] | the engines whose containers stay, a daemon and a registry of the bench's own |
//! | [`herd`], [`network`], [`strace`], [`hyperfine`] | measurement |
//! | [`session`], [`scratch`], [`tools`], [`machine`] | the place, the programs, the machine |
//! | [`report`], [`table`], [`stats`], [`figures`], [`chart`] | tables, figures, charts |

pub mod build;
pub mod bundle;
pub mod chart;
pub mod claims;
pub mod contenders;
pub mod density;
pub mod docker_registry;
pub mod dockerd;
pub mod figures;
pub mod herd;
pub mod hyperfine;
pub mod images;
pub mod inside;
pub mod keepers;
pub mod machine;
pub mod native;
pub mod network;
pub mod peers;
pub mod pull;
pub mod report;
pub mod runtime;
pub mod scratch;
pub mod session;
pub mod start;
pub mod stats;
pub mod stay;
pub mod strace;
pub mod table;
pub mod tools;
pub mod whereto;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use check::workspace;
use report::{Report, Results};

/// The benches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// From the launcher's start to its end, beside others
    Start,
    /// Where the time of a start goes
    Where,
    /// Create, start and delete, beside other OCI runtimes
    Runtime,
    /// Containers in the background: monitors, exec, logs
    Stay,
    /// Hundreds of containers: time and memory of each
    Density,
    /// Computing, memory, files and network, inside against outside
    Native,
    /// Unpacking an image, packing a layer
    Images,
    /// Pulling an image from a registry, and the memory that it takes
    Pull,
    /// Building images from Dockerfiles, beside others
    Build,
}

/// The directory of the results: `target/bench`.
pub fn place() -> PathBuf {
    workspace::root().join("target/bench")
}

/// The results that the book shows: `book/bench.json`.
pub fn recorded() -> PathBuf {
    workspace::root().join("book").join("bench.json")
}

/// The name of a chart's file: `start.svg`, then `start-2.svg`.
fn file_name(report: &Report, number: usize) -> String {
    match number {
        0 => format!("{}.svg", report.name),
        n => format!("{}-{}.svg", report.name, n + 1),
    }
}

/// Writes the results and their charts into `dir`, and returns the files.
pub fn keep(results: &Results, dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
    let mut files = vec![dir.join("results.json")];
    results.write(&files[0])?;
    for report in &results.reports {
        for (number, drawing) in report.charts.iter().enumerate() {
            let file = dir.join(file_name(report, number));
            fs::write(&file, chart::standalone(drawing))
                .with_context(|| format!("write {}", file.display()))?;
            files.push(file);
        }
    }
    Ok(files)
}
