//! `drydock run`: turns options and image into a [`Spec`], and launches it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use process::Exit;
use user::UserSpec;

use crate::cli::defaults::{
    choose_hostname, choose_network, driver, image_user, labels, stop_signal,
};
use crate::cli::options::RunArgs;
use crate::cli::places::Places;
use crate::command::environment::{argv, environment, text};
use crate::container::short;
use crate::image::Images;
use crate::list::{Here, list};
use crate::spec::Spec;
use crate::volume::options::{Files, from_root};

/// Seconds from the stop signal to SIGKILL: Docker's default.
const STOP_TIMEOUT: u64 = 10;

/// Starts a container and waits for its end.
pub fn run(places: &Places, mut args: RunArgs) -> Result<Exit> {
    let cidfile = args.container.cidfile.take();
    launch(places, spec(places, args)?, cidfile)
}

/// Starts the container that `spec` describes, and waits for its end. Its id is
/// written into `cidfile`.
pub fn launch(places: &Places, spec: Spec, cidfile: Option<PathBuf>) -> Result<Exit> {
    let here = Here {
        places,
        cidfile,
        record: None,
        ends: None,
        harvest: None,
        secrets: Default::default(),
    };
    let (container, ending) = list(spec, here)?;
    ending.note(container.run())
}

/// Finds the image and decides everything that the options leave open. Unpacks
/// the image and notes the storage driver the first time; makes nothing else.
pub fn spec(places: &Places, args: RunArgs) -> Result<Spec> {
    let RunArgs {
        container,
        process,
        mut uts,
        ipc,
        pid,
        files,
        mut user,
        mut net,
        cgroups,
        layers,
        harden,
        image_and_command,
    } = args;
    let (reference, given) = image_and_command
        .split_first()
        .context("no image: see drydock run --help")?;
    let reference = text("the image's name", reference.clone())?;
    let driver = driver(&places.root, layers.storage_driver)?;
    let layer_size = layers.size(driver)?;
    let image = Images::open(&places.root)?.ready(&reference, driver)?;
    let config = &image.config;

    let files = Files::parse(&files, config.volumes.keys())?;
    let name = container.name.unwrap_or_default();
    let labels = labels(config, &container.label);
    let stop_signal = stop_signal(config, container.stop_signal)?;
    if !name.is_empty() {
        kit::name::check(&name).context("--name")?;
    }
    let id = kit::random::hex::<32>()?;
    choose_hostname(&mut uts, short(&id));
    let env = environment(config, &process, container.tty)?;
    let command = argv(config, process.entrypoint.as_ref(), given)?;
    let entrypoint = match &process.entrypoint {
        Some(program) => usize::from(!program.is_empty()),
        None => config.entrypoint().len(),
    };
    if user.user.as_ref().is_none_or(UserSpec::is_empty) && !user.map_none {
        user.user = Some(image_user(config)?);
    }
    choose_network(&mut net)?;
    let workdir = process
        .workdir
        .unwrap_or_else(|| from_root(&config.working_dir));
    Ok(Spec {
        id,
        name,
        image: image.name,
        image_id: image.id,
        layer: image.top,
        driver,
        layer_size,
        command,
        entrypoint,
        env,
        workdir,
        interactive: container.interactive,
        tty: container.tty,
        uts,
        ipc,
        pids: pid,
        files,
        user,
        net,
        cgroups,
        ulimits: process.ulimit,
        harden: harden.with_absolute_paths()?,
        new_keyring: !process.no_new_keyring,
        labels,
        healthcheck: config.healthcheck.clone(),
        stop_signal,
        stop_timeout: container.stop_timeout.unwrap_or(STOP_TIMEOUT),
        auto_remove: container.rm,
    })
}
