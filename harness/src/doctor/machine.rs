//! Examines the kernel, the privileges, and the free space.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

use super::{Finding, read};
use check::report::kernel_release;
use check::{host, requirement, workspace};

/// The examinations, in order.
pub const LOOKS: &[fn() -> Finding] = &[kernel, place, privileges, filter, memory, disk];

fn kernel() -> Finding {
    if requirement::missing("kernel:5.12").is_none() {
        return Finding::good("kernel", kernel_release());
    }
    Finding::limited("kernel", kernel_release())
        .means("older than 5.12: mount_setattr(2) and others are missing on this host")
        .mend("leave --here out: the virtual machine has a newer kernel")
}

/// The surroundings of this host: the limits of a container look like faults
/// of ours.
fn place() -> Finding {
    let version = read("/proc/version").unwrap_or_default().to_lowercase();
    let inside = if version.contains("microsoft") {
        "Windows Subsystem for Linux"
    } else if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() {
        "a container"
    } else if host::mounts("self").is_ok_and(|all| all.iter().all(|m| m.mount_point != "/")) {
        "a chroot, where the kernel makes no user namespace"
    } else {
        return Finding::good("host", "a system of its own, no container and not WSL");
    };
    Finding::limited("host", format!("inside {inside}"))
        .means("it decides which mounts, namespaces and cgroups there are")
        .mend("leave --here out, or use a machine or virtual machine of its own")
}

fn privileges() -> Finding {
    if !geteuid().is_root() {
        return Finding::good("privileges", "an ordinary user, who can do all but --here");
    }
    let missing: Vec<&str> = [
        (21, "CAP_SYS_ADMIN"),
        (12, "CAP_NET_ADMIN"),
        (24, "CAP_SYS_RESOURCE"),
        (27, "CAP_MKNOD"),
    ]
    .into_iter()
    .filter(|(number, _)| !has_capability(*number))
    .map(|(_, name)| name)
    .collect();
    if missing.is_empty() {
        return Finding::good("privileges", "root with all capabilities that matter here");
    }
    Finding::limited("privileges", format!("root without {}", missing.join(", ")))
        .means("what needs them fails on this host with EPERM: capabilities(7)")
        .mend("leave --here out, or ask whoever started this system")
}

/// Whether the effective set contains the capability of this number.
fn has_capability(number: u32) -> bool {
    read("/proc/self/status")
        .and_then(|status| {
            let set = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
            u64::from_str_radix(set.trim(), 16).ok()
        })
        .is_none_or(|set| set & (1 << number) != 0)
}

fn filter() -> Finding {
    let status = read("/proc/self/status").unwrap_or_default();
    let mode = status.lines().find_map(|l| l.strip_prefix("Seccomp:"));
    if mode.is_none_or(|mode| mode.trim() != "2") {
        return Finding::good("seccomp", "no filter");
    }
    Finding::limited("seccomp", "a filter is installed")
        .means("system calls that it forbids fail with EPERM or ENOSYS, whoever calls")
        .mend("leave --here out, or leave the container that installed it")
}

fn memory() -> Finding {
    let text = read("/proc/meminfo").unwrap_or_default();
    let free = text
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))
        .and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024;
    let found = format!("{free} MiB available");
    if free >= 1536 {
        return Finding::good("memory", found);
    }
    Finding::limited("memory", found)
        .means("a virtual machine takes 1 GiB, a build as much")
        .mend("end other programs")
}

/// The free space for the build, and for kernels and root file systems.
fn disk() -> Finding {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace::root().join("target"), Into::into);
    let needs = [(target, 3.0), (workspace::cache(), 0.5)];
    let mut found = Vec::new();
    for (dir, need) in needs {
        let Some(there) = dir.ancestors().find(|dir| dir.exists()) else {
            continue;
        };
        let Ok(room) = statvfs(there) else { continue };
        let free = room.blocks_available() as f64 * room.fragment_size() as f64 / 1e9;
        let dir = dir.display().to_string();
        if free < need {
            return Finding::bad("disk", format!("{free:.1} GB free for {dir}"))
                .means(format!("it takes up to {need} GB"))
                .mend("make room, or set CARGO_TARGET_DIR and DRYDOCK_CACHE to another disk");
        }
        found.push(format!("{free:.0} GB free for {dir}"));
    }
    Finding::good("disk", found.join(", "))
}
