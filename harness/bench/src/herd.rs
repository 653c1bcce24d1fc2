//! Many containers at once: started one after another, weighed, ended.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::bundle;
use super::contenders::{drydock, runtime};
use super::machine::{kib, meminfo};
use super::session::Session;
use super::stats::Summary;
use super::tools::{last_words, output};
use check::restore::running::kill_and_wait;
use check::sys::bind_child;

/// The engine that starts a herd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// drydock: each container keeps its launcher.
    Drydock,
    /// `runc run --detach`: only the container stays.
    Runc,
}

impl By {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            By::Drydock => "drydock",
            By::Runc => "runc --detach",
        }
    }
}

/// The measurements of a herd. Memory and disk are for each container, in KiB.
#[derive(Clone, Debug)]
pub struct Weight {
    /// The number of containers.
    pub count: usize,
    /// Milliseconds from the launcher's start to the container's first output.
    pub start: Summary,
    /// Seconds until all had started.
    pub all: f64,
    /// PSS of the launchers that stay; 0 for runc.
    pub launcher: f64,
    /// PSS of the processes in the containers.
    pub inside: f64,
    /// Growth of slabs, kernel stacks, page tables and per-CPU data.
    pub kernel: f64,
    /// Memory charged to the cgroups.
    pub charged: f64,
    /// Decrease of the available memory.
    pub available: f64,
    /// Growth of drydock's state directory on the disk; 0 for runc.
    pub disk: f64,
    /// Seconds until all had ended.
    pub end: f64,
}

/// The memory that one container may take, and the memory that must stay
/// available, in bytes. A herd that needs more is not started.
const FOR_ONE: u64 = 3 << 20;
const RESERVE: u64 = 1 << 30;

/// The time limit for a container to start, and for the launchers of a herd to
/// end.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The reason why `count` containers would not fit into memory; `None` if they
/// fit.
pub fn too_many(count: usize) -> Option<String> {
    let need = FOR_ONE * count as u64 + RESERVE;
    let there = meminfo("MemAvailable");
    (there < need).then(|| {
        format!(
            "left out: it may take {} MiB, and {} MiB are available",
            need >> 20,
            there >> 20
        )
    })
}

/// A herd. Dropping it ends its containers.
struct Herd<'a> {
    session: &'a Session,
    by: By,
    launchers: Vec<Child>,
    count: usize,
}

/// Starts `count` containers, weighs them and ends them.
///
/// # Errors
/// A container that does not start, with its last words; an interrupt.
pub fn herd(session: &Session, by: By, count: usize) -> Result<Weight> {
    let state = session.scratch.path("lib");
    let disk = disk_use(&state)?;
    let before = Memory::now();
    let mut herd = Herd {
        session,
        by,
        launchers: Vec::new(),
        count: 0,
    };
    let begun = Instant::now();
    let mut times = Vec::new();
    for _ in 0..count {
        session.scratch.stop.check()?;
        times.push(herd.one_more()?.as_secs_f64() * 1000.0);
    }
    let all = begun.elapsed().as_secs_f64();
    let inside = herd.inside();
    let launchers = herd.launchers.iter().map(|child| child.id() as i32);
    let launchers: Vec<i32> = launchers.collect();
    let after = Memory::now();
    let each = |bytes: u64| bytes as f64 / 1024.0 / count as f64;
    let mut weight = Weight {
        count,
        start: Summary::of(&times).context("no container")?,
        all,
        launcher: each(pss(&launchers)),
        inside: each(pss(&inside)),
        kernel: each(after.kernel.saturating_sub(before.kernel)),
        charged: each(charged(&session.scratch.groups())),
        available: each(before.available.saturating_sub(after.available)),
        disk: each(disk_use(&state)?.saturating_sub(disk)),
        end: 0.0,
    };
    let begun = Instant::now();
    herd.end()?;
    weight.end = begun.elapsed().as_secs_f64();
    Ok(weight)
}

