//! `step-07 hierarchy rules`: the four rules that connect hierarchies,
//! controllers, groups and processes (cgroup-v1/cgroups.rst), each tried, with
//! the kernel's answer.
//!
//! All attempts are made in a mount namespace and in hierarchies of their own,
//! which end with the command.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kit::errno::{errno_of, is};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;

use crate::group::file;
use crate::host::layout::Layout;
use crate::lab::controllers::controllers;
use crate::lab::family::Family;
use crate::lab::hierarchy::{LabHierarchy, RULES, mount_at, options, unmount};

/// Tries the rules and returns the results, one line per attempt, and whether
/// the kernel kept all rules.
///
/// # Errors
/// `EPERM` without the privileges of root, which every attempt needs.
pub(crate) fn try_all() -> Result<(String, bool)> {
    unshare(CloneFlags::CLONE_NEWNS)
        .context("unshare(CLONE_NEWNS): only root can try the rules")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("mount(/, MS_PRIVATE)")?;
    let bench = PathBuf::from("/tmp");
    mount(
        Some("tmpfs"),
        &bench,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("mount(tmpfs, /tmp)")?;
    let mut report = Report::default();
    several_controllers(&bench, &mut report)?;
    processes(&bench, &mut report)?;
    Ok((report.text, report.kept))
}

/// The text for the reader, and whether all rules were kept.
struct Report {
    text: String,
    kept: bool,
}

impl Default for Report {
    fn default() -> Self {
        Report {
            text: String::new(),
            kept: true,
        }
    }
}

impl Report {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into a String does not fail.
        if self.text.write_fmt(line).is_ok() {
            self.text.push('\n');
        }
    }

    fn rule(&mut self, number: u32, rule: &str) {
        self.line(format_args!("rule {number}: {rule}"));
    }

    /// Adds an attempt, the kernel's answer, and a note if it contradicts the
    /// rule.
    fn tried(&mut self, what: &str, said: &str, as_the_rule_says: bool) {
        let note = if as_the_rule_says {
            ""
        } else {
            "   (against the rule)"
        };
        self.line(format_args!("  {what:<58}{said}{note}"));
        self.kept &= as_the_rule_says;
    }

    fn result(&mut self, what: &str, done: &Result<()>, expected: std::result::Result<(), Errno>) {
        let answer = match done {
            Ok(()) => Ok(()),
            Err(error) => Err(errno_of(error).unwrap_or(Errno::UnknownErrno)),
        };
        let said = match answer {
            Ok(()) => "allowed".to_owned(),
            Err(errno) => format!("refused: {errno:?}"),
        };
        self.tried(what, &said, answer == expected);
    }
}

/// Rules 1 and 2, with two unused controllers.
fn several_controllers(bench: &Path, report: &mut Report) -> Result<()> {
    report.rule(1, "a hierarchy may carry several controllers");
    let free = free_controllers()?;
    let not_tried = |report: &mut Report, why: &str| {
        report.line(format_args!("  cannot be tried: {why}"));
        report.rule(2, "a controller is in one hierarchy only");
        report.line(format_args!("  cannot be tried for the same reason"));
    };
    let [one, two, ..] = &free[..] else {
        let but = if free.is_empty() {
            "none".into()
        } else {
            free.join(", ")
        };
        not_tried(report, &format!("all controllers but {but} are in use"));
        return Ok(());
    };
    let both = [one.clone(), two.clone()];
    let place = |name: &str| -> Result<PathBuf> {
        let dir = bench.join(name);
        fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
        Ok(dir)
    };
    let (first, second, third) = (place("first")?, place("second")?, place("third")?);
    let command = |list: &[String]| format!("mount -t cgroup -o {}", options(None, list));
    let done = mount_at(&first, &options(None, &both));
    if done
        .as_ref()
        .is_err_and(|error| is(error, &[Errno::EINVAL]))
    {
        let why = format!("this kernel has {one} or {two} for v2 only");
        not_tried(report, &why);
        return Ok(());
    }
    report.result(&command(&both), &done, Ok(()));
    if done.is_err() {
        return Ok(());
    }

    report.rule(2, "a controller is in one hierarchy only");
    let alone = &both[..1];
    let done = mount_at(&second, &options(None, alone));
    report.result(
        &format!("{} (a second hierarchy)", command(alone)),
        &done,
        Err(Errno::EBUSY),
    );
    if done.is_ok() {
        unmount(&second, || Ok(false))?;
    }
    let done = mount_at(&third, &options(None, &both));
    report.result(&format!("{} (again)", command(&both)), &done, Ok(()));
    if done.is_ok() {
        let same = device(&first)? == device(&third)?;
        let said = if same {
            "the same hierarchy"
        } else {
            "another hierarchy"
        };
        report.tried("  what that mount shows", said, same);
        unmount(&third, || Ok(false))?;
    }
    // The next attempt must find them free.
    unmount(&first, || Ok(free_controllers()?.len() < free.len()))
}

