//! Traces by strace(1), and the totals of their calls.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::tools;

/// The totals of all system calls of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calls {
    /// The number of calls; a fraction in a mean of traces.
    pub count: f64,
    /// Their time together, in milliseconds.
    pub ms: f64,
}

/// The system calls of a command and of all that it starts, by name. Calls that
/// wait for other processes have entries of their own: `read (waits)`.
pub type Trace = BTreeMap<String, Calls>;

/// Runs a command under strace.
pub fn trace(argv: &[String], dir: &Path) -> Result<Trace> {
    let file = dir.join("strace.out");
    // -y prints what a descriptor refers to, which tells a file from a pipe.
    let mut words = vec![tools::need("strace")?.display().to_string()];
    words.extend(["-f", "-q", "-y", "-ttt", "-T", "-o"].map(str::to_owned));
    words.push(file.display().to_string());
    words.extend_from_slice(argv);
    tools::output(&words).context("strace")?;
    let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// Adds up lines of the form `PID TIME NAME(ARGUMENTS) = RESULT <SECONDS>`.
pub fn parse(text: &str) -> Trace {
    let mut trace = Trace::new();
    let mut waiting: BTreeMap<&str, bool> = BTreeMap::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((_, call)) = rest.trim_start().split_once(' ') else {
            continue;
        };
        let (name, arguments) = match call.strip_prefix("<... ") {
            Some(resumed) => (resumed.split(' ').next().unwrap_or_default(), None),
            None => match call.split_once('(') {
                Some((name, arguments)) => (name, Some(arguments)),
                None => continue, // a signal, or an end
            },
        };
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            continue;
        }
        let waits = match arguments {
            Some(arguments) => waits(name, arguments),
            None => waiting.get(pid).copied().unwrap_or(false),
        };
        if call.ends_with("<unfinished ...>") {
            waiting.insert(pid, waits);
            continue;
        }
        let time = call
            .rsplit_once('<')
            .map(|(_, time)| time.trim_end_matches('>'));
        let Some(seconds) = time.and_then(|time| time.parse::<f64>().ok()) else {
            continue; // execve and exit_group may have none
        };
        let name = match waits {
            true => format!("{name} (waits)"),
            false => name.to_owned(),
        };
        let calls = trace.entry(name).or_default();
        calls.count += 1.0;
        calls.ms += seconds * 1000.0;
    }
    trace
}

/// Whether a call waits for another process or thread.
fn waits(name: &str, arguments: &str) -> bool {
    const ALWAYS: [&str; 15] = [
        "sched_yield",
        "futex",
        "wait4",
        "waitid",
        "poll",
        "ppoll",
        "epoll_wait",
        "epoll_pwait",
        "select",
        "pselect6",
        "nanosleep",
        "clock_nanosleep",
        "rt_sigtimedwait",
        "rt_sigsuspend",
        "pause",
    ];
    let first = arguments.split(',').next().unwrap_or_default();
    let from_another = ["<pipe:", "<socket:", "<UNIX", "<anon_inode:"]
        .iter()
        .any(|kind| first.contains(kind));
    ALWAYS.contains(&name) || (["read", "recvmsg", "recvfrom"].contains(&name) && from_another)
}

/// The mean of several traces of one command.
pub fn mean(traces: &[Trace]) -> Trace {
    let mut mean = Trace::new();
    for (name, calls) in traces.iter().flatten() {
        let sum = mean.entry(name.clone()).or_default();
        sum.count += calls.count / traces.len() as f64;
        sum.ms += calls.ms / traces.len() as f64;
    }
    mean
}

/// The purposes of calls, in the order of the chart.
pub const KINDS: [&str; 7] = [
    "mounts",
    "processes, namespaces",
    "cgroups and other files",
    "network, sockets",
    "memory",
    "identity and the rest",
    "waiting for others",
];

/// The purpose of a call: one of [`KINDS`].
pub fn kind(name: &str) -> &'static str {
    let name = match name.strip_suffix(" (waits)") {
        Some(_) => return KINDS[6],
        None => name,
    };
    match name {
        "mount" | "umount2" | "pivot_root" | "fsopen" | "fsconfig" | "fsmount" | "move_mount"
        | "open_tree" | "mount_setattr" | "fspick" | "chroot" => KINDS[0],
        "clone" | "clone3" | "fork" | "vfork" | "execve" | "execveat" | "unshare" | "setns"
        | "pidfd_open" | "pidfd_send_signal" | "kill" | "tgkill" | "exit_group" => KINDS[1],
        "socket" | "bind" | "connect" | "sendto" | "sendmsg" | "recvfrom" | "recvmsg"
        | "socketpair" | "getsockname" | "setsockopt" => KINDS[3],
        "mmap" | "munmap" | "mprotect" | "brk" | "madvise" | "mremap" => KINDS[4],
        _ if is_of_files(name) => KINDS[2],
        _ => KINDS[5],
    }
}

fn is_of_files(name: &str) -> bool {
    let words = [
        "open",
        "read",
        "write",
        "close",
        "stat",
        "mkdir",
        "rmdir",
        "unlink",
        "rename",
        "link",
        "mknod",
        "chmod",
        "chown",
        "access",
        "getdents",
        "fcntl",
        "dup",
        "pipe",
        "lseek",
        "ioctl",
        "sync",
        "chdir",
        "getcwd",
        "xattr",
        "flock",
        "truncate",
        "fallocate",
        "utimens",
        "umask",
        "copy_file_range",
        "sendfile",
        "memfd",
    ];
    words.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_added_up_and_waits_are_told_apart() {
        let text = "\
10 1.000001 mount(\"x\", \"/\", NULL, MS_PRIVATE, NULL) = 0 <0.000500>
10 1.000002 mount(\"x\", \"/\", NULL, MS_PRIVATE, NULL) = 0 <0.001500>
10 1.000003 read(3<pipe:[7]>,  <unfinished ...>
11 1.000004 read(4</etc/passwd>, \"a\", 1) = 1 <0.000100>
10 1.000005 <... read resumed>\"b\", 1) = 1 <0.010000>
10 1.000006 --- SIGCHLD {si_signo=SIGCHLD} ---
10 1.000007 exit_group(0) = ?
10 1.000008 +++ exited with 0 +++
";
        let trace = parse(text);
        let names: Vec<&str> = trace.keys().map(String::as_str).collect();
        assert_eq!(names, ["mount", "read", "read (waits)"]);
        assert_eq!(trace["mount"].count, 2.0);
        assert!((trace["mount"].ms - 2.0).abs() < 1e-9);
        assert!((trace["read (waits)"].ms - 10.0).abs() < 1e-9);
        let mean = mean(&[trace.clone(), Trace::new()]);
        assert_eq!(mean["mount"].count, 1.0);
    }

    #[test]
    fn every_call_has_a_kind() {
        assert_eq!(kind("mount"), "mounts");
        assert_eq!(kind("openat"), "cgroups and other files");
        assert_eq!(kind("futex (waits)"), "waiting for others");
        assert_eq!(kind("prctl"), "identity and the rest");
        assert_eq!(kind("clone3"), "processes, namespaces");
    }
}
