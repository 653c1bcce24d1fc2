//! The command line of `drydock` with containers that stay.
//!
//! | module | what |
//! |---|---|
//! | [`run`] | `run`, `create`, `start` |
//! | [`control`] | `stop`, `restart`, `kill`, `wait`, `pause`, `unpause`, `rename`, `update`, `rm` |
//! | [`join`] | `exec`, `attach` |
//! | [`network`], [`networks`] | `network …`; the options of `run` about networks and ports |
//! | [`copy`] | `cp` |
//! | [`events`] | `events` |
//! | [`ps`] | `ps` |
//! | [`look`] | `inspect`, `logs`, `top`, `port` |
//! | [`format`], [`filter`] | `--format`, `--filter` |
//! | [`stats`] | `stats` |
//! | [`system`] | `container prune`, `system df` and `prune`, `info`, `version`; groups of commands |
//! | [`update`] | the limits of `update` |
//! | [`internal`] | how this program executes itself |
//! | [`words`] | ages and tables as Docker prints them |

pub mod control;
pub mod copy;
pub mod events;
pub mod filter;
pub mod format;
pub mod internal;
pub mod join;
pub mod look;
pub mod network;
pub mod networks;
pub mod ps;
pub mod run;
pub mod stats;
pub mod system;
pub mod update;
pub mod words;

use std::ffi::OsString;
use std::io::{BufRead, Write, stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Error, Result, bail};
use cgroups::{GroupFinder, NamedGroup};
use clap::{Args, Parser, Subcommand};
use engine::cli::image::{self as image_tool, ImageTool};
use engine::cli::places::{Places, PlacesArgs};
use engine::cli::volume::{self as volume_tool, VolumeTool};
use engine::container::{Record, Records};
use kit::set_verbose;
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;
use process::cli::after_help;
use process::{Exit, Failure, LAUNCHER_FAILED};

use crate::config::Config;

/// Run containers, now and later
///
/// A container is an ordinary process, launched through a list of isolations.
/// Its launcher waits for it: in your terminal, or with --detach in the
/// background. There is no daemon.
#[derive(Parser)]
#[command(name = "drydock", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
struct Drydock {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Sub,
}

/// The options of every command, in later steps, too.
#[derive(Args)]
pub struct Global {
    #[command(flatten)]
    places: PlacesArgs,
    /// File with defaults for options [default: /etc/drydock/drydock.toml, or
    /// $XDG_CONFIG_HOME/drydock/drydock.toml without root]
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        help_heading = "Global options"
    )]
    config_file: Option<PathBuf>,
}

impl Global {
    /// Prepares this process, and reads the configuration file. `--root` counts
    /// more than what that says.
    ///
    /// # Errors
    /// If the file is not valid, or there is no place for the state.
    pub fn begin(self) -> Result<(Places, Config)> {
        let config = Config::read(self.config_file.as_deref())?;
        let places = begin(PlacesArgs {
            root: self.places.root.or(config.data_root.clone()),
            ..self.places
        })?;
        Ok((places, config))
    }

    /// The name of the command that a command line calls, behind the options that
    /// every command has; `None` if there is none, or another option before it.
    /// `words` are those after the program's name.
    pub fn command_in(words: &[OsString]) -> Option<String> {
        let mut words = words.iter().map(|word| word.to_str());
        loop {
            match words.next()?? {
                "--verbose" => {}
                "--root" | "--state" | "--config-file" => drop(words.next()?),
                word if word.starts_with("--") && word.contains('=') => {}
                word if word.starts_with('-') => return None,
                word => return Some(word.to_owned()),
            }
        }
    }
}

/// Prepares this process: its umask, its words, and who is told of events.
pub fn begin(args: PlacesArgs) -> Result<Places> {
    // A fixed umask(2): files of the store and of containers get the modes named
    // where they are made, whatever the caller's mask is.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    set_verbose(args.verbose);
    let places = args.places()?;
    crate::events::observe(&places);
    Ok(places)
}

