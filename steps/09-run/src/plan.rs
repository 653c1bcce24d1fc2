//! From the options and the image to the parts of a container.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::{Context, Result};
use cgroups::CgroupArgs;
use ipc::IpcArgs;
use kit::ProcessIdentity;
use mount::MountArgs;
use net::NetArgs;
use pid::PidArgs;
use process::Command;
use union::{Union, UnionArgs};
use user::{UserArgs, UserSpec};
use uts::UtsArgs;

use crate::cli::options::{RunArgs, SafetyArgs};
use crate::cli::places::Places;
use crate::command::environment::{argv, environment, text};
use crate::command::ulimit::Ulimits;
use crate::command::workdir::Workdir;
use crate::container::keeper::Keeper;
use crate::container::{Record, Records, Status};
use crate::defaults::{choose_network, driver, hostname, labels, stop_signal};
use crate::image::{Image, Images};
use crate::volume::Volumes;
use crate::volume::mounts::VolumeMounts;
use crate::volume::options::{Mounts, from_root};

/// The seconds that a container is given to end, as with Docker.
const STOP_TIMEOUT: u64 = 10;

/// The parts of a container, decided: for `main` to put into a list.
pub struct Plan {
    /// What runs.
    pub command: Command,
    /// The container's record.
    pub keeper: Keeper,
    /// Step 05.
    pub user: UserArgs,
    /// Step 07.
    pub cgroups: CgroupArgs,
    /// Step 01.
    pub uts: UtsArgs,
    /// Step 02.
    pub ipc: IpcArgs,
    /// Step 03.
    pub pid: PidArgs,
    /// Step 06.
    pub net: NetArgs,
    /// Step 08.
    pub union: Union,
    /// The volumes.
    pub volumes: VolumeMounts,
    /// Step 04.
    pub mount: MountArgs,
    /// Limits on one process each.
    pub ulimits: Ulimits,
    /// Where the command starts.
    pub workdir: Workdir,
    /// What it is kept from.
    pub safety: SafetyArgs,
    /// Whether it reads the caller's input.
    pub interactive: bool,
    /// Whether it gets a terminal.
    pub tty: bool,
}

impl Plan {
    /// Finds the image, which is unpacked if that has not been done before, and
    /// decides on all that the options leave open. Makes nothing else.
    ///
    /// # Errors
    /// For an option that cannot be followed, and those of finding the image.
    pub fn new(places: &Places, args: RunArgs) -> Result<Self> {
        // ANCHOR: exercise_plan_the_container
        let RunArgs {
            container,
            process,
            safety,
            mut uts,
            ipc,
            pid,
            files,
            mut user,
            mut net,
            cgroups,
            layers,
            image_and_command,
        } = args;
        let (reference, given) = image_and_command
            .split_first()
            .context("no image: see drydock run --help")?;
        let reference = text("the image's name", reference.clone())?;
        let driver = driver(&places.root, layers.storage_driver)?;
        let image = Images::open(&places.root)?.ready(&reference, driver)?;
        let config = &image.config;

        let id = kit::random::hex::<32>()?;
        let mounts = Mounts::parse(&files, config.volumes.keys())?;
        let volumes = Volumes::new(&places.root);
        let others = user.other_users()?;
        let (volumes, binds) =
            VolumeMounts::plan(volumes, &mounts.mounted, &id, container.rm, others.clone())?;
        let mut record = Record {
            id: id.clone(),
            name: container.name.unwrap_or_default(),
            volumes: volumes.used(),
            labels: labels(config, &container.label),
            stop_signal: stop_signal(config, container.stop_signal)?,
            stop_timeout: container.stop_timeout.unwrap_or(STOP_TIMEOUT),
            auto_remove: container.rm,
            driver: driver.to_string(),
            ..new_record(&image)?
        };
        if !record.name.is_empty() {
            kit::name::check(&record.name).context("--name")?;
        }

        let hostname = hostname(&mut uts, record.short_id());
        let env = environment(config, &process, &hostname, container.tty)?;
        let argv = argv(config, process.entrypoint.as_ref(), given)?;
        record.command = argv
            .iter()
            .map(|word| word.to_string_lossy().into())
            .collect();

        if user.user.as_ref().is_none_or(UserSpec::is_empty) && !user.map_none {
            let name = Some(config.user.as_str()).filter(|name| !name.is_empty());
            let name = name.unwrap_or("0");
            user.user = Some(
                name.parse()
                    .with_context(|| format!("the image's user {name:?}"))?,
            );
        }
        choose_network(&mut net)?;
        // ANCHOR: union
        let union = Union::plan(
            UnionArgs {
                driver: Some(driver),
                layer: Some(image.top.clone()),
                name: Some(id.parse()?),
                keep: !container.rm,
                root: Some(places.root.clone()),
            },
            None,
            true,
        )?
        .share_init()
        .for_users(others)?;
        // ANCHOR_END: union
        let mut mount = MountArgs {
            rootfs: union.mount_point(),
            bind: binds.into_iter().map(OsString::from).collect(),
            tmpfs: mounts.tmpfs,
            read_only: files.read_only,
            ..MountArgs::default()
        };
        mount.bind.extend(cgroups.device_binds(true));
        let workdir = process
            .workdir
            .unwrap_or_else(|| from_root(&config.working_dir));
        Ok(Plan {
            command: Command { argv, env },
            keeper: Keeper::new(
                Records::new(places),
                record,
                container.cidfile,
                union.found_dead(),
            ),
            user,
            cgroups,
            uts,
            ipc,
            pid,
            net,
            volumes: volumes.root(union.mount_point()),
            union,
            mount,
            ulimits: Ulimits::new(process.ulimit),
            workdir: Workdir::new(workdir),
            safety,
            interactive: container.interactive,
            tty: container.tty,
        })
        // ANCHOR_END: exercise_plan_the_container
    }
}

fn new_record(image: &Image) -> Result<Record> {
    Ok(Record {
        id: String::new(),
        name: String::new(),
        image: image.name.clone(),
        image_id: image.id.clone(),
        command: Vec::new(),
        status: Status::Running,
        pid: 0,
        launcher: ProcessIdentity::current()?,
        started_at: String::new(),
        finished_at: None,
        exit_code: None,
        auto_remove: false,
        driver: String::new(),
        volumes: Vec::new(),
        labels: BTreeMap::new(),
        stop_signal: String::new(),
        stop_timeout: 0,
        options: std::env::args_os()
            .skip(1)
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
    })
}
