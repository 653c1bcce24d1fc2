//! Reasons for a refusal by the kernel or newuidmap(1). `EPERM` has a dozen
//! causes; each cause named here is first checked on this system.

use std::fs;
use std::path::Path;

use anyhow::Result;
use nix::errno::Errno;
use rustix::thread::no_new_privs;

use crate::caller::Caller;
use crate::choice::{Mapping, Writer, grant, who};
use crate::ids::Ids;
use crate::map::parse_file;
use crate::subid;

/// Explains why clone(2) with `CLONE_NEWUSER` failed, and names the remedy.
/// `proc` is the mount point of proc(5). `None` if no known cause applies.
pub fn clone_refused(proc: &Path, errno: Errno) -> Option<String> {
    let causes: &[fn(&Path) -> Option<String>] = match errno {
        Errno::ENOSPC | Errno::EUSERS => &[no_room],
        Errno::EINVAL => &[not_built_in],
        Errno::EPERM | Errno::EACCES => &[
            unprivileged_userns_clone,
            apparmor,
            nobody,
            chrooted,
            filtered,
        ],
        _ => &[],
    };
    causes.iter().find_map(|cause| cause(proc))
}

/// Explains why root of a new user namespace lacks the capabilities that
/// capget(2) shows.
pub fn powerless(proc: &Path) -> String {
    apparmor(proc).unwrap_or_else(|| {
        "a security module (AppArmor, SELinux…) removes the capabilities that a user namespace \
         gives: see the kernel's log, or use sudo"
            .to_owned()
    })
}

fn sysctl(proc: &Path, name: &str) -> Option<String> {
    let file = proc.join("sys").join(name.replace('.', "/"));
    fs::read_to_string(file)
        .ok()
        .map(|value| value.trim().to_owned())
}

/// A limit of 0 in `/proc/sys/user` (namespaces(7)). There is one limit per
/// kind of namespace, and each may be the cause when one clone(2) asks for
/// several.
fn no_room(proc: &Path) -> Option<String> {
    ["user", "uts", "ipc", "pid", "mnt", "net", "cgroup", "time"]
        .map(|kind| format!("user.max_{kind}_namespaces"))
        .into_iter()
        .find(|limit| sysctl(proc, limit).as_deref() == Some("0"))
        .map(|limit| format!("{limit} is 0: as root, sysctl -w {limit}=10000"))
}

fn not_built_in(proc: &Path) -> Option<String> {
    (proc.join("self/ns").exists() && !proc.join("self/ns/user").exists()).then(|| {
        "this kernel was built without user namespaces (CONFIG_USER_NS): use sudo, or another \
         kernel"
            .to_owned()
    })
}

/// A switch of Debian and Ubuntu, absent from newer kernels.
fn unprivileged_userns_clone(proc: &Path) -> Option<String> {
    (sysctl(proc, "kernel.unprivileged_userns_clone")? == "0").then(|| {
        "kernel.unprivileged_userns_clone is 0, so only root may make user namespaces: as root, \
         sysctl -w kernel.unprivileged_userns_clone=1, or use sudo"
            .to_owned()
    })
}

/// Ubuntu's restriction since 23.10: the namespace is refused, or made and then
/// stripped of its rights.
fn apparmor(proc: &Path) -> Option<String> {
    (sysctl(proc, "kernel.apparmor_restrict_unprivileged_userns")? == "1").then(|| {
        "AppArmor restricts user namespaces of ordinary users \
         (kernel.apparmor_restrict_unprivileged_userns is 1): as root, give this program a \
         profile that says `userns,`, or sysctl -w \
         kernel.apparmor_restrict_unprivileged_userns=0, or use sudo"
            .to_owned()
    })
}

/// A caller whose IDs are not mapped in its own user namespace: it cannot own a
/// new one (clone(2)).
fn nobody(proc: &Path) -> Option<String> {
    let caller = Caller::look().ok()?;
    [Ids::User, Ids::Group].into_iter().find_map(|ids| {
        let own = fs::read_to_string(proc.join("self").join(ids.file())).ok()?;
        let mapped = parse_file(&own)
            .ok()?
            .iter()
            .any(|map| map.inside <= caller.id(ids) && caller.id(ids) - map.inside < map.count);
        (!mapped).then(|| {
            format!(
                "your {} is not mapped in the user namespace that you are in: map it there first",
                ids.noun()
            )
        })
    })
}

