//! The protections of the host, as a command sees them. A difference between a
//! launch with a fault and one without means that the fault has dropped a
//! protection.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{getgroups, getresgid, getresuid};

use crate::{host, sys};

/// What was observed: subject to lines.
pub type Protections = BTreeMap<String, Vec<String>>;

/// Observes from inside. What cannot be observed is empty, which is also the
/// same each time.
pub fn look() -> Protections {
    let one = |line: String| vec![line];
    let mut seen: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    seen.insert("uids", one(format!("{:?}", getresuid())));
    seen.insert("gids", one(format!("{:?}", getresgid())));
    seen.insert("groups", one(format!("{:?}", getgroups())));
    seen.insert("status", status());
    let namespaces = host::namespaces("self").unwrap_or_default();
    let namespaces = namespaces
        .iter()
        .map(|(kind, inode)| format!("{kind} {inode}"));
    seen.insert("namespaces", namespaces.collect());
    let mounts = host::mounts("self").unwrap_or_default();
    seen.insert("mounts", mounts.iter().map(host::Mount::describe).collect());
    seen.insert("cgroup", lines("/proc/self/cgroup"));
    seen.insert("limits", lines("/proc/self/limits"));
    seen.insert("oom_score_adj", lines("/proc/self/oom_score_adj"));
    seen.insert("cgroup limits", cgroup_limits());
    seen.insert("uid_map", lines("/proc/self/uid_map"));
    seen.insert("gid_map", lines("/proc/self/gid_map"));
    seen.insert("devices", devices());
    seen.insert("device nodes", nodes("/dev"));
    seen.insert("root", nodes("/"));
    seen.insert("volumes", [nodes("/data"), nodes("/anonymous")].concat());
    seen.insert("links", links());
    seen.insert("resolv.conf", lines("/etc/resolv.conf"));
    seen.insert("hosts", lines("/etc/hosts"));
    seen.insert("hostname", lines("/proc/sys/kernel/hostname"));
    seen.insert(
        "keyring",
        one(format!("session {:?}", sys::session_keyring())),
    );
    let directory = std::env::current_dir().unwrap_or_default();
    seen.insert("directory", one(directory.display().to_string()));
    seen.insert("descriptors", descriptors());
    let environment = std::env::vars_os();
    let mut environment: Vec<String> = environment.map(|pair| format!("{pair:?}")).collect();
    environment.sort();
    seen.insert("environment", environment);
    seen.into_iter()
        .map(|(what, lines)| (what.to_owned(), lines))
        .collect()
}

fn lines(file: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Capabilities, no_new_privs, seccomp, signals, umask.
fn status() -> Vec<String> {
    let wanted = [
        "Cap",
        "NoNewPrivs",
        "Seccomp",
        "SigBlk",
        "SigIgn",
        "Umask",
        "NSpid",
    ];
    let all = lines("/proc/self/status");
    let is_wanted = |line: &String| wanted.iter().any(|name| line.starts_with(name));
    all.into_iter().filter(is_wanted).collect()
}

/// Limits of the container's cgroup, if the container can see them.
fn cgroup_limits() -> Vec<String> {
    let files = [
        "memory/memory.limit_in_bytes",
        "pids/pids.max",
        "devices/devices.list",
        "memory.max",
        "pids.max",
    ];
    let mut all = Vec::new();
    for file in files {
        let path = format!("/sys/fs/cgroup/{file}");
        all.extend(
            lines(&path)
                .into_iter()
                .map(|line| format!("{file} {line}")),
        );
    }
    all
}

/// The kernel's answers to devices that no container may have: one of a disk,
/// and the kernel's log.
fn devices() -> Vec<String> {
    let tried = [
        ("disk", SFlag::S_IFBLK, (254, 0)),
        ("kmsg", SFlag::S_IFCHR, (1, 11)),
    ];
    let mut all = Vec::new();
    for (name, kind, (major, minor)) in tried {
        let path = format!("/tmp-{name}");
        let made = mknod(path.as_str(), kind, Mode::S_IRUSR, makedev(major, minor));
        let opened = made.and_then(|()| open(path.as_str(), OFlag::O_RDONLY, Mode::empty()));
        let removed = match fs::remove_file(&path) {
            Ok(()) => "made",
            Err(_) => "not made",
        };
        all.push(match opened {
            Ok(_) => format!("{name} {removed} opened"),
            Err(errno) => format!("{name} {removed} {errno:?}"),
        });
    }
    all
}

/// The entries of a directory: kind, mode, owner and device number.
fn nodes(directory: &str) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(file) = entry.path().symlink_metadata() else {
            continue;
        };
        let kind = file.file_type();
        let device = kind.is_char_device() || kind.is_block_device();
        let device = device.then(|| format!(" {:#x}", file.rdev()));
        all.push(format!(
            "{} {:o} {}:{}{}",
            entry.path().display(),
            file.mode(),
            file.uid(),
            file.gid(),
            device.unwrap_or_default()
        ));
    }
    all.sort();
    all
}

fn links() -> Vec<String> {
    let all = lines("/proc/net/dev");
    all.iter()
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect()
}

fn descriptors() -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
    {
        // The descriptor of the listing itself is closed by now.
        if let Ok(target) = fs::read_link(entry.path()) {
            let number = entry.file_name().to_string_lossy().into_owned();
            all.push(format!("{number} {}", target.display()));
        }
    }
    all.retain(|line| !line.ends_with("/fd"));
    all.sort();
    all
}
