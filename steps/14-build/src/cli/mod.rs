//! The command line of `drydock` with `build`.
//!
//! | module | what |
//! |---|---|
//! | [`build`] | `build`, `image build`, `builder build` |
//! | [`builder`] | `builder prune`, `image …`, `system …` |

pub mod build;
pub mod builder;

use std::env::args_os;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use engine::cli::places::PlacesArgs;
use lifecycle::cli::{Global, begin, with_status};
use process::cli::after_help;
use registry::cli::{All, Here};

use crate::build::{ask, worker};

/// Build images, and run containers of them
///
/// A Dockerfile is a list of instructions, and an image is what a fold over them
/// gives. A RUN is a container; a COPY is a copy into one that never starts.
#[derive(Parser)]
#[command(name = "drydock", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
struct Drydock {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Build an image from a Dockerfile
    Build(Box<build::BuildArgs>),
    /// Manage builds
    #[command(subcommand)]
    Builder(builder::Builder),
    /// Manage images
    #[command(subcommand)]
    Image(builder::Image),
    #[command(flatten)]
    All(All),
}

const EXAMPLES: &str = "
  drydock build -t app .                         of ./Dockerfile, with the files here
  drydock build -f build/Dockerfile --target test .
  drydock build --build-arg VERSION=2 --secret id=key,src=key.pem .
  drydock build --progress plain --no-cache .    each line, and why a step runs
  drydock build -t app - < Dockerfile            without files
  drydock builder prune                          forget the cache";

const SEE_ALSO: &str = "overlayfs.rst; the Dockerfile reference; dockerignore";

/// The `main` function of `drydock`.
pub fn main() -> ExitCode {
    if let Some(status) = lifecycle::cli::internal::run() {
        return status;
    }
    if is_worker(&args_os().take(7).collect::<Vec<_>>()) {
        return pid::main(|worker: Worker| worker::main(&begin(worker.places)?));
    }
    pid::main(|drydock: Drydock| {
        let (places, config) = drydock.global.begin()?;
        let done = match drydock.command {
            Sub::All(command) => return builder::all(command, &places, &config),
            Sub::Build(args) => build::run(&places, &config, *args),
            Sub::Builder(builder::Builder::Build(args)) => build::run(&places, &config, *args),
            Sub::Builder(builder::Builder::Prune(args)) => {
                Here::open(&places, config.storage_driver)
                    .and_then(|here| builder::prune(&here, &args))
            }
            Sub::Image(builder::Image::Build(args)) => build::run(&places, &config, *args),
            Sub::Image(builder::Image::Group(group)) => Here::open(&places, config.storage_driver)
                .and_then(|here| registry::cli::image::run_group(&here, group)),
        };
        done.map_err(|error| with_status(error, 1))
    })
}

/// The program, as a build executes it.
#[derive(Parser)]
#[command(name = "drydock", disable_help_flag = true)]
struct Worker {
    #[command(flatten)]
    places: PlacesArgs,
    /// [`ask::WORD`].
    #[arg(hide = true)]
    _word: String,
}

fn is_worker(words: &[OsString]) -> bool {
    let word = |index: usize| words.get(index).and_then(|word| word.to_str());
    let command = match word(5) {
        Some("--verbose") => word(6),
        other => other,
    };
    word(1) == Some("--root") && word(3) == Some("--state") && command == Some(ask::WORD)
}
