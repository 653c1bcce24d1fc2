//! Writes limits and device rules into a group, before anything runs in it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow, bail};
use kit::errno::is;
use kit::say;
use nix::errno::Errno;
use rustix::thread::{CapabilitySet, capabilities};
use std::os::fd::AsFd;

use crate::cli::args::CgroupSettings;
use crate::devices::bpf;
use crate::devices::{DEFAULT, DeviceRule, RuleArg};
use crate::group::file;
use crate::group::{Group, Member};
use crate::host::hierarchy::Version;
use crate::limits::id_list::IdList;
use crate::limits::limit::{Limit, Value};
use crate::limits::protection;

/// Sets one limit on the group.
///
/// # Errors
/// Names the limit, the file, and the feature that this kernel lacks.
pub(crate) fn limit(group: &Group, limit: &Limit, version: Version) -> Result<()> {
    let values = match version {
        Version::V1 => &limit.v1,
        Version::V2 => &limit.v2,
    };
    for value in values {
        let member = group
            .controller(value.controller)
            .with_context(|| format!("the group has no {} controller", value.controller))
            .with_context(|| limit.asked.clone())?;
        set(member, value, limit).with_context(|| limit.asked.clone())?;
    }
    Ok(())
}

fn set(member: &Member, value: &Value, limit: &Limit) -> Result<()> {
    let there = value
        .choices
        .iter()
        .find(|(name, _)| member.dir.join(name).exists());
    let Some((name, text)) = there else {
        let names: Vec<&str> = value.choices.iter().map(|(name, _)| *name).collect();
        if limit.implied {
            say!(
                "without {}: this kernel has no {}",
                limit.asked,
                names.join(" or ")
            );
            return Ok(());
        }
        bail!(
            "this kernel has no {}{}",
            names.join(" or "),
            remedy(names[0])
        );
    };
    match *name {
        "cpuset.cpus" | "cpuset.mems" => check_ids(&member.dir, member.version, name, text)?,
        "blkio.bfq.weight" | "io.bfq.weight" | "io.weight" => check_weight(name)?,
        _ => {}
    }
    say!("write {text:?} to {}/{name}", member.dir.display());
    file::write(&member.dir.join(name), text)?;
    match *name {
        "memory.low" => protection::raise_above(&member.dir),
        _ => Ok(()),
    }
}

/// The remedy for a missing file.
fn remedy(name: &str) -> &'static str {
    match name {
        "memory.memsw.limit_in_bytes" | "memory.swap.max" => {
            ": it does not account for swap (swapaccount=1 on its command line)"
        }
        "blkio.weight" | "io.bfq.weight" => ": load the BFQ scheduler (modprobe bfq)",
        "cpu.cfs_period_us" | "cpu.max" => ": it was built without CONFIG_CFS_BANDWIDTH",
        _ => "",
    }
}

/// Checks that the CPUs or nodes exist in the group above. The kernel cannot
/// tell: a v2 cpuset silently takes its parent's set if none of its own is
/// available.
fn check_ids(dir: &Path, version: Version, name: &str, asked: &str) -> Result<()> {
    let Some(above) = dir.parent() else {
        return Ok(());
    };
    let file = match version {
        Version::V1 => above.join(name.replace("cpuset.", "cpuset.effective_")),
        Version::V2 => above.join(format!("{name}.effective")),
    };
    let (asked, there): (IdList, IdList) = (asked.parse()?, file::read(&file)?.parse()?);
    let missing = asked.without(&there);
    if !missing.0.is_empty() {
        let what = match name {
            "cpuset.cpus" => "CPU",
            _ => "memory node",
        };
        bail!("there is no {what} {missing}, or it may not be used here: available are {there}");
    }
    Ok(())
}

/// Checks that a disk is scheduled by weight: by BFQ, or with io.cost on.
/// Otherwise the kernel accepts a weight and ignores it.
fn check_weight(name: &str) -> Result<()> {
    let bfq = || {
        let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        disks
            .map(|disk| disk.path().join("queue/scheduler"))
            .any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("[bfq]")))
    };
    let io_cost = || {
        // Only the root group has this file, and a container does not see it.
        fs::read_to_string("/sys/fs/cgroup/io.cost.qos")
            .map_or(true, |text| text.contains("enable=1"))
    };
    if bfq() || name == "io.weight" && io_cost() {
        return Ok(());
    }
    bail!(
        "no disk is scheduled by weight, so it would have no effect: echo bfq > \
         /sys/block/DISK/queue/scheduler, or on v2 switch io.cost.qos on"
    )
}