#[derive(Subcommand)]
enum Sub {
    #[command(flatten)]
    Run(run::Tool),
    #[command(flatten)]
    Images(ImageTool),
    /// Manage images
    #[command(subcommand)]
    Image(system::ImageGroup),
    /// Manage containers
    #[command(subcommand)]
    Container(Box<system::ContainerTool>),
    #[command(flatten)]
    Other(Other),
}

/// The commands that a later step has, too, as they are: all but those that start
/// containers and deal with images.
#[derive(Subcommand)]
pub enum Other {
    /// What acts on containers.
    #[command(flatten)]
    Control(control::Tool),
    /// What joins containers.
    #[command(flatten)]
    Join(join::Tool),
    /// What shows containers.
    #[command(flatten)]
    Look(look::Tool),
    /// Copy files/folders between a container and the local filesystem
    Cp(copy::CopyArgs),
    /// Display a live stream of container(s) resource usage statistics
    Stats(stats::StatsArgs),
    /// Get events of containers, as they come
    Events(events::EventsArgs),
    /// Display system-wide information
    Info(system::InfoArgs),
    /// Show the version
    Version(system::InfoArgs),
    /// Manage networks
    #[command(subcommand)]
    Network(network::Tool),
    /// Manage the engine
    #[command(subcommand)]
    System(system::SystemTool),
    /// Manage volumes
    #[command(subcommand)]
    Volume(VolumeTool),
}

impl Other {
    /// The exit status of an error: a container that could not be run has
    /// Docker's 125, other commands that fail have 1.
    pub fn failed(&self) -> u8 {
        match self {
            Other::Join(join::Tool::Exec(_)) => LAUNCHER_FAILED,
            _ => 1,
        }
    }

    /// Runs the command.
    pub fn run(self, places: &Places) -> Result<Exit> {
        match self {
            Other::Control(tool) => control::run(places, tool),
            Other::Join(tool) => join::run(places, tool),
            Other::Look(tool) => look::run(places, tool),
            Other::Network(tool) => network::run(places, tool),
            Other::Cp(args) => copy::run(places, &args),
            Other::Stats(args) => stats::run(places, &args),
            Other::Events(args) => events::run(places, &args),
            Other::Info(args) => system::info(places, &args),
            Other::Version(args) => system::version(&args),
            Other::System(tool) => system::system(places, tool),
            Other::Volume(tool) => volume_tool::run(places, tool),
        }
    }
}

/// The error with this exit status, unless it has one of its own.
pub fn with_status(error: Error, status: u8) -> Error {
    match error.downcast_ref::<Failure>() {
        Some(_) => error,
        None if kit::say::is_unread(&error) => error,
        None => Failure::new(status, format!("{error:#}")).into(),
    }
}

const EXAMPLES: &str = "
  drydock run -d --name web -p 8080:80 IMAGE     in the background
  drydock logs -f web                            what it prints, as it comes
  drydock exec -it web sh                        a further process in it
  drydock stop web; drydock start web            it keeps its files
  drydock run -d --restart always IMAGE          started again when it ends";

const SEE_ALSO: &str = "daemon(7), setsid(2), setns(2), unix(7), inotify(7), pidfd_open(2)";

/// The `main` function of `drydock`.
pub fn main() -> ExitCode {
    if let Some(status) = internal::run() {
        return status;
    }
    pid::main(|drydock: Drydock| {
        let (places, config) = drydock.global.begin()?;
        let (done, failed) = match drydock.command {
            Sub::Run(tool) => {
                let failed = tool.failed();
                (run::run(&places, &config, tool), failed)
            }
            Sub::Images(tool) => (image_tool::run(&places, tool), 1),
            Sub::Image(tool) => (system::image(&places, tool), 1),
            Sub::Container(tool) => match *tool {
                system::ContainerTool::Run(tool) => {
                    let failed = tool.failed();
                    (run::run(&places, &config, tool), failed)
                }
                system::ContainerTool::Other(tool) => {
                    let failed = tool.failed();
                    (tool.run(&places), failed)
                }
            },
            Sub::Other(tool) => {
                let failed = tool.failed();
                (tool.run(&places), failed)
            }
        };
        done.map_err(|error| with_status(error, failed))
    })
}

