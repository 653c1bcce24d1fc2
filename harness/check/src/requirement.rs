//! Requirements of checks: features of the kernel and the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{geteuid, gettid};

use crate::cgroup::v2_has;
use crate::host::{self, Mount};
use crate::{firewall, rtnl, workspace};

/// Tests a requirement: `None` if it is met, else what is missing, in words.
///
/// | requirement | met where |
/// |---|---|
/// | `root` | the effective user ID is 0 |
/// | `cgroup-v2` | the unified hierarchy is at /sys/fs/cgroup |
/// | `cgroup-v1` | a v1 hierarchy is mounted (also on a hybrid host) |
/// | `controller:NAME` | it is in a hierarchy that is mounted, v1 or v2; the name is that of v1 |
/// | `filesystem:NAME` | /proc/filesystems lists it, perhaps after modprobe |
/// | `kernel:5.12` | the kernel is at least that |
/// | `rootfs:NAME` | `just rootfs NAME` has been run |
/// | `file:PATH` | it exists |
/// | `tool:NAME` | the program is in `PATH`; the virtual machine gets this host's |
/// | `bridge` | the kernel has bridges, veth pairs and nf_tables |
/// | `unprivileged-userns` | an ordinary user may create user namespaces |
pub fn missing(requirement: &str) -> Option<String> {
    let (kind, name) = requirement.split_once(':').unwrap_or((requirement, ""));
    let (met, otherwise) = match kind {
        "root" => (geteuid().is_root(), "needs root".to_owned()),
        "cgroup-v2" => (
            Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            "needs cgroup v2 at /sys/fs/cgroup".to_owned(),
        ),
        "cgroup-v1" => (
            fs::read_to_string("/proc/self/mountinfo")
                .is_ok_and(|text| text.contains(" - cgroup ")),
            "needs a cgroup v1 hierarchy".to_owned(),
        ),
        "controller" => (
            controller(name),
            format!("no cgroup hierarchy that is mounted has the controller {name}"),
        ),
        "filesystem" => (
            filesystem(name),
            format!("the kernel has no file system {name}"),
        ),
        "kernel" => (kernel_at_least(name), format!("needs Linux {name}")),
        "rootfs" => (
            workspace::rootfs(name).join("bin").exists(),
            format!("the root file system {name} is missing: ./just rootfs {name}"),
        ),
        "file" => (Path::new(name).exists(), format!("{name} is missing")),
        "tool" => (
            tool(name).is_some(),
            format!("the program {name} is not installed"),
        ),
        "bridge" => (
            bridges(),
            "the kernel lacks bridges, veth or nf_tables".to_owned(),
        ),
        "unprivileged-userns" => (
            zero_or_absent("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
                && fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone")
                    .map_or(true, |t| t.trim() != "0")
                && fs::read_to_string("/proc/sys/user/max_user_namespaces")
                    .map_or(true, |t| t.trim() != "0"),
            "ordinary users may not create user namespaces here".to_owned(),
        ),
        _ => (
            false,
            format!("the requirement {requirement:?} is not known"),
        ),
    };
    (!met).then_some(otherwise)
}

/// Whether [`missing`] knows a requirement.
pub fn is_known(requirement: &str) -> bool {
    missing(requirement).is_none_or(|text| !text.ends_with("is not known"))
}

/// The path of a program in `PATH` or in the administrators' directories, which
/// an ordinary user's `PATH` may lack.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Tries bridges, veth pairs and nf_tables in a network namespace that ends
/// with its thread.
fn bridges() -> bool {
    let tried = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        rtnl::add_bridge("br0")?;
        rtnl::add_veth("veth0", "veth1", gettid().as_raw())?;
        firewall::drop_forwarded()
    });
    tried.join().is_ok_and(|tried| tried.is_ok())
}

fn zero_or_absent(file: &str) -> bool {
    fs::read_to_string(file).map_or(true, |text| text.trim() == "0")
}

/// Whether a controller is in a mounted hierarchy. A line in /proc/cgroups is
/// not enough: the kernel may have been built with the controller for v2 only
/// (CONFIG_MEMCG_V1), and v1 be mounted.
fn controller(name: &str) -> bool {
    let has = |mount: &Mount| match mount.fstype.as_str() {
        "cgroup" => mount.super_options.iter().any(|option| option == name),
        "cgroup2" => v2_has(Path::new(&mount.mount_point), name),
        _ => false,
    };
    host::mounts("self").is_ok_and(|mounts| mounts.iter().any(has))
}

fn filesystem(name: &str) -> bool {
    let listed = || {
        fs::read_to_string("/proc/filesystems")
            .unwrap_or_default()
            .lines()
            .any(|line| line.split_whitespace().last() == Some(name))
    };
    // The first mount loads a module; only then is it listed.
    listed()
        || std::process::Command::new("modprobe")
            .args(["-q", name])
            .status()
            .is_ok_and(|s| s.success())
            && listed()
}

fn kernel_at_least(wanted: &str) -> bool {
    let number = |text: &str| -> Vec<u32> {
        text.split(|c: char| !c.is_ascii_digit())
            .take(2)
            .filter_map(|n| n.parse().ok())
            .collect()
    };
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    number(&release) >= number(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_requirement_is_never_met() {
        assert!(missing("a-flux-capacitor").is_some());
        assert!(!is_known("a-flux-capacitor"));
        assert!(is_known("kernel:99.0"));
        assert!(missing("kernel:99.0").is_some());
        assert!(missing("kernel:4.0").is_none());
    }
}