/// The controllers that are in no hierarchy and have no use on v2 either.
fn free_controllers() -> Result<Vec<String>> {
    let layout = Layout::detect()?;
    let mut free: Vec<String> = controllers()?
        .into_iter()
        .filter(|c| c.enabled && c.hierarchy == 0 && layout.find(&c.name).is_none())
        // v2 uses perf_event without listing it, and lists blkio as io.
        .filter(|c| c.name != "perf_event" && c.name != "blkio")
        .map(|c| c.name)
        .collect();
    // First those that only mark packets, which are rarely used. Last those
    // that a kernel may have been built with for v2 only, since Linux 6.11 and
    // 6.12 (CONFIG_MEMCG_V1, CONFIG_CPUSETS_V1).
    free.sort_by_key(|name| match name.as_str() {
        name if name.starts_with("net_") => 0,
        "memory" | "cpuset" => 2,
        _ => 1,
    });
    Ok(free)
}

/// Rules 3 and 4, in a hierarchy without a controller.
fn processes(bench: &Path, report: &mut Report) -> Result<()> {
    let name = format!("{RULES}{}", std::process::id());
    let root = bench.join("named");
    fs::create_dir(&root).context("mkdir named")?;
    let hierarchy = LabHierarchy::mount(&root, &name, &[])?;
    let family = Family::start()?;
    let tried = with_family(&hierarchy, &family, report);
    let ended = family.end();
    hierarchy.clear()?;
    hierarchy.unmount()?;
    tried.and(ended)
}

fn with_family(hierarchy: &LabHierarchy, family: &Family, report: &mut Report) -> Result<()> {
    let holds = |group: &str, pid: Pid| -> Result<bool> {
        let text = file::read(&hierarchy.group(group)?.join("cgroup.procs"))?;
        Ok(text.lines().any(|line| line == pid.to_string()))
    };
    let own = Pid::this();
    report.rule(
        3,
        "a new hierarchy has every process in its root group; a process is in one group of it",
    );
    let all = holds("/", own)?
        && holds("/", Pid::from_raw(1)).unwrap_or(true)
        && holds("/", family.parent)?;
    report.tried(
        "mount -t cgroup -o none,name=…; cat cgroup.procs",
        yes(all, "everybody is there"),
        all,
    );
    for group in ["a", "b"] {
        let dir = hierarchy.group(group)?;
        fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
    }
    let none = !holds("a", own)? && !holds("b", own)?;
    report.tried(
        "mkdir a b; cat a/cgroup.procs",
        yes(none, "nobody is there"),
        none,
    );
    for (group, other) in [("a", "/"), ("b", "a")] {
        let done = hierarchy.attach(group, family.parent.as_raw(), false);
        report.result(&format!("echo PID > {group}/cgroup.procs"), &done, Ok(()));
        let gone = !holds(other, family.parent)?;
        let other = if other == "/" {
            "the root group"
        } else {
            other
        };
        report.tried(&format!("  is it still in {other}?"), yes(gone, "no"), gone);
    }
    let done = fs::remove_dir(hierarchy.group("b")?).context("rmdir b");
    report.result("rmdir b, with the process in it", &done, Err(Errno::EBUSY));

    report.rule(
        4,
        "a child begins in its parent's group, and can then be moved without it",
    );
    let child = family.have_child()?;
    let with = holds("b", child)?;
    report.tried(
        "fork(2) by the process in b: where is the child?",
        yes(with, "in b"),
        with,
    );
    let done = hierarchy.attach("a", child.as_raw(), true);
    report.result("echo CHILD > a/tasks", &done, Ok(()));
    let parted = holds("a", child)? && holds("b", family.parent)?;
    report.tried(
        "  where are they now?",
        yes(parted, "the child in a, the parent in b"),
        parted,
    );
    Ok(())
}

fn yes(is_so: bool, words: &str) -> &str {
    if is_so { words } else { "no such thing" }
}

fn device(dir: &Path) -> Result<u64> {
    let meta = fs::metadata(dir).with_context(|| format!("stat {}", dir.display()))?;
    Ok(meta.dev())
}