/// A process in a chroot(2): the kernel refuses it a user namespace, because
/// root of one could break out. The mountinfo of such a process has no mount at
/// `/`.
fn chrooted(proc: &Path) -> Option<String> {
    let mounts = fs::read_to_string(proc.join("self/mountinfo")).ok()?;
    let root_is_mounted = mounts
        .lines()
        .any(|line| line.split(' ').nth(4) == Some("/"));
    (!root_is_mounted).then(|| {
        "this process is in a chroot, where the kernel refuses user namespaces: start it outside, \
         or change the root with pivot_root"
            .to_owned()
    })
}

fn filtered(proc: &Path) -> Option<String> {
    let status = fs::read_to_string(proc.join("self/status")).ok()?;
    let filter = status
        .lines()
        .any(|line| line.strip_prefix("Seccomp:").map(str::trim) == Some("2"));
    filter.then(|| {
        "this process runs under a seccomp filter that may forbid it, such as Docker's default \
         profile: use the host, or the virtual machine (just vm)"
            .to_owned()
    })
}

/// Explains why newuidmap(1) or newgidmap(1) refused `mapping`.
pub fn helper_refused(mapping: &Mapping, caller: &Caller) -> Result<String> {
    let Mapping { ids, maps, writer } = mapping;
    let name = caller.name()?;
    let ranges = subid::ranges(*ids, name.as_deref(), caller.uid)?;
    let outsider = maps.iter().find(|map| {
        let own = map.outside == caller.id(*ids) && map.count == 1;
        !own && !ranges.iter().any(|range| range.holds(map))
    });
    if let Some(map) = outsider {
        return Ok(format!(
            "{} {} to {} are not in the ranges of {} in {} ({}): {}",
            ids.noun(),
            map.outside,
            map.outside.saturating_add(map.count - 1),
            who(name.as_deref(), caller.uid),
            ids.subordinate(),
            subid::in_words(&ranges),
            grant(*ids, name.as_deref())
        ));
    }
    if no_new_privs().unwrap_or(false) {
        return Ok(format!(
            "no_new_privs is set, so {} cannot gain privileges: start from a session without it",
            ids.helper()
        ));
    }
    Ok(match writer {
        Writer::Helper(program) => format!(
            "is {} set-user-ID root, and are you in your login group?",
            program.display()
        ),
        Writer::Privileged | Writer::Own => String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A /proc with these files in it.
    fn proc(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        dir
    }

    fn cause(files: &[(&str, &str)], errno: Errno) -> String {
        clone_refused(proc(files).path(), errno).unwrap_or_default()
    }

    #[test]
    fn a_limit_of_0_is_named() {
        let files = [
            ("sys/user/max_user_namespaces", "9\n"),
            ("sys/user/max_net_namespaces", "0\n"),
        ];
        assert!(cause(&files, Errno::ENOSPC).starts_with("user.max_net_namespaces is 0"));
        assert_eq!(cause(&files[..1], Errno::ENOSPC), "");
        assert_eq!(cause(&files, Errno::EPERM), "");
    }

    #[test]
    fn the_switches_of_the_distributions_are_named() {
        let debian = [("sys/kernel/unprivileged_userns_clone", "0\n")];
        assert!(cause(&debian, Errno::EPERM).starts_with("kernel.unprivileged_userns_clone is 0"));
        let ubuntu = [("sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")];
        assert!(cause(&ubuntu, Errno::EACCES).starts_with("AppArmor restricts"));
        assert!(powerless(proc(&ubuntu).path()).starts_with("AppArmor restricts"));
        let open = [
            ("sys/kernel/unprivileged_userns_clone", "1\n"),
            ("sys/kernel/apparmor_restrict_unprivileged_userns", "0\n"),
        ];
        assert_eq!(cause(&open, Errno::EPERM), "");
        assert!(powerless(proc(&open).path()).starts_with("a security module"));
    }

    #[test]
    fn a_kernel_without_user_namespaces_is_named() {
        assert!(cause(&[("self/ns/uts", "")], Errno::EINVAL).contains("CONFIG_USER_NS"));
        assert_eq!(cause(&[("self/ns/user", "")], Errno::EINVAL), "");
    }

    #[test]
    fn a_chroot_is_named() {
        let line = |on| format!("22 1 8:1 / {on} rw - ext4 /dev/sda rw\n");
        let inside = [("self/mountinfo", &*line("/proc"))];
        assert!(cause(&inside, Errno::EPERM).contains("in a chroot"));
        assert_eq!(cause(&[("self/mountinfo", &*line("/"))], Errno::EPERM), "");
    }

    #[test]
    fn nobody_and_a_filter_are_named() {
        let unmapped = [("self/uid_map", "")];
        assert!(cause(&unmapped, Errno::EPERM).contains("your UID is not mapped"));
        let filtered = [("self/status", "Name:\tsh\nSeccomp:\t2\n")];
        assert!(cause(&filtered, Errno::EPERM).contains("seccomp filter"));
    }
}
