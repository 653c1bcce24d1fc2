//! What a configuration means, or why it is refused: before anything is made.
//!
//! An unknown or contradictory value is an error that names it (config.md
//! “Valid values”). What passes has the types that the launch works with.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cgroups::IdList;
use cgroups::named::{DeviceAccess, DeviceKind, DeviceRule, Verdict, check_path};
use engine::command::ulimit::Ulimit;
use harden::label::has_selinux;
use harden::seccomp::profile::Profile;
use harden::sysctl::Sysctl;
use harden::time::TimeOffset;
use kit::sys::{MemoryPolicy, SchedAttr};
use kit::warn;
use mount::target::Target;
use net::MovedDevice;
use nix::mount::MsFlags;
use nix::sched::CpuSet;
use rustix::thread::CapabilitySet;
use user::IdMap;

use crate::config::options::{Options, Reach, propagation};
use crate::config::{
    Capabilities, Config, Device, Hook, IdMapping, Linux, Mount, NamespaceKind, Process, Resources,
};
use crate::launch::rdt;

/// A bundle whose configuration has been checked.
#[derive(Debug)]
pub(crate) struct Checked {
    pub config: Config,
    /// The directory that becomes the root, absolute and without links.
    pub root: PathBuf,
    pub process: CheckedProcess,
    pub mounts: Vec<CheckedMount>,
    pub devices: Vec<CheckedDevice>,
    pub device_rules: Vec<Verdict>,
    pub uid_map: Vec<IdMap>,
    pub gid_map: Vec<IdMap>,
    pub net_devices: Vec<MovedDevice>,
    pub memory_policy: Option<MemoryPolicy>,
    pub sysctls: Vec<Sysctl>,
    pub time_offsets: Vec<TimeOffset>,
    pub propagation: Option<(MsFlags, Reach)>,
    pub seccomp: Option<String>,
    pub personality: Option<u32>,
}

/// A process whose properties have been checked.
#[derive(Clone, Debug)]
pub(crate) struct CheckedProcess {
    pub raw: Process,
    pub limits: Vec<Ulimit>,
    pub capabilities: CapabilitySets,
    pub scheduler: Option<SchedAttr>,
    pub io_priority: Option<(u8, u8)>,
    pub apparmor: Option<String>,
    /// The processors of a further process, before it enters the group and after.
    pub affinity: Option<(IdList, IdList)>,
}

/// The five sets of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CapabilitySets {
    pub bounding: CapabilitySet,
    pub effective: CapabilitySet,
    pub inheritable: CapabilitySet,
    pub permitted: CapabilitySet,
    pub ambient: CapabilitySet,
}

impl CapabilitySets {
    /// All capabilities that the process may ever have.
    pub(crate) fn all(self) -> CapabilitySet {
        self.bounding | self.inheritable | self.permitted | self.ambient
    }
}

/// A mount, with its target and options.
#[derive(Clone, Debug)]
pub(crate) struct CheckedMount {
    pub raw: Mount,
    pub target: Target,
    pub options: Options,
    pub uid_map: Vec<IdMap>,
    pub gid_map: Vec<IdMap>,
}

