//! `drydock`: runs commands in containers.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use engine::cli::container::{self as record_tool, RecordTool};
use engine::cli::image::{self as image_tool, ImageTool};
use engine::cli::options::RunArgs;
use engine::cli::places::PlacesArgs;
use engine::cli::run;
use engine::cli::volume::{self as volume_tool, VolumeTool};
use kit::set_verbose;
use nix::sys::stat::{Mode, umask};
use process::cli::after_help;

/// Run commands in containers
///
/// A container is an ordinary process, launched through a list of isolations:
/// namespaces for users, names, IPC, processes, mounts and networks, control
/// groups, and a root file system from the layers of an image.
#[derive(Parser)]
#[command(name = "drydock", version, after_long_help = after_help(EXAMPLES, SEE_ALSO))]
struct Drydock {
    #[command(flatten)]
    places: PlacesArgs,
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Create and run a new container from an image
    #[command(after_long_help = after_help(EXAMPLES, SEE_ALSO))]
    Run(Box<RunArgs>),
    #[command(flatten)]
    Images(ImageTool),
    #[command(flatten)]
    Record(RecordTool),
    /// Manage volumes
    #[command(subcommand)]
    Volume(VolumeTool),
}

const EXAMPLES: &str = "
  drydock import rootfs.tar.gz busybox           an image of a root file system
  drydock run --rm -it busybox sh                a shell in a container
  drydock run --rm -it -m 128m --cpus 0.5 -p 8080:80 busybox sh
                                                 with limits and a published port
  drydock run --name db -v data:/data IMAGE      with a volume that stays
  drydock ps -a                                  which containers there are
  drydock rm db                                  remove one";

const SEE_ALSO: &str = "namespaces(7), cgroups(7), capabilities(7), pty(7), mount(2), clone(2)";

fn main() -> ExitCode {
    pid::main(|drydock: Drydock| {
        // A fixed umask(2): files of the store and of containers get the modes
        // named where they are made, whatever the caller's mask is.
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        set_verbose(drydock.places.verbose);
        let places = drydock.places.places()?;
        match drydock.command {
            Sub::Run(args) => run::run(&places, *args),
            Sub::Images(tool) => image_tool::run(&places, tool),
            Sub::Record(tool) => record_tool::run(&places, tool),
            Sub::Volume(tool) => volume_tool::run(&places, tool),
        }
    })
}