impl Herd<'_> {
    /// Starts one more container and waits for its first output.
    fn one_more(&mut self) -> Result<Duration> {
        let argv = self.argv()?;
        let complaints = self.session.scratch.path("complaints");
        let stderr = File::create(&complaints).context("create a file for complaints")?;
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(stderr);
        // The launcher is killed with the bench. A container that has lost its
        // launcher is found in the cgroup.
        bind_child(&mut command, Vec::new(), Signal::SIGKILL);
        let begun = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("run {}", argv[0]))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let started = first_byte(stdout, LIMIT, &|| self.session.scratch.stop.check());
        let elapsed = begun.elapsed();
        match self.by {
            By::Drydock if started.is_ok() => self.launchers.push(child),
            // runc has ended, or is about to.
            By::Runc if started.is_ok() && ends_by(&mut child, Instant::now() + LIMIT)? => {}
            _ => {
                child.kill().context("kill a launcher")?;
                child.wait().context("wait for a launcher")?;
            }
        }
        started.with_context(|| {
            let words = last_words(&fs::read(&complaints).unwrap_or_default());
            format!("container {} does not start: {words}", self.count)
        })?;
        self.count += 1;
        Ok(elapsed)
    }

    fn argv(&self) -> Result<Vec<String>> {
        Ok(match self.by {
            By::Drydock => {
                let mut words = drydock(self.session, &[]);
                words.push("/bin/stay".to_owned());
                words
            }
            By::Runc => {
                let scratch = &self.session.scratch;
                let merged = scratch.path("herd");
                if !merged.exists() {
                    scratch.overlay(&self.session.root, "herd")?;
                }
                let dir = scratch.make("herd-bundle")?;
                let group = format!("{}/herd-{}", scratch.group(), self.count);
                let dir = bundle::write(dir, &merged, &group, &["/bin/stay"])?;
                let mut words = runtime(self.session, "runc");
                words.extend(["run", "--detach", "--bundle"].map(str::to_owned));
                words.push(dir.display().to_string());
                words.push(format!("herd-{}", self.count));
                words
            }
        })
    }

    /// The processes in the containers.
    fn inside(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        if let Some(group) = self.session.scratch.groups().first() {
            members(group, &mut pids);
        }
        pids
    }

    /// Ends all containers, and waits until their launchers have cleaned up and
    /// ended.
    fn end(&mut self) -> Result<()> {
        match self.by {
            By::Drydock => kill_and_wait(&self.inside())?,
            By::Runc => {
                for number in 0..self.count {
                    let mut words = runtime(self.session, "runc");
                    words.extend(["delete", "--force"].map(str::to_owned));
                    words.push(format!("herd-{number}"));
                    output(&words).context("runc delete")?;
                }
            }
        }
        self.count = 0;
        let end = Instant::now() + LIMIT;
        for mut child in self.launchers.drain(..) {
            if !ends_by(&mut child, end)? {
                bail!("launcher {} does not end", child.id());
            }
        }
        Ok(())
    }
}

impl Drop for Herd<'_> {
    fn drop(&mut self) {
        if self.count > 0
            && let Err(error) = self.end()
        {
            eprintln!("end of the containers: {error:#}");
        }
    }
}

/// Waits for the first byte that a container writes.
///
/// # Errors
/// As [`await_output`], or if the pipe is closed before.
pub(crate) fn first_byte(
    mut pipe: impl Read + AsFd,
    limit: Duration,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<()> {
    await_output(&pipe, limit, go_on)?;
    if pipe.read(&mut [0]).context("read from a container")? == 0 {
        bail!("no output");
    }
    Ok(())
}

/// Waits until a pipe has output, or is closed.
///
/// # Errors
/// If there is none within `limit`; if `go_on` says so when a signal arrives.
pub(crate) fn await_output(
    pipe: impl AsFd,
    limit: Duration,
    go_on: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(left).context("a time limit of poll(2)")?;
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], wait) {
            Ok(0) => bail!("no output within {} s", limit.as_secs_f64()),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => go_on()?,
            Err(errno) => return Err(errno).context("poll"),
        }
    }
}