/// A node to make in the root.
#[derive(Clone, Debug)]
pub(crate) struct CheckedDevice {
    /// Below the root, without a leading slash.
    pub path: PathBuf,
    pub kind: NodeKind,
    pub mode: u32,
    pub owner: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind {
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

impl Checked {
    /// Checks a configuration of the bundle in `bundle`.
    pub(crate) fn new(config: Config, bundle: &Path) -> Result<Checked> {
        version(&config.oci_version)?;
        let root = root(&config, bundle)?;
        let process = config.process.clone().context("process is missing")?;
        let process = CheckedProcess::new(process).context("process")?;
        namespaces(&config)?;
        let linux = &config.linux;
        rdt::check(linux.intel_rdt.as_ref())?;
        selinux("linux.mountLabel", &linux.mount_label)?;
        for (kind, hooks) in config.hooks.all() {
            for (n, one) in hooks.iter().enumerate() {
                hook(one).with_context(|| format!("hooks.{kind}[{n}]"))?;
            }
        }
        for key in config.annotations.keys() {
            ensure!(!key.is_empty(), "annotations: an empty key");
        }
        if !linux.cgroups_path.is_empty() && !linux.cgroups_path.contains(':') {
            check_path(Path::new(&linux.cgroups_path)).context("linux.cgroupsPath")?;
        }
        let mut mounts = Vec::new();
        for (n, one) in config.mounts.iter().enumerate() {
            let checked = CheckedMount::new(one, linux)
                .with_context(|| format!("mounts[{n}] ({})", one.destination.display()))?;
            mounts.push(checked);
        }
        let mut devices: Vec<CheckedDevice> = Vec::new();
        for (n, one) in linux.devices.iter().enumerate() {
            let device = CheckedDevice::new(one)
                .with_context(|| format!("linux.devices[{n}] ({})", one.path.display()))?;
            ensure!(
                devices.iter().all(|other| other.path != device.path),
                "linux.devices[{n}]: {} is there twice",
                one.path.display()
            );
            devices.push(device);
        }
        for (name, paths) in [
            ("maskedPaths", &linux.masked_paths),
            ("readonlyPaths", &linux.readonly_paths),
        ] {
            for path in paths {
                Target::new(path).with_context(|| format!("linux.{name}"))?;
            }
        }
        let resources = linux.resources.clone().unwrap_or_default();
        let seccomp = linux.seccomp.as_ref().map(seccomp).transpose()?;
        Ok(Checked {
            root,
            process,
            mounts,
            devices,
            device_rules: device_rules(&resources)?,
            uid_map: id_map("uidMappings", &linux.uid_mappings)?,
            gid_map: id_map("gidMappings", &linux.gid_mappings)?,
            net_devices: net_devices(&config)?,
            memory_policy: memory_policy(&config)?,
            sysctls: sysctls(&config)?,
            time_offsets: time_offsets(&config)?,
            propagation: match linux.rootfs_propagation.as_str() {
                "" => None,
                name => Some(propagation(name).with_context(|| {
                    format!("linux.rootfsPropagation {name:?} is no type of propagation")
                })?),
            },
            personality: personality(&config)?,
            seccomp,
            config,
        })
    }
}

impl CheckedProcess {
    /// Checks a process, also one for `exec`.
    pub(crate) fn new(raw: Process) -> Result<CheckedProcess> {
        ensure!(!raw.args.is_empty(), "args is empty: it names no command");
        for text in raw.args.iter().chain(&raw.env) {
            ensure!(!text.contains('\0'), "{text:?} contains a NUL byte");
        }
        for pair in &raw.env {
            ensure!(
                pair.split_once('=')
                    .is_some_and(|(name, _)| !name.is_empty()),
                "env {pair:?} is not NAME=VALUE"
            );
        }
        ensure!(
            raw.cwd.is_absolute(),
            "cwd {:?} is not an absolute path",
            raw.cwd
        );
        selinux("selinuxLabel", &raw.selinux_label)?;
        let affinity = match &raw.exec_cpu_affinity {
            None => None,
            Some(affinity) => Some((
                processors(&affinity.initial).context("execCPUAffinity.initial")?,
                processors(&affinity.last).context("execCPUAffinity.final")?,
            )),
        };
        if let Some(score) = raw.oom_score_adj {
            ensure!(
                (-1000..=1000).contains(&score),
                "oomScoreAdj {score} is not between -1000 and 1000"
            );
        }
        if let Some(mask) = raw.user.umask {
            ensure!(mask <= 0o777, "user.umask {mask} is above 0777");
        }
        for id in [raw.user.uid, raw.user.gid]
            .iter()
            .chain(&raw.user.additional_gids)
        {
            // -1 means “no change” to setresuid(2): the process would stay root.
            ensure!(*id != u32::MAX, "user: {id} is no ID");
        }
        let mut limits = Vec::new();
        let mut named = BTreeSet::new();
        for limit in &raw.rlimits {
            let name = limit.kind.strip_prefix("RLIMIT_").map(str::to_lowercase);
            let name = name.with_context(|| format!("rlimits: {:?} is no limit", limit.kind))?;
            ensure!(
                named.insert(name.clone()),
                "rlimits: {} is there twice",
                limit.kind
            );
            let number = |n: u64| match n {
                u64::MAX => "-1".to_owned(),
                n => n.to_string(),
            };
            let text = format!("{name}={}:{}", number(limit.soft), number(limit.hard));
            limits.push(text.parse().context("rlimits")?);
        }
        let apparmor = match raw.apparmor_profile.as_str() {
            "" | "unconfined" => None,
            name => {
                let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
                ensure!(
                    enabled.is_ok_and(|enabled| enabled.trim() == "Y"),
                    "apparmorProfile {name:?}: this kernel has no AppArmor, or has it switched off"
                );
                Some(name.to_owned())
            }
        };
        Ok(CheckedProcess {
            limits,
            capabilities: match &raw.capabilities {
                Some(sets) => capabilities(sets),
                None => CapabilitySets {
                    bounding: CapabilitySet::empty(),
                    effective: CapabilitySet::empty(),
                    inheritable: CapabilitySet::empty(),
                    permitted: CapabilitySet::empty(),
                    ambient: CapabilitySet::empty(),
                },
            },
            scheduler: scheduler(&raw)?,
            io_priority: match &raw.io_priority {
                None => None,
                Some(priority) => {
                    let class = match priority.class.as_str() {
                        "IOPRIO_CLASS_RT" => 1,
                        "IOPRIO_CLASS_BE" => 2,
                        "IOPRIO_CLASS_IDLE" => 3,
                        other => bail!("ioPriority.class {other:?} is unknown"),
                    };
                    ensure!(
                        (0..=7).contains(&priority.priority),
                        "ioPriority.priority {} is not between 0 and 7",
                        priority.priority
                    );
                    Some((class, priority.priority as u8))
                }
            },
            apparmor,
            affinity,
            raw,
        })
    }
}

/// A list of processors.
fn processors(text: &str) -> Result<IdList> {
    let list: IdList = text.parse()?;
    let most = CpuSet::count() as u32;
    ensure!(
        list.0.last().is_none_or(|last| *last < most),
        "a number is above {most}"
    );
    Ok(list)
}

/// Refuses a label that nothing would enforce.
fn selinux(name: &str, label: &str) -> Result<()> {
    ensure!(
        label.is_empty() || has_selinux(),
        "{name} {label:?}: this kernel has no SELinux, or has it switched off"
    );
    ensure!(!label.contains('\0'), "{name} contains a NUL byte");
    Ok(())
}

fn version(text: &str) -> Result<()> {
    let numbers: Vec<&str> = text.split(['.', '-', '+']).collect();
    let number = |n: usize| numbers.get(n).and_then(|text| text.parse::<u32>().ok());
    let (Some(major), Some(_), Some(_)) = (number(0), number(1), number(2)) else {
        bail!("ociVersion {text:?} is no version, such as 1.2.0");
    };
    ensure!(
        major == 1,
        "ociVersion {text}: only version 1 of the specification is supported"
    );
    Ok(())
}

fn root(config: &Config, bundle: &Path) -> Result<PathBuf> {
    let root = config.root.as_ref().context("root is missing")?;
    ensure!(!root.path.as_os_str().is_empty(), "root.path is empty");
    let path = bundle.join(&root.path);
    let path = path
        .canonicalize()
        .with_context(|| format!("root.path {path:?}"))?;
    ensure!(path.is_dir(), "root.path {path:?} is not a directory");
    ensure!(
        path != Path::new("/"),
        "root.path {:?} is the host's own root",
        root.path
    );
    Ok(path)
}

fn namespaces(config: &Config) -> Result<()> {
    let linux = &config.linux;
    let mut seen = Vec::new();
    for namespace in &linux.namespaces {
        let kind = namespace.kind;
        ensure!(
            !seen.contains(&kind),
            "linux.namespaces: {kind:?} is there twice"
        );
        seen.push(kind);
        ensure!(
            namespace.path.as_os_str().is_empty() || namespace.path.is_absolute(),
            "linux.namespaces: the path {:?} is not absolute",
            namespace.path
        );
    }
    let find = |kind| linux.namespaces.iter().find(|one| one.kind == kind);
    match find(NamespaceKind::Mount) {
        None => bail!("linux.namespaces: a container needs a mount namespace"),
        Some(mount) => ensure!(
            mount.path.as_os_str().is_empty(),
            "linux.namespaces: a mount namespace by path is not supported: its root is another's"
        ),
    }
    let uts = find(NamespaceKind::Uts).is_some();
    for (name, value) in [
        ("hostname", &config.hostname),
        ("domainname", &config.domainname),
    ] {
        ensure!(
            value.is_empty() || uts,
            "{name} {value:?} without a UTS namespace would rename the host"
        );
        ensure!(
            value.len() <= 64 && !value.contains('\0'),
            "{name} {value:?} is longer than 64 bytes, or contains a NUL byte"
        );
    }
    let maps = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    match find(NamespaceKind::User) {
        Some(user) if user.path.as_os_str().is_empty() => ensure!(
            !linux.uid_mappings.is_empty() && !linux.gid_mappings.is_empty(),
            "linux.namespaces: a new user namespace needs linux.uidMappings and linux.gidMappings"
        ),
        // podman and containerd repeat the maps of a namespace that they made.
        Some(_) => {}
        None => ensure!(
            !maps,
            "linux.uidMappings and linux.gidMappings need a user namespace"
        ),
    }
    Ok(())
}

fn hook(hook: &Hook) -> Result<()> {
    ensure!(
        hook.path.is_absolute(),
        "the path {:?} is not absolute",
        hook.path
    );
    if let Some(timeout) = hook.timeout {
        ensure!(timeout > 0, "the timeout {timeout} is not above 0");
    }
    Ok(())
}

impl CheckedMount {
    fn new(raw: &Mount, linux: &Linux) -> Result<CheckedMount> {
        let target = Target::new(&raw.destination)?;
        let options = Options::parse(&raw.options)?;
        let is_bind = options.bind.is_some() || raw.kind == "bind";
        ensure!(
            !is_bind || options.remount || !raw.source.as_os_str().is_empty(),
            "a bind mount needs a source"
        );
        ensure!(
            is_bind || options.remount || !matches!(raw.kind.as_str(), "" | "none"),
            "it has no type"
        );
        ensure!(
            !is_bind || options.data.is_empty() || options.remount,
            "the option {:?} belongs to a file system, and a bind mount makes none",
            options.data.first().map_or("", |(name, _)| name)
        );
        ensure!(
            !options.copy_up || raw.kind == "tmpfs",
            "tmpcopyup needs a tmpfs"
        );
        let mut raw = raw.clone();
        let maps = !raw.uid_mappings.is_empty() || !raw.gid_mappings.is_empty();
        if options.id_map.is_some() && !maps {
            // The specification allows it (“idmap”).
            raw.uid_mappings.clone_from(&linux.uid_mappings);
            raw.gid_mappings.clone_from(&linux.gid_mappings);
        }
        let maps = !raw.uid_mappings.is_empty() || !raw.gid_mappings.is_empty();
        ensure!(
            raw.uid_mappings.is_empty() == raw.gid_mappings.is_empty(),
            "uidMappings and gidMappings need one another"
        );
        ensure!(
            !maps || is_bind,
            "uidMappings and gidMappings are supported for bind mounts only"
        );
        ensure!(
            options.id_map.is_none() || maps,
            "idmap and ridmap need uidMappings and gidMappings, their own or the container's"
        );
        Ok(CheckedMount {
            target,
            options,
            uid_map: id_map("uidMappings", &raw.uid_mappings)?,
            gid_map: id_map("gidMappings", &raw.gid_mappings)?,
            raw,
        })
    }

    /// How far a bind mount reaches; `None` for another mount.
    pub(crate) fn bind(&self) -> Option<Reach> {
        self.options
            .bind
            .or_else(|| (self.raw.kind == "bind").then_some(Reach::Alone))
    }
}

impl CheckedDevice {
    fn new(raw: &Device) -> Result<CheckedDevice> {
        Target::new(&raw.path)?;
        let path: PathBuf = raw
            .path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        let number = |name: &str, number: i64, most: u32| -> Result<u32> {
            let fits = u32::try_from(number).ok().filter(|n| *n <= most);
            fits.with_context(|| format!("{name} {number} is not between 0 and {most}"))
        };
        let numbers = || -> Result<(u32, u32)> {
            Ok((
                number("major", raw.major, (1 << 12) - 1)?,
                number("minor", raw.minor, (1 << 20) - 1)?,
            ))
        };
        let kind = match raw.kind.as_str() {
            "c" | "u" => numbers().map(|(major, minor)| NodeKind::Char(major, minor))?,
            "b" => numbers().map(|(major, minor)| NodeKind::Block(major, minor))?,
            "p" => NodeKind::Fifo,
            other => bail!("type {other:?} is none of c, u, b and p"),
        };
        let mode = raw.file_mode.unwrap_or(0o666);
        // Go writes the kind of the file into the mode too.
        Ok(CheckedDevice {
            path,
            kind,
            mode: mode & 0o777,
            owner: (raw.uid.unwrap_or(0), raw.gid.unwrap_or(0)),
        })
    }
}

/// The devices that every container may use, whatever the configuration says
/// (config-linux.md “Default Devices”), and the making of nodes.
const ALWAYS: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// The rules for devices, of which the last that applies decides. Without any,
/// everything but the default devices is refused.
fn device_rules(resources: &Resources) -> Result<Vec<Verdict>> {
    let mut rules = Vec::new();
    for (n, rule) in resources.devices.iter().enumerate() {
        let what = || format!("linux.resources.devices[{n}]");
        let kinds = match rule.kind.as_deref().unwrap_or("a") {
            "a" | "" => vec![DeviceKind::Char, DeviceKind::Block],
            "c" | "u" => vec![DeviceKind::Char],
            "b" => vec![DeviceKind::Block],
            other => bail!("{}: type {other:?} is none of a, c and b", what()),
        };
        let number = |number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(n) => u32::try_from(n)
                .map(Some)
                .with_context(|| format!("{}: the number {n}", what())),
        };
        let (major, minor) = (number(rule.major)?, number(rule.minor)?);
        let access = rule.access.as_deref().filter(|text| !text.is_empty());
        // `a` means all of them only where that refuses more: runc knows no such
        // letter, and bears any in a rule that changes nothing.
        let access = match access {
            Some(text) if !rule.allow && is_all(text) => "rwm",
            other => other.unwrap_or("rwm"),
        };
        let access: DeviceAccess = access.parse().with_context(what)?;
        let rule = |kind| Verdict {
            rule: DeviceRule {
                kind,
                major,
                minor,
                access,
            },
            allow: rule.allow,
        };
        rules.extend(kinds.into_iter().map(rule));
    }
    for text in ALWAYS {
        rules.push(always(text)?);
    }
    Ok(rules)
}

fn is_all(access: &str) -> bool {
    access.contains('a') && access.chars().all(|c| "arwm".contains(c))
}

fn always(text: &str) -> Result<Verdict> {
    let mut words = text.split([' ', ':']);
    let mut word = || words.next().context("a rule");
    let kind = match word()? {
        "c" => DeviceKind::Char,
        _ => DeviceKind::Block,
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        _ => text.parse().map(Some).context("a number"),
    };
    Ok(Verdict {
        rule: DeviceRule {
            kind,
            major: number(word()?)?,
            minor: number(word()?)?,
            access: word()?.parse()?,
        },
        allow: true,
    })
}

fn id_map(name: &str, mappings: &[IdMapping]) -> Result<Vec<IdMap>> {
    let mut maps = Vec::new();
    for mapping in mappings {
        ensure!(mapping.size > 0, "{name}: a range of size 0");
        maps.push(IdMap {
            inside: mapping.container,
            outside: mapping.host,
            count: mapping.size,
        });
    }
    Ok(maps)
}

/// What a name of a capability is. A name that the kernel does not know is said
/// in a warning: the specification wants it so (config.md “capabilities”).
fn capabilities(sets: &Capabilities) -> CapabilitySets {
    let set = |kind: &str, names: &[String]| {
        names.iter().fold(CapabilitySet::empty(), |set, name| {
            match harden::seccomp::profile::capability(name) {
                Ok(one) => set | one,
                Err(_) => {
                    warn!("process.capabilities.{kind}: {name:?} is unknown, and ignored");
                    set
                }
            }
        })
    };
    CapabilitySets {
        bounding: set("bounding", &sets.bounding),
        effective: set("effective", &sets.effective),
        inheritable: set("inheritable", &sets.inheritable),
        permitted: set("permitted", &sets.permitted),
        ambient: set("ambient", &sets.ambient),
    }
}

fn scheduler(process: &Process) -> Result<Option<SchedAttr>> {
    let Some(scheduler) = &process.scheduler else {
        return Ok(None);
    };
    let policy = match scheduler.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => bail!("scheduler.policy {other:?} is unknown"),
    };
    let mut flags = 0;
    for flag in &scheduler.flags {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => bail!("scheduler.flags: {other:?} is unknown"),
        };
    }
    ensure!(
        (-20..=19).contains(&scheduler.nice),
        "scheduler.nice {} is not between -20 and 19",
        scheduler.nice
    );
    ensure!(
        (0..=99).contains(&scheduler.priority),
        "scheduler.priority {} is not between 0 and 99",
        scheduler.priority
    );
    ensure!(
        scheduler.priority == 0 || matches!(policy, 1 | 2),
        "scheduler.priority needs SCHED_FIFO or SCHED_RR"
    );
    ensure!(
        policy == 6 || (scheduler.runtime, scheduler.deadline, scheduler.period) == (0, 0, 0),
        "scheduler: runtime, deadline and period need SCHED_DEADLINE"
    );
    let mut attr = SchedAttr::default();
    attr.policy = policy;
    attr.flags = flags;
    attr.nice = scheduler.nice;
    attr.priority = scheduler.priority as u32;
    attr.runtime = scheduler.runtime;
    attr.deadline = scheduler.deadline;
    attr.period = scheduler.period;
    Ok(Some(attr))
}

