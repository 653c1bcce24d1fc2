//! The command line of `drydock` with `build`.
//!
//! | module | what |
//! |---|---|
//! | [`build`] | `build`, `image build`, `builder build` |
//! | [`builder`] | `builder prune`, `image …`, `system …` |
//! | [`check`] | `build --check` |

pub mod build;
pub mod builder;
mod check;

use std::env::args_os;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use engine::cli::places::PlacesArgs;
use lifecycle::cli::{Global, Other, begin, with_status};
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

/// The same, of the commands that start a container or join one. Making the whole
/// tree of commands takes half a millisecond and 190 pages, which a start is
/// better without.
#[derive(Parser)]
#[command(name = "drydock", version)]
struct Starting {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: StartingSub,
}

#[derive(Subcommand)]
enum StartingSub {
    #[command(flatten)]
    Run(registry::cli::run::Tool),
    #[command(flatten)]
    Join(lifecycle::cli::join::Tool),
}

/// The commands of [`StartingSub`].
const STARTING: [&str; 5] = ["run", "create", "start", "exec", "attach"];

const EXAMPLES: &str = "
  drydock build -t app .                         of ./Dockerfile, with the files here
  drydock build -f build/Dockerfile --target test .
  drydock build --build-arg VERSION=2 --secret id=key,src=key.pem .
  drydock build --progress plain --no-cache .    each line, and why a step runs
  drydock build --check .                        what is allowed, and not meant
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
    let called = Global::command_in(&args_os().skip(1).collect::<Vec<_>>());
    if called.is_some_and(|name| STARTING.contains(&name.as_str())) {
        return pid::main(|drydock: Starting| {
            let (places, config) = drydock.global.begin()?;
            let command = match drydock.command {
                StartingSub::Run(tool) => All::Run(tool),
                StartingSub::Join(tool) => All::Other(Other::Join(tool)),
            };
            builder::all(command, &places, &config)
        });
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

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use super::*;

    /// A command and those below it, as people see them: with help and options.
    fn described(command: &mut Command) -> String {
        command.render_long_help().to_string()
    }

    #[test]
    fn the_commands_that_start_are_the_same_in_both_trees() {
        let (mut all, mut starting) = (Drydock::command(), Starting::command());
        all.build();
        starting.build();
        let names = starting.get_subcommands().map(|c| c.get_name().to_owned());
        let names: Vec<String> = names.filter(|name| name != "help").collect();
        assert_eq!(names, STARTING);
        for name in names {
            let one = all.find_subcommand_mut(&name).map(described);
            assert_eq!(one, starting.find_subcommand_mut(&name).map(described));
        }
    }
}
