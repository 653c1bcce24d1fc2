//! `config.json`: the types of the runtime specification (config.md,
//! config-linux.md).
//!
//! The crate `oci-spec` has these types too. They are our own because it reads
//! an unknown capability as an error, an unknown property as nothing, and
//! brings thirty crates. The specification wants an unknown *property* to be
//! ignored, which is said in a warning by name, and an unknown *value* to be
//! refused ([`check`]).
//!
//! `null` means what is missing, as Go writes it for empty lists.

pub(crate) mod check;
pub(crate) mod options;
pub(crate) mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The version of the specification that is supported.
pub(crate) const VERSION: &str = "1.3.0";

/// Reads `null` as the default.
fn null<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The whole document.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    pub oci_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub hostname: String,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub domainname: String,
    #[serde(default, deserialize_with = "null")]
    pub mounts: Vec<Mount>,
    #[serde(
        default,
        skip_serializing_if = "Hooks::is_empty",
        deserialize_with = "null"
    )]
    pub hooks: Hooks,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null"
    )]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null")]
    pub linux: Linux,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Root {
    pub path: PathBuf,
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null")]
    pub readonly: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    #[serde(default, deserialize_with = "null")]
    pub terminal: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    #[serde(default, deserialize_with = "null")]
    pub user: User,
    #[serde(default, deserialize_with = "null")]
    pub args: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    pub env: Vec<String>,
    pub cwd: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub rlimits: Vec<Rlimit>,
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null")]
    pub no_new_privileges: bool,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub apparmor_profile: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub selinux_label: String,
    #[serde(
        default,
        rename = "ioPriority",
        skip_serializing_if = "Option::is_none"
    )]
    pub io_priority: Option<IoPriority>,
    #[serde(
        default,
        rename = "execCPUAffinity",
        skip_serializing_if = "Option::is_none"
    )]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

/// Lists of processors, for a further process of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ExecCpuAffinity {
    /// Until it is in the container's group.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub initial: String,
    /// From then on.
    #[serde(
        default,
        rename = "final",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub last: String,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ConsoleSize {
    pub height: u16,
    pub width: u16,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct User {
    #[serde(default, deserialize_with = "null")]
    pub uid: u32,
    #[serde(default, deserialize_with = "null")]
    pub gid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Capabilities {
    #[serde(default, deserialize_with = "null")]
    pub bounding: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    pub effective: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    pub inheritable: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    pub permitted: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    pub ambient: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Scheduler {
    pub policy: String,
    #[serde(default, deserialize_with = "null")]
    pub nice: i32,
    #[serde(default, deserialize_with = "null")]
    pub priority: i32,
    #[serde(default, deserialize_with = "null")]
    pub flags: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    pub runtime: u64,
    #[serde(default, deserialize_with = "null")]
    pub deadline: u64,
    #[serde(default, deserialize_with = "null")]
    pub period: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct IoPriority {
    pub class: String,
    #[serde(default, deserialize_with = "null")]
    pub priority: i32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mount {
    pub destination: PathBuf,
    #[serde(
        default,
        rename = "type",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub kind: String,
    #[serde(default, skip_serializing_if = "is_empty", deserialize_with = "null")]
    pub source: PathBuf,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub options: Vec<String>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub gid_mappings: Vec<IdMapping>,
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hooks {
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub prestart: Vec<Hook>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub create_runtime: Vec<Hook>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub create_container: Vec<Hook>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub start_container: Vec<Hook>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub poststart: Vec<Hook>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub poststop: Vec<Hook>,
}

impl Hooks {
    /// The hooks, by the names of their kinds.
    pub(crate) fn all(&self) -> [(&'static str, &Vec<Hook>); 6] {
        [
            ("prestart", &self.prestart),
            ("createRuntime", &self.create_runtime),
            ("createContainer", &self.create_container),
            ("startContainer", &self.start_container),
            ("poststart", &self.poststart),
            ("poststop", &self.poststop),
        ]
    }

    fn is_empty(&self) -> bool {
        self.all().iter().all(|(_, hooks)| hooks.is_empty())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hook {
    pub path: PathBuf,
    #[serde(default, deserialize_with = "null")]
    pub args: Vec<String>,
    /// `None`: the runtime's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// In seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Linux {
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub gid_mappings: Vec<IdMapping>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null"
    )]
    pub sysctl: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub cgroups_path: String,
    #[serde(default, deserialize_with = "null")]
    pub namespaces: Vec<Namespace>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub devices: Vec<Device>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null"
    )]
    pub net_devices: BTreeMap<String, NetDevice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Value>,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub rootfs_propagation: String,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub masked_paths: Vec<PathBuf>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub readonly_paths: Vec<PathBuf>,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub mount_label: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null"
    )]
    pub time_offsets: BTreeMap<String, TimeOffset>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdMapping {
    #[serde(rename = "containerID")]
    pub container: u32,
    #[serde(rename = "hostID")]
    pub host: u32,
    pub size: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Namespace {
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    #[serde(default, skip_serializing_if = "is_empty", deserialize_with = "null")]
    pub path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NamespaceKind {
    User,
    Pid,
    Network,
    Mount,
    Ipc,
    Uts,
    Cgroup,
    Time,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: PathBuf,
    #[serde(default, deserialize_with = "null")]
    pub major: i64,
    #[serde(default, deserialize_with = "null")]
    pub minor: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct NetDevice {
    /// Inside; as outside if it is empty.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub name: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IntelRdt {
    #[serde(
        default,
        rename = "closID",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub clos_id: String,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub schemata: Vec<String>,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub l3_cache_schema: String,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub mem_bw_schema: String,
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null")]
    pub enable_monitoring: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MemoryPolicy {
    pub mode: String,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null"
    )]
    pub nodes: String,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub flags: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Personality {
    pub domain: String,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub flags: Vec<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct TimeOffset {
    #[serde(default, deserialize_with = "null")]
    pub secs: i64,
    #[serde(default, deserialize_with = "null")]
    pub nanosecs: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Resources {
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub devices: Vec<DeviceRule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<Pids>,
    #[serde(default, rename = "blockIO", skip_serializing_if = "Option::is_none")]
    pub block_io: Option<BlockIo>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub hugepage_limits: Vec<HugepageLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null"
    )]
    pub rdma: BTreeMap<String, Rdma>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null"
    )]
    pub unified: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeviceRule {
    pub allow: bool,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Memory {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<i64>,
    #[serde(rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
    pub kernel_tcp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller", skip_serializing_if = "Option::is_none")]
    pub disable_oom_killer: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_hierarchy: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_before_update: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Cpu {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_runtime: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_period: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null")]
    pub cpus: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null")]
    pub mems: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pids {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BlockIo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_weight: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null")]
    pub weight_device: Vec<WeightDevice>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null")]
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null")]
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleReadIOPSDevice")]
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleWriteIOPSDevice")]
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WeightDevice {
    pub major: i64,
    pub minor: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf_weight: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ThrottleDevice {
    pub major: i64,
    pub minor: i64,
    pub rate: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HugepageLimit {
    pub page_size: String,
    pub limit: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Network {
    #[serde(default, rename = "classID", skip_serializing_if = "Option::is_none")]
    pub class_id: Option<u32>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null"
    )]
    pub priorities: Vec<Priority>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Priority {
    pub name: String,
    pub priority: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rdma {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hca_handles: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hca_objects: Option<u32>,
}
