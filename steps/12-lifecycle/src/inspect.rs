//! A container in the shape of Docker's API (`GET /containers/ID/json`, version
//! 1.41): what `inspect` prints and templates name. Fields of Docker's that mean
//! nothing here are left out; those that peers read are there, in Docker's
//! order, and empty as Docker's.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::Result;
use cgroups::Swap;
use engine::cli::places::Places;
use engine::container::{Record, Records, Status};
use engine::image::config::{Empty, Healthcheck};
use engine::spec::Spec;
use engine::volume::Volumes;
use engine::volume::options::{MountSource, Mounted};
use kit::warn;
use serde::Serialize;
use union::LayerId;

use crate::cli::Pauses;
use crate::health::Health;
use crate::log::file;
use crate::network::attached;
use crate::settings::{LogDriver, Restart, Stay, health, oom_killed};

/// What Go prints for no time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// A container.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)] // Docker's names: its API describes them.
pub struct Container {
    pub id: String,
    pub created: String,
    pub path: String,
    pub args: Vec<String>,
    pub state: State,
    /// The image's id.
    pub image: String,
    pub log_path: String,
    pub name: String,
    pub restart_count: u32,
    pub driver: String,
    pub platform: &'static str,
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    pub host_config: HostConfig,
    pub graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<u64>,
    pub mounts: Vec<Mount>,
    pub config: Config,
    pub network_settings: NetworkSettings,
}

/// What it does now.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct State {
    pub status: &'static str,
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    pub dead: bool,
    pub pid: i32,
    pub exit_code: u8,
    pub error: String,
    pub started_at: String,
    pub finished_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// What it was asked of the host for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct HostConfig {
    pub binds: Option<Vec<String>>,
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    pub log_config: LogConfig,
    pub network_mode: String,
    pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
    pub restart_policy: RestartPolicy,
    pub auto_remove: bool,
    pub cap_add: Option<Vec<String>>,
    pub cap_drop: Option<Vec<String>>,
    pub cgroupns_mode: String,
    pub dns: Vec<String>,
    pub extra_hosts: Option<Vec<String>>,
    pub group_add: Option<Vec<String>>,
    pub ipc_mode: String,
    pub oom_score_adj: i32,
    pub pid_mode: String,
    pub privileged: bool,
    pub readonly_rootfs: bool,
    pub security_opt: Option<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<&'static str, String>,
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    pub userns_mode: String,
    pub shm_size: u64,
    pub sysctls: BTreeMap<String, String>,
    pub tmpfs: BTreeMap<String, String>,
    pub runtime: &'static str,
    pub cpu_shares: u64,
    pub memory: u64,
    pub nano_cpus: u64,
    pub cgroup_parent: String,
    pub blkio_weight: u64,
    pub cpu_period: u64,
    pub cpu_quota: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub memory_reservation: u64,
    pub memory_swap: i64,
    pub pids_limit: Option<i64>,
    pub ulimits: Vec<Ulimit>,
    pub init: bool,
}

/// Where its output goes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct LogConfig {
    #[serde(rename = "Type")]
    pub kind: &'static str,
    pub config: BTreeMap<String, String>,
}

/// An address of the host.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct PortBinding {
    pub host_ip: String,
    pub host_port: String,
}

/// When it is started again.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct RestartPolicy {
    pub name: String,
    pub maximum_retry_count: u32,
}

/// A resource limit.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Ulimit {
    pub name: String,
    pub hard: i64,
    pub soft: i64,
}

/// Where its layer lies.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct GraphDriver {
    /// Directories by Docker's names; `None` for drivers that have none.
    pub data: Option<BTreeMap<String, String>>,
    pub name: String,
}

/// A mount of a directory of the host, or of a volume.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Mount {
    #[serde(rename = "Type")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub source: String,
    pub destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<&'static str>,
    pub mode: &'static str,
    #[serde(rename = "RW")]
    pub rw: bool,
    pub propagation: &'static str,
}

/// What its command was asked to be.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Config {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: Vec<String>,
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    pub image: String,
    pub volumes: Option<BTreeMap<String, Empty>>,
    pub working_dir: String,
    pub entrypoint: Option<Vec<String>>,
    pub on_build: Option<Vec<String>>,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: String,
    pub stop_timeout: u64,
}

/// Its networks.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct NetworkSettings {
    pub ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    pub gateway: String,
    pub networks: BTreeMap<String, Endpoint>,
}

/// Its place in a network.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct Endpoint {
    pub aliases: Option<Vec<String>>,
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    pub gateway: String,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    pub mac_address: String,
}

/// The word for a container's state: Docker's `State.Status`.
pub fn status(record: &Record) -> &'static str {
    status_among(record, &Pauses::new())
}