/// Waits until a child has ended, but not beyond `end`; whether it has.
pub(crate) fn ends_by(child: &mut Child, end: Instant) -> Result<bool> {
    while child.try_wait().context("wait for a launcher")?.is_none() {
        if Instant::now() > end {
            return Ok(false);
        }
        sleep(Duration::from_millis(1));
    }
    Ok(true)
}

/// The memory that the kernel uses, and the available memory, in bytes.
struct Memory {
    kernel: u64,
    available: u64,
}

impl Memory {
    fn now() -> Memory {
        // Per-CPU counters and RCU settle a moment later.
        sleep(Duration::from_millis(300));
        let kernel = ["Slab", "KernelStack", "PageTables", "Percpu"];
        Memory {
            kernel: kernel.iter().map(|name| meminfo(name)).sum(),
            available: meminfo("MemAvailable"),
        }
    }
}

/// The proportional set size (PSS) of processes together, in bytes: a page that
/// several processes share counts for each by its share (proc_pid_smaps(5)).
pub fn pss(pids: &[i32]) -> u64 {
    let of = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let texts = pids.iter().filter_map(|pid| of(pid).ok());
    texts.map(|text| kib(&text, "Pss") * 1024).sum()
}

/// The disk space that a directory takes, in bytes, as du(1) counts it.
pub fn disk_use(dir: &Path) -> Result<u64> {
    let output = Command::new("du")
        .args(["-s", "-k", "--one-file-system"])
        .arg(dir)
        .output()
        .context("run du")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let kib = text
        .split_whitespace()
        .next()
        .and_then(|n| n.parse::<u64>().ok());
    Ok(
        kib.with_context(|| format!("du {}: {}", dir.display(), last_words(&output.stderr)))?
            * 1024,
    )
}

/// Adds the processes in a cgroup and its descendants to `pids`.
fn members(group: &Path, pids: &mut Vec<i32>) {
    let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members(&entry.path(), pids);
        }
    }
}

/// The memory charged to the groups, in bytes: version 2's `memory.current` or
/// version 1's `memory.usage_in_bytes`, both with the kernel's memory.
fn charged(groups: &[PathBuf]) -> u64 {
    let files = ["memory.current", "memory.usage_in_bytes"];
    groups
        .iter()
        .flat_map(|group| files.map(|file| group.join(file)))
        .find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_byte_of(script: &str, limit: Duration) -> Result<()> {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()?;
        let first = first_byte(child.stdout.take().unwrap(), limit, &|| Ok(()));
        child.kill()?;
        child.wait()?;
        first
    }

    #[test]
    fn a_container_that_says_nothing_is_not_waited_for_without_end() {
        assert!(first_byte_of("echo ready; exec sleep 60", LIMIT).is_ok());
        let silent = first_byte_of("exec sleep 60", Duration::from_millis(50)).unwrap_err();
        assert_eq!(silent.to_string(), "no output within 0.05 s");
        let closed = first_byte_of("exit 1", LIMIT).unwrap_err();
        assert_eq!(closed.to_string(), "no output");
    }

    #[test]
    fn this_process_has_a_share_of_memory_and_no_herd_is_endless() {
        assert!(pss(&[std::process::id() as i32]) > 0);
        assert_eq!(pss(&[i32::MAX]), 0);
        assert!(too_many(1 << 30).unwrap().starts_with("left out"));
    }

    #[test]
    fn members_of_groups_below_are_counted() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("a")).unwrap();
        fs::write(top.path().join("cgroup.procs"), "1\n").unwrap();
        fs::write(top.path().join("a/cgroup.procs"), "2\n3\n").unwrap();
        let mut pids = Vec::new();
        members(top.path(), &mut pids);
        assert_eq!(pids, [1, 2, 3]);
    }
}