fn sysctls(config: &Config) -> Result<Vec<Sysctl>> {
    let mut sysctls = Vec::new();
    for (name, value) in &config.linux.sysctl {
        // Where a slash comes first, slashes separate, and a dot is a part of a
        // name, such as that of a VLAN's device (sysctl.d(5)).
        let dotted: String = match name.find(['/', '.']) {
            Some(first) if name[first..].starts_with('/') => {
                let swapped = name.chars().map(|c| match c {
                    '/' => '.',
                    '.' => '/',
                    c => c,
                });
                swapped.collect()
            }
            _ => name.clone(),
        };
        let sysctl = format!("{dotted}={value}").parse();
        sysctls.push(sysctl.with_context(|| format!("linux.sysctl {name:?}"))?);
    }
    Ok(sysctls)
}

fn time_offsets(config: &Config) -> Result<Vec<TimeOffset>> {
    let linux = &config.linux;
    let new = linux
        .namespaces
        .iter()
        .any(|one| one.kind == NamespaceKind::Time && one.path.as_os_str().is_empty());
    ensure!(
        linux.time_offsets.is_empty() || new,
        "linux.timeOffsets needs a new time namespace"
    );
    let mut offsets = Vec::new();
    for (clock, offset) in &linux.time_offsets {
        ensure!(
            offset.nanosecs < 1_000_000_000,
            "linux.timeOffsets.{clock}: nanosecs {} is a second or more",
            offset.nanosecs
        );
        let text = format!("{clock}={}", offset.secs);
        let whole: TimeOffset = text.parse().context("linux.timeOffsets")?;
        offsets.push(whole.and_nanoseconds(offset.nanosecs));
    }
    Ok(offsets)
}

