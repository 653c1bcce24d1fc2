//! The OCI bundle (runtime-spec, config.md) for runc, crun and youki, with the
//! isolation that `drydock run` gives by default and the limits of the bench.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Docker's default capabilities, which are also drydock's.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The masked paths in /proc and /sys: those that drydock masks.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/scsi",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// The read-only paths in /proc, as with Docker.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Writes the bundle's `config.json` into `dir`, and returns `dir`. The
/// container runs `command` on `root` in the cgroup `group`.
pub fn write(dir: PathBuf, root: &Path, group: &str, command: &[&str]) -> Result<PathBuf> {
    let file = dir.join("config.json");
    let config = config(root, group, command);
    let text = serde_json::to_vec_pretty(&config).context("write config.json")?;
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(dir)
}

fn config(root: &Path, group: &str, command: &[&str]) -> Value {
    let mount = |fs: &str, place: &str, options: &[&str]| json!({ "destination": place, "type": fs, "source": fs, "options": options });
    let inert = ["nosuid", "noexec", "nodev"];
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let namespaces = namespaces.map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": command,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
            "noNewPrivileges": false,
        },
        "root": { "path": root },
        "hostname": "bench",
        "mounts": [
            mount("proc", "/proc", &inert),
            mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("mqueue", "/dev/mqueue", &inert),
            mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": group,
            "resources": {
                "memory": { "limit": 64 << 20 },
                "cpu": { "quota": 50_000, "period": 100_000 },
                "pids": { "limit": 100 },
            },
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_has_its_root_its_command_and_its_limits() {
        let config = config(Path::new("/r"), "/g/runc", &["/bin/true"]);
        assert_eq!(config["root"]["path"], "/r");
        assert_eq!(config["process"]["args"][0], "/bin/true");
        assert_eq!(config["linux"]["resources"]["memory"]["limit"], 67_108_864);
        assert_eq!(config["linux"]["namespaces"][5]["type"], "cgroup");
    }
}