/// The same, of one of many.
pub fn status_among(record: &Record, pauses: &Pauses) -> &'static str {
    match record.status {
        Status::Created => "created",
        _ if !record.is_running() => "exited",
        Status::Restarting => "restarting",
        _ if pauses.has(record) => "paused",
        _ => "running",
    }
}

/// Describes a container. `sizes` asks for what its layer takes, which reads all
/// of it.
///
/// # Errors
/// If the record, or the store of its layer, is damaged.
pub fn inspect(places: &Places, record: &Record, sizes: bool) -> Result<Container> {
    let spec = &record.spec;
    let stay = Stay::of(record)?;
    let driver = union::detect::open(spec.driver, &places.root)?;
    let id: LayerId = spec.id.parse()?;
    let exists = driver.exists(&id)?;
    let data = match exists {
        true => driver.directories(&id)?,
        false => Vec::new(),
    };
    let (size_rw, size_root_fs) = match sizes {
        false => (None, None),
        true => {
            let (own, all) = sizes_of(places, record)?;
            (Some(own), Some(all))
        }
    };
    let log = file(&Records::new(places).directory(&spec.id), 0);
    let command = texts(&spec.command);
    Ok(Container {
        id: spec.id.clone(),
        created: created(record).to_owned(),
        path: command.first().cloned().unwrap_or_default(),
        args: command.iter().skip(1).cloned().collect(),
        state: state(record, &stay),
        image: spec.image_id.clone(),
        log_path: match log.exists() {
            true => log.display().to_string(),
            false => String::new(),
        },
        name: format!("/{}", spec.name),
        restart_count: stay.restarts,
        driver: spec.driver.to_string(),
        platform: "linux",
        exec_ids: None,
        host_config: host_config(record, &stay),
        graph_driver: GraphDriver {
            data: (!data.is_empty()).then(|| {
                let named = data.into_iter();
                named.map(|(name, path)| (name.to_owned(), path)).collect()
            }),
            name: spec.driver.to_string(),
        },
        size_rw,
        size_root_fs,
        mounts: mounts(places, spec),
        config: config(spec, &stay),
        network_settings: network_settings(places, record)?,
    })
}

/// The time at which a container was made.
pub fn created(record: &Record) -> &str {
    match record.created_at.is_empty() {
        true => &record.started_at,
        false => &record.created_at,
    }
}

/// What a container's own layer takes, and with all layers below it, in bytes. If
/// its own cannot be measured, warns and counts it as nothing: what one container
/// has made must not keep anybody from listing all.
pub fn sizes_of(places: &Places, record: &Record) -> Result<(u64, u64)> {
    let driver = union::detect::open(record.spec.driver, &places.root)?;
    let id: LayerId = record.spec.id.parse()?;
    let mut layers = vec![record.spec.layer.clone()];
    layers.extend(driver.parents(&record.spec.layer)?);
    let mut sum = 0;
    for layer in &layers {
        sum += driver.usage(layer)?;
    }
    let own = match driver.exists(&id)? {
        true => driver.usage(&id).unwrap_or_else(|error| {
            warn!("the size of {} is not known: {error:#}", record.spec.name);
            0
        }),
        false => 0,
    };
    Ok((own, own + sum))
}

fn state(record: &Record, stay: &Stay) -> State {
    let status = status(record);
    let running = matches!(status, "running" | "paused" | "restarting");
    let time = |time: &str| match time {
        "" => NO_TIME.to_owned(),
        time => time.to_owned(),
    };
    State {
        status,
        running,
        paused: status == "paused",
        restarting: status == "restarting",
        oom_killed: oom_killed(record),
        dead: false,
        pid: if running { record.pid } else { 0 },
        exit_code: match running {
            true => 0,
            // Its launcher was killed, and it with it.
            false if record.status != Status::Created => record.exit_code.unwrap_or(137),
            false => record.exit_code.unwrap_or(0),
        },
        error: stay.error.clone().unwrap_or_default(),
        started_at: time(&record.started_at),
        finished_at: time(record.finished_at.as_deref().unwrap_or_default()),
        health: health(record),
    }
}

