//! `drydock`: run a command in a new container.

use std::process::ExitCode;

use anyhow::Result;
use cgroups::Cgroups;
use clap::{Parser, Subcommand};
use engine::cli::container::{self as record_tool, RecordTool};
use engine::cli::image::{self as image_tool, ImageTool};
use engine::cli::options::RunArgs;
use engine::cli::places::{Places, PlacesArgs};
use engine::cli::volume::{self as volume_tool, VolumeTool};
use engine::command::devices;
use engine::command::hardening::Hardening;
use engine::plan::Plan;
use engine::terminal::Streams;
use ipc::Ipc;
use kit::set_verbose;
use mount::Mount;
use net::Net;
use nix::sys::stat::{Mode, umask};
use pid::PidNamespace;
use process::cli::after_help;
use process::{Container, Exit};
use user::{Credentials, User};
use uts::Uts;

/// Run commands in containers
///
/// A container is an ordinary process, launched through a list of isolations.
/// This is the whole list: a user, a name, processes, files, a network, limits
/// and a root of its own, made of the layers of an image.
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
    /// Run a command in a new container
    #[command(after_long_help = after_help(EXAMPLES, SEE_ALSO))]
    Run(Box<RunArgs>),
    #[command(flatten)]
    Images(ImageTool),
    #[command(flatten)]
    Record(RecordTool),
    /// Directories that outlive containers
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
  drydock rm db                                  away with one";

const SEE_ALSO: &str = "namespaces(7), cgroups(7), capabilities(7), pty(7), mount(2), clone(2)";

fn main() -> ExitCode {
    pid::main(|drydock: Drydock| {
        // What is kept, and made for containers, has the modes that its makers
        // name, whatever the caller's mask is.
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        set_verbose(drydock.places.verbose);
        let places = drydock.places.places()?;
        match drydock.command {
            Sub::Run(args) => run(&places, *args),
            Sub::Images(tool) => image_tool::run(&places, tool),
            Sub::Record(tool) => record_tool::run(&places, tool),
            Sub::Volume(tool) => volume_tool::run(&places, tool),
        }
    })
}

/// The list.
fn run(places: &Places, args: RunArgs) -> Result<Exit> {
    let plan = Plan::new(places, args)?;
    let ending = plan.keeper.ending();
    let privileged = plan.safety.privileged;
    let net = Net::new(plan.net).hostname(plan.uts.hostname.clone());
    let files = net.files(true);
    let cgroups = Cgroups::new(plan.cgroups).all_devices(privileged);
    let view = cgroups.view(true);
    let credentials = Credentials::new(&plan.user);
    let streams = Streams::new(
        plan.interactive,
        plan.tty,
        credentials.owner(),
        plan.user.opens_as_caller(),
    )?;
    let container = Container::new(plan.command)
        .keep_terminal()
        .with(plan.keeper)
        .with(User::new(plan.user))
        .with(cgroups)
        .with(Uts::new(plan.uts))
        .with(Ipc::new(plan.ipc))
        .with(plan.ulimits)
        .with(Hardening::new(plan.safety))
        .with(PidNamespace::new(plan.pid))
        .with(net)
        .with(plan.union)
        .with(plan.volumes)
        .with(
            Mount::new(plan.mount)
                .offer(files)
                .offer(devices::of_host(privileged)?)
                .privileged(privileged),
        )
        .with(view)
        .with(plan.workdir)
        .with(streams)
        .with(credentials);
    ending.note(container.run())
}