/// Asks whether to go on, after this warning. Only `y` and `Y` say so, as in
/// Docker.
pub fn is_sure(warning: &str) -> Result<bool> {
    kit::out!("{warning}\nAre you sure you want to continue? [y/N] ")?;
    stdout().flush().context("write to standard output")?;
    let mut answer = String::new();
    stdin()
        .lock()
        .read_line(&mut answer)
        .context("read standard input")?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}

/// The records, without those that killed launchers have left.
pub fn swept(places: &Places) -> Result<Records> {
    let records = Records::new(places);
    records.sweep()?;
    Ok(records)
}

/// Does something with each of several containers. What fails is reported, and
/// the others have their turn: the exit status is then 1, as Docker's.
pub fn each(
    records: &Records,
    names: &[String],
    work: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<Exit> {
    let mut failed = false;
    for name in names {
        let done = records.find(name).and_then(&mut *work);
        match done {
            Ok(()) => kit::outln!("{name}")?,
            Err(error) => {
                kit::errln!("drydock: {}", kit::say::printable(&format!("{error:#}")));
                failed = true;
            }
        }
    }
    Ok(Exit::Code(u8::from(failed)))
}

/// Refuses a container that does not run.
fn require_running(record: &Record) -> Result<()> {
    if !record.is_running() || record.pid == 0 {
        bail!("container {} is not running", record.spec.name);
    }
    Ok(())
}

/// The groups of a running container.
fn group(record: &Record) -> Result<NamedGroup> {
    require_running(record)?;
    let group = NamedGroup::of_process(Pid::from_raw(record.pid))?;
    if !record.launcher.is_parent_of(record.pid) {
        bail!("container {} is not running", record.spec.name);
    }
    if group.is_empty() {
        bail!(
            "container {} has no control group of its own: its user may not make any",
            record.spec.name
        );
    }
    Ok(group)
}

/// Whether a running container is paused.
pub(crate) fn is_paused(record: &Record) -> bool {
    record.is_running() && Pauses::new().has(record)
}

/// Finds out which of many running containers are paused: what is the same for
/// all of them is read once.
#[derive(Debug)]
pub struct Pauses(Option<GroupFinder>);

impl Pauses {
    /// Looks at the host.
    pub fn new() -> Self {
        // A container whose groups nobody sees has nobody paused.
        Pauses(GroupFinder::new().ok())
    }

    /// Whether a container, which runs, is paused.
    pub fn has(&self, record: &Record) -> bool {
        let Some(finder) = self.0.as_ref().filter(|_| record.pid != 0) else {
            return false;
        };
        let group = finder.group_of(Pid::from_raw(record.pid));
        let is_frozen = group.is_ok_and(|group| group.is_frozen().unwrap_or(false));
        // Another process may have its PID by now.
        is_frozen && record.launcher.is_parent_of(record.pid)
    }
}

impl Default for Pauses {
    fn default() -> Self {
        Pauses::new()
    }
}

/// The exit status of a container that has ended.
fn status(record: &Record) -> Result<u8> {
    record.exit_code.with_context(|| {
        format!(
            "the exit status of {} is not known: its launcher was killed",
            record.spec.name
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::{ArgAction, Command};

    use super::*;

    fn called(words: &[&str]) -> Option<String> {
        Global::command_in(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_command_is_found_behind_each_option_of_all() {
        let options = Global::augment_args(Command::new("any"));
        for option in options.get_arguments() {
            let name = format!("--{}", option.get_long().unwrap());
            let found = match option.get_action() {
                ArgAction::SetTrue => called(&[&name, "run", "box"]),
                _ => called(&[&name, "value", "run", "box"]),
            };
            assert_eq!(found.as_deref(), Some("run"), "{name}");
            assert_eq!(called(&[&name]), None);
        }
        assert_eq!(called(&["--root=/x", "ps"]).as_deref(), Some("ps"));
        assert_eq!(called(&["--version", "run"]), None);
        assert_eq!(called(&["-v", "run"]), None);
        assert_eq!(called(&[]), None);
    }
}