fn host_config(record: &Record, stay: &Stay) -> HostConfig {
    let spec = &record.spec;
    let limits = &spec.cgroups;
    let binds = spec.files.mounted.iter().filter_map(bind);
    let memory = limits.memory.map_or(0, |bytes| bytes.0);
    HostConfig {
        binds: list(binds),
        container_id_file: String::new(),
        log_config: log_config(stay),
        network_mode: match attached::names(record).first() {
            Some(name) if name != "bridge" => name.clone(),
            _ => "default".into(),
        },
        port_bindings: ports(&spec.net.publish),
        restart_policy: restart_policy(stay.restart),
        auto_remove: spec.auto_remove,
        cap_add: list(spec.harden.cap_add.iter().map(ToString::to_string)),
        cap_drop: list(spec.harden.cap_drop.iter().map(ToString::to_string)),
        cgroupns_mode: limits.cgroupns.to_string(),
        dns: spec.net.dns.iter().map(ToString::to_string).collect(),
        extra_hosts: list(spec.net.add_host.iter().map(ToString::to_string)),
        group_add: list(spec.user.group_add.iter().cloned()),
        ipc_mode: spec.ipc.ipc.to_string(),
        oom_score_adj: spec.harden.oom_score_adj.unwrap_or(0),
        pid_mode: unless_private(spec.pids.pid.to_string()),
        privileged: spec.harden.privileged,
        readonly_rootfs: spec.files.read_only,
        security_opt: list(spec.harden.security_opt.iter().map(ToString::to_string)),
        storage_opt: spec
            .layer_size
            .iter()
            .map(|size| ("size", size.to_string()))
            .collect(),
        uts_mode: unless_private(spec.uts.uts.to_string()),
        userns_mode: match &spec.user.userns {
            None => String::new(),
            Some(mode) => mode.to_string(),
        },
        shm_size: spec.files.shm_size.map_or(64 << 20, |size| size.0),
        sysctls: pairs(spec.harden.sysctl.iter().map(ToString::to_string), '='),
        tmpfs: pairs(spec.files.tmpfs.iter().cloned(), ':'),
        runtime: "drydock",
        cpu_shares: limits.cpu_shares.unwrap_or(0),
        memory,
        nano_cpus: limits.cpus.map_or(0, |cpus| cpus.billionths()),
        cgroup_parent: limits
            .cgroup_parent
            .as_ref()
            .map_or_else(String::new, |path| path.display().to_string()),
        blkio_weight: limits.blkio_weight.unwrap_or(0),
        cpu_period: limits.cpu_period.unwrap_or(0),
        cpu_quota: limits.cpu_quota.unwrap_or(0),
        cpuset_cpus: shown(limits.cpuset_cpus.as_ref()),
        cpuset_mems: shown(limits.cpuset_mems.as_ref()),
        memory_reservation: limits.memory_reservation.map_or(0, |bytes| bytes.0),
        memory_swap: match limits.memory_swap {
            Some(Swap::Unlimited) => -1,
            Some(Swap::Total(bytes)) => bytes.0 as i64,
            // As much swap as memory.
            None => memory.saturating_mul(2) as i64,
        },
        pids_limit: limits.pids_limit,
        ulimits: spec.ulimits.iter().filter_map(ulimit).collect(),
        init: spec.pids.init,
    }
}

/// `None` for an empty list, for which Docker prints `null`.
fn list(items: impl Iterator<Item = String>) -> Option<Vec<String>> {
    let items: Vec<String> = items.collect();
    (!items.is_empty()).then_some(items)
}