/// The devices of the host that the container gets.
fn net_devices(config: &Config) -> Result<Vec<MovedDevice>> {
    let linux = &config.linux;
    let mut kinds = linux.namespaces.iter().map(|one| one.kind);
    ensure!(
        linux.net_devices.is_empty() || kinds.any(|kind| kind == NamespaceKind::Network),
        "linux.netDevices needs a network namespace: the devices are the host's already"
    );
    let mut devices: Vec<MovedDevice> = Vec::new();
    for (outside, device) in &linux.net_devices {
        let inside = match device.name.as_str() {
            "" => outside,
            name => name,
        };
        let device = MovedDevice::new(outside, inside).context("linux.netDevices")?;
        ensure!(
            devices.iter().all(|other| other.inside != device.inside),
            "linux.netDevices: {inside} is there twice"
        );
        devices.push(device);
    }
    Ok(devices)
}

/// The modes of set_mempolicy(2), as `features` lists them.
pub(crate) const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// Its flags.
pub(crate) const MEMORY_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

pub(crate) fn memory_policy(config: &Config) -> Result<Option<MemoryPolicy>> {
    let Some(policy) = &config.linux.memory_policy else {
        return Ok(None);
    };
    let find = |all: &[(&str, u32)], name: &str| {
        let mut all = all.iter();
        all.find(|(known, _)| *known == name).map(|(_, bits)| *bits)
    };
    let mut mode = find(&MEMORY_MODES, &policy.mode)
        .with_context(|| format!("linux.memoryPolicy.mode {:?} is unknown", policy.mode))?;
    for flag in &policy.flags {
        mode |= find(&MEMORY_FLAGS, flag)
            .with_context(|| format!("linux.memoryPolicy.flags: {flag:?} is unknown"))?;
    }
    let nodes: IdList = policy.nodes.parse().context("linux.memoryPolicy.nodes")?;
    ensure!(
        nodes.0.last().is_none_or(|last| *last < 1024),
        "linux.memoryPolicy.nodes: no kernel has so many"
    );
    ensure!(
        nodes.0.is_empty() || !matches!(policy.mode.as_str(), "MPOL_DEFAULT" | "MPOL_LOCAL"),
        "linux.memoryPolicy.nodes: {} takes none",
        policy.mode
    );
    Ok(Some(MemoryPolicy {
        mode,
        nodes: nodes.0.into_iter().collect(),
    }))
}

pub(crate) fn personality(config: &Config) -> Result<Option<u32>> {
    let Some(personality) = &config.linux.personality else {
        return Ok(None);
    };
    ensure!(
        personality.flags.is_empty(),
        "linux.personality.flags: {:?} is unknown: no flag is defined",
        personality.flags[0]
    );
    match personality.domain.as_str() {
        "LINUX" => Ok(Some(0)),
        "LINUX32" => Ok(Some(8)),
        other => bail!("linux.personality.domain {other:?} is neither LINUX nor LINUX32"),
    }
}

/// The profile as step 10 reads it.
fn seccomp(value: &serde_json::Value) -> Result<String> {
    let text = serde_json::to_string(value).context("linux.seccomp")?;
    text.parse::<Profile>().context("linux.seccomp")?;
    Ok(text)
}
