//! The isolation of a contender's container as seen from inside and in its
//! cgroups, whatever its options promise.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::contenders::Contender;
use super::session::Session;
use super::tools::last_words;
use check::host::{self, Mount};

/// The isolation of one container.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// The kinds of namespaces that are not the host's.
    pub namespaces: Vec<String>,
    /// The limits that its cgroups set: `memory`, `cpu`, `pids`.
    pub limits: Vec<&'static str>,
    /// The type of the root file system.
    pub root: String,
    /// The number of effective capabilities, and of those in the bounding set.
    pub capabilities: [u32; 2],
    /// Whether `PR_SET_NO_NEW_PRIVS` is set.
    pub no_new_privs: bool,
    /// Whether system calls are filtered (seccomp(2)).
    pub seccomp: bool,
    /// The number of places in /proc and /sys that are covered or read-only.
    pub masked: usize,
}

/// The time limit for the script `look` to appear among the processes.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs the script `look` in a container of the contender and parses its
/// output.
pub fn look(session: &Session, contender: &Contender) -> Result<Inside> {
    let argv = contender.argv(session, "look", "/bin/look")?;
    let (program, args) = argv.split_first().context("no command")?;
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program}"))?;
    let limits = limits(LIMIT);
    let output = child.wait_with_output().context("wait")?;
    if !output.status.success() {
        bail!("{}: {}", contender.name, last_words(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut inside = read(&text, &own_namespaces()?)?;
    inside.limits = limits;
    Ok(inside)
}

fn own_namespaces() -> Result<Vec<String>> {
    let all = host::namespaces("self")?;
    Ok(all
        .iter()
        .map(|(kind, n)| format!("{kind}:[{n}]"))
        .collect())
}

/// Parses the output of the script `look`.
fn read(text: &str, hosts: &[String]) -> Result<Inside> {
    let mut inside = Inside::default();
    for line in text.lines() {
        let value = |name: &str| line.strip_prefix(name).map(str::trim);
        if let Some((kind, _)) = line.split_once(":[") {
            if !hosts.iter().any(|ns| ns == line) {
                inside.namespaces.push(kind.to_owned());
            }
        } else if let Some(set) = value("CapEff:") {
            inside.capabilities[0] = size(set)?;
        } else if let Some(set) = value("CapBnd:") {
            inside.capabilities[1] = size(set)?;
        } else if let Some(flag) = value("NoNewPrivs:") {
            inside.no_new_privs = flag == "1";
        } else if let Some(mode) = value("Seccomp:") {
            inside.seccomp = mode != "0";
        } else {
            let mount = Mount::parse(line)?;
            let point = &mount.mount_point;
            if point == "/" {
                inside.root = mount.fstype.clone();
            }
            let below = point.starts_with("/proc/") || point.starts_with("/sys/");
            inside.masked += usize::from(below && !point.starts_with("/sys/fs/cgroup"));
        }
    }
    Ok(inside)
}

/// The number of capabilities in a set, which is hexadecimal.
fn size(set: &str) -> Result<u32> {
    let set = u64::from_str_radix(set, 16).with_context(|| format!("capabilities {set}"))?;
    Ok(set.count_ones())
}

/// The limits of the container that runs the script `look` now; none if it does
/// not appear within `limit`.
fn limits(limit: Duration) -> Vec<&'static str> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        let all = host::processes().unwrap_or_default();
        if let Some(look) = all.iter().find(|process| process.comm == "look") {
            let groups = fs::read_to_string(format!("/proc/{}/cgroup", look.pid));
            return limits_of(&groups.unwrap_or_default(), Path::new("/sys/fs/cgroup"));
        }
        sleep(Duration::from_millis(5));
    }
    Vec::new()
}

/// The limits that the cgroups of /proc/PID/cgroup set.
fn limits_of(groups: &str, top: &Path) -> Vec<&'static str> {
    let mut limits = Vec::new();
    let files = [
        ("memory", "memory.limit_in_bytes", "memory.max"),
        ("cpu", "cpu.cfs_quota_us", "cpu.max"),
        ("pids", "pids.max", "pids.max"),
    ];
    for (name, v1, v2) in files {
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next(), fields.next());
            let path = path.unwrap_or_default().trim_start_matches('/');
            let file = match controllers {
                Some("") => top.join(path).join(v2),
                Some(all) if all.split(',').any(|one| one == name) => {
                    top.join(all).join(path).join(v1)
                }
                _ => continue,
            };
            let text = fs::read_to_string(file).unwrap_or_default();
            // 1 EiB (2^60 bytes) and more means no limit.
            let number = text.split_whitespace().next().unwrap_or("max").to_owned();
            if number.parse::<i64>().is_ok_and(|n| n > 0 && n < 1 << 60) && !limits.contains(&name)
            {
                limits.push(name);
            }
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_is_read() {
        let text = "pid:[1]\nnet:[2]\nCapEff:\t0\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n\
            36 35 98:0 / / rw - overlay overlay rw\n\
            37 36 0:1 / /proc rw - proc proc rw\n\
            38 37 0:2 / /proc/kcore rw - tmpfs tmpfs rw\n";
        let inside = read(text, &["net:[2]".to_owned()]).unwrap();
        assert_eq!(inside.namespaces, ["pid"]);
        assert_eq!((inside.capabilities, inside.masked), ([0, 14], 1));
        assert!(inside.no_new_privs && inside.seccomp);
        assert_eq!(inside.root, "overlay");
        assert!(read("what?", &[]).is_err());
    }

    #[test]
    fn limits_are_read_on_both_versions() {
        let top = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = top.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("memory/a/memory.limit_in_bytes", "67108864\n");
        write("cpu/a/cpu.cfs_quota_us", "-1\n");
        write("b/memory.max", "max\n");
        write("b/cpu.max", "50000 100000\n");
        write("b/pids.max", "100\n");
        let v1 = limits_of("4:memory:/a\n3:cpu:/a\n", top.path());
        assert_eq!(v1, ["memory"]);
        assert_eq!(limits_of("0::/b\n", top.path()), ["cpu", "pids"]);
    }
}