/// Denies the group every device except those of the default list and of
/// `args`.
///
/// An unprivileged launcher cannot deny devices: that needs privileges in the
/// initial user namespace. A container that cannot make nodes is then limited
/// by the permissions of the existing ones.
///
/// # Errors
/// Names a device option that is no device, or whose access cannot be enforced;
/// or says that root inside, who can make nodes, could use the host's devices.
pub(crate) fn devices(group: &Group, args: &CgroupSettings) -> Result<()> {
    let asked = &args.device;
    let mut rules: Vec<DeviceRule> = DEFAULT.to_vec();
    rules.extend(args.device_cgroup_rule.iter().flat_map(RuleArg::rules));
    for device in asked {
        let rule = device
            .rule()
            .with_context(|| format!("--device {device}"))?;
        rules.push(rule);
    }
    let done = match (group.controller("devices"), group.v2()) {
        (Some(v1), _) => deny_v1(&v1.dir, &rules),
        (None, Some(v2)) => {
            say!(
                "attach a device program with {} rules to {}",
                rules.len(),
                v2.dir.display()
            );
            match &v2.lock {
                Some(dir) => bpf::attach(dir.as_fd(), &rules),
                None => Err(anyhow!("{} is not ours", v2.dir.display())),
            }
        }
        (None, None) => Err(Error::new(Errno::EPERM).context("there is no group to limit it by")),
    };
    let Err(error) = done else { return Ok(()) };
    if may_make_nodes()? {
        return Err(error.context(
            "the use of devices cannot be limited, and root inside could use every device of the \
             host: mount the devices controller or cgroup2 and let this launcher create groups \
             there, or allow it by --device-cgroup-rule \"a *:* rwm\"",
        ));
    }
    if !not_permitted(&error) {
        return Err(error.context("limit the devices"));
    }
    if let Some(device) = asked
        .iter()
        .find(|device| device.access.to_string() != "rwm")
    {
        bail!("--device {device} cannot be enforced: only root may limit the use of devices");
    }
    say!("devices are not limited: nobody inside can create a device node ({error:#})");
    Ok(())
}

/// Whether a process of this container could make a device node. In a user
/// namespace it cannot, whatever its capabilities there (mknod(2), `EPERM`).
fn may_make_nodes() -> Result<bool> {
    let map = file::read(Path::new("/proc/self/uid_map"))?;
    let first = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    let own = capabilities(None).context("capget")?.effective;
    Ok(first && own.contains(CapabilitySet::MKNOD))
}

/// Whether the caller lacks the right: `EPERM`, or `EACCES` of a file. `EACCES`
/// of bpf(2) is another matter: the verifier has refused the program.
fn not_permitted(error: &anyhow::Error) -> bool {
    let of_file = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::PermissionDenied;
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
    is(error, &[Errno::EPERM]) || causes.any(of_file)
}

fn deny_v1(dir: &Path, rules: &[DeviceRule]) -> Result<()> {
    say!(
        "deny all devices but {} rules in {}",
        rules.len(),
        dir.display()
    );
    file::write(&dir.join("devices.deny"), "a")?;
    let allow = dir.join("devices.allow");
    let mut file = OpenOptions::new()
        .write(true)
        .open(&allow)
        .with_context(|| format!("open {}", allow.display()))?;
    for (at, rule) in rules.iter().enumerate() {
        let written = file
            .write_all(rule.to_string().as_bytes())
            .with_context(|| format!("write {rule} to {}", allow.display()));
        match written {
            // A group above denies it, as in a container. A device that was
            // asked for by name must be allowed.
            Err(error) if at < DEFAULT.len() && not_permitted(&error) => {
                say!("{error:#}")
            }
            Err(error) => return Err(anyhow!("{error:#}: a group above denies it")),
            Ok(()) => {}
        }
    }
    Ok(())
}
