//! Examines the kernel's features for the steps.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User, geteuid};

use super::{Finding, read};
use check::host::{self, NAMESPACES};

/// The examinations, in order.
pub const LOOKS: &[fn() -> Finding] = &[
    namespaces,
    user_namespaces,
    subordinate_ids,
    propagation,
    cgroups,
    overlay,
    fuse,
    nftables,
];

fn namespaces() -> Finding {
    let missing: Vec<&str> = NAMESPACES
        .into_iter()
        .filter(|kind| !Path::new("/proc/self/ns").join(kind).exists())
        .collect();
    if missing.is_empty() {
        return Finding::good("namespaces", format!("all eight: {}", NAMESPACES.join(" ")));
    }
    Finding::limited("namespaces", format!("not {}", missing.join(", ")))
        .means("this kernel was built without them: the steps about them fail here")
        .mend("leave --here out")
}

/// The settings that may keep an ordinary user from a user namespace, and
/// whether one works.
fn user_namespaces() -> Finding {
    let name = "user namespaces";
    let knobs = [
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "10000"),
    ];
    let works = unshare_as_ordinary_user();
    if works == Some(true) {
        let limit = read("/proc/sys/user/max_user_namespaces").unwrap_or_default();
        return Finding::good(name, format!("an ordinary user gets one (at most {limit})"));
    }
    for (knob, bad, better) in knobs {
        let path = format!("/proc/sys/{}", knob.replace('.', "/"));
        if read(&path).as_deref() == Some(bad) {
            return Finding::limited(name, format!("an ordinary user gets none: {knob} is {bad}"))
                .means("steps 05 and up need root on this host")
                .mend(format!("sudo sysctl {knob}={better}, or leave --here out"));
        }
    }
    match works {
        Some(_) => Finding::limited(name, "an ordinary user gets none: unshare(1) fails")
            .means("steps 05 and up need root on this host")
            .mend("leave --here out"),
        None => Finding::good(
            name,
            "no setting forbids them (unshare(1) is missing, so not tried)",
        ),
    }
}

/// Whether unshare(1) works for an ordinary user; `None` if it cannot be run.
fn unshare_as_ordinary_user() -> Option<bool> {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "true"])
        .stderr(Stdio::null())
        .current_dir("/");
    if geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    Some(command.status().ok()?.success())
}

fn subordinate_ids() -> Finding {
    let user = User::from_uid(Uid::current()).ok().flatten();
    let name = user.map_or_else(|| Uid::current().to_string(), |user| user.name);
    let ranges = read("/etc/subuid").unwrap_or_default();
    let has_range = ranges
        .lines()
        .any(|line| line.starts_with(&format!("{name}:")));
    let has_tool = ["/usr/bin/newuidmap", "/bin/newuidmap"]
        .iter()
        .any(|p| Path::new(p).exists());
    if has_tool && (has_range || geteuid().is_root()) {
        return Finding::good("subordinate ids", "newuidmap and a range in /etc/subuid");
    }
    let (found, mend) = if has_tool {
        (
            format!("no range for {name} in /etc/subuid"),
            format!("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"),
        )
    } else {
        (
            "newuidmap is missing".to_owned(),
            "vm/setup.sh installs it (package uidmap)".to_owned(),
        )
    };
    Finding::limited("subordinate ids", found)
        .means("rootless containers of step 05 have one user only")
        .mend(mend)
}

fn propagation() -> Finding {
    let mounts = host::mounts("self").unwrap_or_default();
    let root = mounts.iter().rfind(|mount| mount.mount_point == "/");
    let kind = root.map_or_else(
        || "unknown".to_owned(),
        |root| match root.propagation.first() {
            Some(field) => field.split(':').next().unwrap_or_default().to_owned(),
            None => "private".to_owned(),
        },
    );
    Finding::good(
        "propagation",
        format!("/ is {kind} (systemd shares it, the kernel does not)"),
    )
}

fn cgroups() -> Finding {
    let controllers = |file: &str| read(file).filter(|text| !text.is_empty());
    if let Some(all) = controllers("/sys/fs/cgroup/cgroup.controllers") {
        return Finding::good("cgroups", format!("v2, with {all}"));
    }
    let mounts = host::mounts("self").unwrap_or_default();
    let v1: Vec<&str> = mounts
        .iter()
        .filter(|mount| mount.fstype == "cgroup")
        .filter_map(|mount| mount.mount_point.rsplit('/').next())
        .collect();
    let v2 = mounts.iter().any(|mount| mount.fstype == "cgroup2");
    match (v1.is_empty(), v2) {
        (false, true) => Finding::good(
            "cgroups",
            format!("hybrid: v1 with {}, beside a v2 without", v1.join(" ")),
        ),
        (false, false) => Finding::good("cgroups", format!("v1, with {}", v1.join(" "))),
        (true, _) => Finding::limited("cgroups", "no controller is mounted")
            .means("no limits on this host")
            .mend("leave --here out"),
    }
}

fn overlay() -> Finding {
    file_system(
        "overlay",
        "layers of step 08 need another driver on this host",
    )
}

fn fuse() -> Finding {
    let device = fs::File::options().read(true).write(true).open("/dev/fuse");
    match device {
        Ok(_) => Finding::good("fuse", "/dev/fuse can be opened"),
        Err(error) => Finding::limited("fuse", format!("/dev/fuse: {error}"))
            .means("the AUFS of step 08 does not run on this host")
            .mend(match error.kind() {
                ErrorKind::PermissionDenied => "sudo chmod 666 /dev/fuse, as hosts usually have it",
                _ => "sudo modprobe fuse, or leave --here out",
            }),
    }
}

fn nftables() -> Finding {
    let builtin =
        || read("/proc/kallsyms").is_some_and(|symbols| symbols.contains(" nf_tables_newtable"));
    if Path::new("/sys/module/nf_tables").exists() || builtin() || module("nf_tables") {
        return Finding::good("nftables", "in the kernel, or a module of it");
    }
    Finding::limited("nftables", "not in this kernel")
        .means("no NAT and no published ports of step 06 on this host")
        .mend("leave --here out")
}

fn file_system(name: &'static str, means: &str) -> Finding {
    let listed = read("/proc/filesystems").unwrap_or_default();
    if listed
        .lines()
        .any(|line| line.split_whitespace().last() == Some(name))
    {
        return Finding::good(name, "in the kernel");
    }
    if module(name) {
        return Finding::good(name, "a module, which the first mount loads");
    }
    Finding::limited(name, "not in this kernel")
        .means(means)
        .mend("leave --here out")
}

/// Whether the running kernel has a module of this name.
fn module(name: &str) -> bool {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    ["modules.dep", "modules.builtin"].iter().any(|index| {
        read(&format!("/lib/modules/{release}/{index}"))
            .is_some_and(|text| text.contains(&format!("/{name}.ko")))
    })
}
