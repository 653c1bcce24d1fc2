//! `commit` and `export`: what becomes of a container's files.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use engine::cli::places::Places;
use engine::image::name::Name;
use lifecycle::cli::swept;
use lifecycle::cli::system::ContainerOther;
use process::Exit;
use union::{LayerId, detect};

use crate::cli::{Here, run};
use crate::image::archive;
use crate::image::commit::{Wanted, commit};

/// The commands that make something of a container.
#[derive(Subcommand)]
pub enum Tool {
    /// Create a new image from a container's changes
    Commit(CommitArgs),
    /// Export a container's filesystem as a tar archive
    Export {
        /// Write to a file, instead of STDOUT
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Name or ID of the container
        container: String,
    },
}

/// `drydock container …`
#[derive(Subcommand)]
pub enum Group {
    /// Commands that start a container.
    #[command(flatten)]
    Run(run::Tool),
    /// `commit` and `export`.
    #[command(flatten)]
    Files(Tool),
    /// All others, which step 12 has.
    #[command(flatten)]
    Other(ContainerOther),
}

/// The options of `commit`.
#[derive(Args)]
pub struct CommitArgs {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.example>")
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    author: String,
    /// Apply Dockerfile instruction to the created image. Repeatable
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Commit message
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    message: String,
    /// Pause container during commit
    #[arg(
        short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set
    )]
    pause: bool,
    /// Name or ID of the container
    container: String,
    /// Name of the image
    name: Option<Name>,
}

/// Runs one of the commands.
pub(super) fn run(here: &Here, places: &Places, tool: Tool) -> Result<Exit> {
    let records = swept(places)?;
    match tool {
        Tool::Commit(args) => {
            let record = records.find(&args.container)?;
            let wanted = Wanted {
                name: args.name,
                author: args.author,
                message: args.message,
                changes: args.change,
                pause: args.pause,
            };
            kit::outln!("{}", commit(&here.images, &here.blobs, &record, &wanted)?)?;
        }
        Tool::Export { output, container } => {
            let record = records.find(&container)?;
            let driver = detect::open(record.spec.driver, here.images.root())?;
            let mut id: LayerId = record.spec.id.parse()?;
            // A container that has never been started has no layer yet.
            if !driver.exists(&id)? {
                id = record.spec.layer.clone();
            }
            to_file(output.as_deref(), &mut |to| {
                archive::whole(&*driver, &id, to)
            })?;
        }
    }
    Ok(Exit::Code(0))
}

/// Writes an archive to a file, or to standard output. A file is there when it is
/// whole.
pub fn to_file(
    output: Option<&Path>,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let Some(path) = output else {
        ensure!(
            !stdout().is_terminal(),
            "cowardly refusing to save to a terminal. Use the -o flag or redirect"
        );
        let mut out = BufWriter::with_capacity(1 << 16, stdout().lock());
        write(&mut out)?;
        return out.flush().context("write");
    };
    // What is no file, such as a FIFO or /dev/null, is written in place.
    let in_place = path.metadata().is_ok_and(|metadata| !metadata.is_file());
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let new = match in_place {
        true => path.to_owned(),
        false => directory
            .unwrap_or(Path::new("."))
            .join(format!(".drydock-{}", kit::random::hex::<8>()?)),
    };
    let file = match in_place {
        true => File::options().write(true).open(&new),
        false => File::create_new(&new),
    };
    let file = file.with_context(|| format!("open({new:?})"))?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    let written =
        write(&mut out).and_then(|()| out.flush().with_context(|| format!("write {new:?}")));
    if in_place {
        return written;
    }
    match written {
        Ok(()) => std::fs::rename(&new, path).with_context(|| format!("rename({new:?}, {path:?})")),
        Err(error) => {
            kit::own::remove_file(&new)?;
            Err(error)
        }
    }
}