fn shown(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// A namespace of its own is what Docker prints nothing for.
fn unless_private(mode: String) -> String {
    match mode.as_str() {
        "private" => String::new(),
        _ => mode,
    }
}

fn pairs(items: impl Iterator<Item = String>, between: char) -> BTreeMap<String, String> {
    items
        .map(|item| match item.split_once(between) {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (item, String::new()),
        })
        .collect()
}

fn texts(words: &[std::ffi::OsString]) -> Vec<String> {
    let words = words.iter();
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

fn bind(mounted: &Mounted) -> Option<String> {
    let source = match &mounted.source {
        MountSource::Host { path, .. } => path.display().to_string(),
        MountSource::Volume {
            name,
            anonymous: false,
            ..
        } => name.clone(),
        MountSource::Volume { .. } => return None,
    };
    let mode = if mounted.read_only { ":ro" } else { "" };
    Some(format!("{source}:{}{mode}", mounted.target.display()))
}

fn log_config(stay: &Stay) -> LogConfig {
    let mut config = BTreeMap::new();
    if let Some(size) = stay.log.max_size {
        config.insert("max-size".to_owned(), cgroups::Bytes(size).to_string());
        config.insert("max-file".to_owned(), stay.log.max_file.to_string());
    }
    LogConfig {
        kind: match stay.log.driver {
            LogDriver::JsonFile => "json-file",
            LogDriver::None => "none",
        },
        config,
    }
}

fn restart_policy(restart: Restart) -> RestartPolicy {
    let text = restart.to_string();
    RestartPolicy {
        name: text.split(':').next().unwrap_or_default().to_owned(),
        maximum_retry_count: match restart {
            Restart::OnFailure(most) => most,
            _ => 0,
        },
    }
}

fn ports(publish: &[net::Publish]) -> BTreeMap<String, Vec<PortBinding>> {
    let mut ports: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    for one in publish {
        let port = format!("{}/{}", one.port, one.protocol);
        ports.entry(port).or_default().push(PortBinding {
            host_ip: one.ip.to_string(),
            host_port: match (one.host_port, one.to) {
                (0, _) => String::new(),
                (first, Some(last)) => format!("{first}-{last}"),
                (port, None) => port.to_string(),
            },
        });
    }
    ports
}

fn ulimit(limit: &engine::command::ulimit::Ulimit) -> Option<Ulimit> {
    let text = limit.to_string();
    let (name, limits) = text.split_once('=')?;
    let (soft, hard) = limits.split_once(':')?;
    Some(Ulimit {
        name: name.to_owned(),
        hard: hard.parse().ok()?,
        soft: soft.parse().ok()?,
    })
}

/// The mounts of a container, and where their files are on the host.
fn mounts(places: &Places, spec: &Spec) -> Vec<Mount> {
    let volumes = Volumes::new(&places.root);
    let mounted = spec.files.mounted.iter();
    mounted
        .map(|mounted| {
            let (name, source) = match &mounted.source {
                MountSource::Host { path, .. } => (None, path.clone()),
                MountSource::Volume { name, .. } => (Some(name.clone()), volumes.data(name)),
            };
            Mount {
                kind: if name.is_some() { "volume" } else { "bind" },
                driver: name.is_some().then_some("local"),
                name,
                source: source.display().to_string(),
                destination: mounted.target.display().to_string(),
                mode: if mounted.read_only { "ro" } else { "" },
                rw: !mounted.read_only,
                propagation: match &mounted.source {
                    MountSource::Host { .. } => "rprivate",
                    MountSource::Volume { .. } => "",
                },
            }
        })
        .collect()
}

fn config(spec: &Spec, stay: &Stay) -> Config {
    let command = texts(&spec.command);
    let (entrypoint, cmd) = command.split_at(spec.entrypoint.min(command.len()));
    let some = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    let anonymous: BTreeMap<String, Empty> = spec
        .files
        .mounted
        .iter()
        .filter(|mounted| {
            matches!(
                mounted.source,
                MountSource::Volume {
                    anonymous: true,
                    ..
                }
            )
        })
        .map(|mounted| (mounted.target.display().to_string(), Empty {}))
        .collect();
    Config {
        hostname: spec
            .uts
            .hostname
            .as_ref()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        domainname: spec
            .uts
            .domainname
            .as_ref()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        user: match &spec.user.user {
            None => String::new(),
            // The default, for which Docker prints nothing.
            Some(user) if user.to_string() == "0" => String::new(),
            Some(user) => user.to_string(),
        },
        attach_stdin: stay.stdin_once,
        attach_stdout: stay.stdin_once,
        attach_stderr: stay.stdin_once,
        tty: spec.tty,
        open_stdin: spec.interactive,
        stdin_once: stay.stdin_once && spec.interactive,
        env: texts(&spec.env),
        cmd: some(cmd),
        healthcheck: stay.health.clone(),
        image: spec.image.clone(),
        volumes: (!anonymous.is_empty()).then_some(anonymous),
        working_dir: match spec.workdir.display().to_string().as_str() {
            "/" => String::new(),
            path => path.to_owned(),
        },
        entrypoint: some(entrypoint),
        on_build: None,
        labels: spec.labels.clone(),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_timeout,
    }
}

fn network_settings(places: &Places, record: &Record) -> Result<NetworkSettings> {
    let bound = match record.is_running() {
        true => ports(&attached::published(record)),
        false => BTreeMap::new(),
    };
    let ends = attached::ends(places, record)?.into_iter();
    let networks: BTreeMap<String, Endpoint> = ends
        .map(|(name, end)| {
            let text = |ip: Option<Ipv4Addr>| ip.map_or_else(String::new, |ip| ip.to_string());
            let endpoint = Endpoint {
                aliases: end.aliases,
                network_id: end.id,
                gateway: text(end.gateway),
                ip_address: text(end.address),
                ip_prefix_len: end.subnet.map_or(0, |subnet| subnet.prefix_len()),
                mac_address: end.address.map(net::plugs::mac).unwrap_or_default(),
            };
            (name, endpoint)
        })
        .collect();
    // Docker's own fields are those of its default bridge.
    let own = networks.get("bridge").cloned().unwrap_or_default();
    Ok(NetworkSettings {
        ports: bound
            .into_iter()
            .map(|(port, at)| (port, Some(at)))
            .collect(),
        ip_address: own.ip_address,
        ip_prefix_len: own.ip_prefix_len,
        gateway: own.gateway,
        networks,
    })
}
