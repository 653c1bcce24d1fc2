//! From the options and the image to the parts of a container.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cgroups::CgroupArgs;
use clap::ValueEnum;
use ipc::IpcArgs;
use mount::MountArgs;
use net::NetArgs;
use net::mode::NetworkMode;
use net::owner::Owner;
use pid::PidArgs;
use process::Command;
use union::store::write_file;
use union::{Kind, Union, UnionArgs, detect};
use user::UserArgs;
use user::caller::Caller;
use uts::{NamespaceMode, UtsArgs};

use crate::environment::{argv, environment, text};
use crate::image::config::Config;
use crate::image::{Image, Images};
use crate::mounts::Mounts;
use crate::names::random_hex;
use crate::options::RunArgs;
use crate::places::Places;
use crate::record::keeper::Keeper;
use crate::record::tool::signal;
use crate::record::{Record, Records, Status};
use crate::ulimit::Ulimits;
use crate::volume::Volumes;
use crate::volume::mounts::VolumeMounts;
use crate::workdir::Workdir;

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
    /// Whether nothing is kept from it.
    pub privileged: bool,
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

        let id = random_hex(32)?;
        let mounts = Mounts::parse(&files, config.volumes.keys())?;
        let volumes = Volumes::new(&places.root);
        let (volumes, binds) = VolumeMounts::plan(volumes, &mounts.mounted, container.rm)?;
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
            crate::volume::check_name(&record.name).context("--name")?;
        }

        let hostname = hostname(&mut uts, record.short_id());
        let env = environment(config, &process, &hostname, container.tty)?;
        let argv = argv(config, process.entrypoint.as_ref(), given)?;
        record.command = argv
            .iter()
            .map(|word| word.to_string_lossy().into())
            .collect();

        if user.user.is_none() && !user.map_none {
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
        .share_init();
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
            .unwrap_or_else(|| match &*config.working_dir {
                "" => PathBuf::from("/"),
                directory => directory.into(),
            });
        Ok(Plan {
            command: Command { argv, env },
            keeper: Keeper::new(Records::new(places), record, container.cidfile),
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
            privileged: safety.privileged,
            interactive: container.interactive,
            tty: container.tty,
        })
        // ANCHOR_END: exercise_plan_the_container
    }
}

/// The storage driver: the one asked for, or the one that was found to work
/// here when the first container was started. Trying takes longer than all the
/// rest of a start.
///
/// # Errors
/// Those of trying, and of writing down what came of it.
pub fn driver(root: &Path, asked: Option<Kind>) -> Result<Kind> {
    if let Some(kind) = asked {
        return Ok(kind);
    }
    let note = root.join("driver");
    let noted = fs::read_to_string(&note).ok();
    if let Some(kind) = noted.and_then(|noted| Kind::from_str(&noted, false).ok()) {
        return Ok(kind);
    }
    let kind = detect::preferred(root)?;
    write_file(&note, kind.as_str())?;
    Ok(kind)
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
        launcher: Owner::current()?,
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

/// The image's labels, and the caller's over them.
fn labels(image: &Config, given: &[String]) -> BTreeMap<String, String> {
    let mut labels = image.labels.clone();
    for label in given {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        labels.insert(name.to_owned(), value.to_owned());
    }
    labels
}

fn stop_signal(image: &Config, asked: Option<String>) -> Result<String> {
    let text = asked
        .or_else(|| image.stop_signal.clone())
        .unwrap_or_else(|| "SIGTERM".into());
    Ok(signal(&text).context("--stop-signal")?.to_string())
}

/// The host name: the container's id, unless another one was asked for or is
/// shared.
fn hostname(uts: &mut UtsArgs, id: &str) -> OsString {
    if uts.hostname.is_none() && uts.uts == NamespaceMode::Private {
        uts.hostname = Some(id.into());
    }
    let shared = || nix::unistd::gethostname().unwrap_or_default();
    uts.hostname.clone().unwrap_or_else(shared)
}

/// The bridge, as with Docker, but for an ordinary user, who cannot have one.
fn choose_network(net: &mut NetArgs) -> Result<()> {
    if net.network.is_some() || net.mode() == NetworkMode::Bridge {
        return Ok(());
    }
    if Caller::look()?.is_privileged() {
        net.network = Some(NetworkMode::Bridge);
        return Ok(());
    }
    net.network = Some(NetworkMode::None);
    eprintln!(
        "drydock: without root there is no bridge: this container has a loopback device only \
         (--network none says that this is meant, --network host shares the host's)"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_the_caller_go_over_those_of_the_image() {
        let image = Config {
            labels: [("a".into(), "1".into()), ("b".into(), "2".into())].into(),
            ..Config::default()
        };
        let labels = labels(&image, &["a=x=y".into(), "c".into()]);
        let found: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(found, ["a=x=y", "b=2", "c="]);
    }

    #[test]
    fn the_host_name_is_the_id_unless_it_is_shared() {
        let mut uts = UtsArgs::default();
        assert_eq!(hostname(&mut uts, "abc"), "abc");
        assert_eq!(uts.hostname.as_deref(), Some("abc".as_ref()));
        let mut shared = UtsArgs {
            uts: NamespaceMode::Host,
            ..UtsArgs::default()
        };
        hostname(&mut shared, "abc");
        assert_eq!(shared.hostname, None);
    }

    #[test]
    fn the_signal_to_stop_is_the_callers_then_the_images() {
        let image = Config {
            stop_signal: Some("QUIT".into()),
            ..Config::default()
        };
        assert_eq!(stop_signal(&image, None).unwrap(), "SIGQUIT");
        assert_eq!(stop_signal(&image, Some("2".into())).unwrap(), "SIGINT");
        assert_eq!(stop_signal(&Config::default(), None).unwrap(), "SIGTERM");
    }
}
