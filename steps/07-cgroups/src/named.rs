//! Groups with a name of the caller's that outlive the process which makes
//! them: an OCI runtime's `cgroupsPath`.
//!
//! The groups of [`Cgroups`](crate::Cgroups) are found by their lock, and end
//! with their launcher. These are found by what the caller has recorded: a
//! [`NamedGroup`] is a document. It is planned first, recorded, and only then
//! made, so that whoever ends it after a crash knows all directories.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use kit::say;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cli::args::CgroupSettings;
use crate::devices::bpf;
use crate::group::{Group, Member, end, file, kill_legacy, processes, v1};
use crate::host::hierarchy::{Hierarchy, Version};
use crate::host::layout::{Layout, controllers};
use crate::limits::change;
use crate::namespace::{self, Rights};
use crate::observe::freeze::{self, GroupState};
use crate::observe::stats;

pub use crate::devices::{DeviceAccess, DeviceKind, DeviceRule, Verdict};

/// A group: its directory in every hierarchy that takes part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedGroup {
    members: Vec<NamedMember>,
}

/// The directory in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NamedMember {
    /// 1 or 2.
    version: u8,
    /// The controllers of the hierarchy.
    controllers: Vec<String>,
    dir: PathBuf,
    /// The topmost group of the hierarchy.
    top: PathBuf,
    /// The groups above that have to be made for it, and are removed with it
    /// once they are empty.
    above: Vec<PathBuf>,
}

/// Whether a hierarchy of v2 without controllers takes part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    TakesPart,
    LeftOut,
}

/// A group for those without a place of their own. The last of them removes it.
const OWN: &str = "drydock-runtime";

impl NamedMember {
    fn expect_empty(&self, own: Option<Pid>) -> Result<()> {
        let mut there = processes::processes(&self.dir)?;
        there.retain(|pid| Some(*pid) != own);
        // The words of other runtimes.
        ensure!(
            there.is_empty(),
            "container's cgroup is not empty: {} process(es) found: {} is in {}",
            there.len(),
            there[0],
            self.dir.display()
        );
        Ok(())
    }

    fn version(&self) -> Version {
        match self.version {
            2 => Version::V2,
            _ => Version::V1,
        }
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|one| one == controller)
    }
}

/// Which interface a controller has on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Files of v1.
    V1,
    /// Files of v2.
    V2,
}

/// Checks a path of a group: names only, and at least one.
///
/// # Errors
/// A path that contains `.` or `..`, or names the root group.
pub fn check_path(path: &Path) -> Result<()> {
    let mut names = 0;
    for part in path.components() {
        match part {
            Component::RootDir => {}
            Component::Normal(_) => names += 1,
            _ => bail!("{path:?} is no path of a group: give it without . and .."),
        }
    }
    ensure!(names > 0, "{path:?} names no group");
    Ok(())
}

/// What [`NamedGroup::of_process`] knows of the host, read once for many
/// processes.
#[derive(Debug)]
pub struct GroupFinder {
    mounts: String,
    own: Layout,
    own_groups: String,
}

impl GroupFinder {
    /// Reads the caller's mounts and groups.
    pub fn new() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read {path}"));
        Ok(GroupFinder {
            mounts: read("/proc/self/mountinfo")?,
            own: Layout::detect()?,
            own_groups: read("/proc/self/cgroup")?,
        })
    }

    /// The result of [`NamedGroup::of_process`].
    pub fn group_of(&self, pid: Pid) -> Result<NamedGroup> {
        let groups = format!("/proc/{pid}/cgroup");
        let groups = fs::read_to_string(&groups).with_context(|| format!("read {groups}"))?;
        let layout = self.own.beside(&self.mounts, &groups);
        let is_own = |dir: &Path| self.own.hierarchies.iter().any(|one| one.own == dir);
        let v2_only = !layout.hierarchies.iter().any(|h| h.version == Version::V1);
        let mut members = Vec::new();
        for hierarchy in &layout.hierarchies {
            let version = match hierarchy.version {
                Version::V1 => 1,
                Version::V2 => 2,
            };
            let counts = !hierarchy.controllers.is_empty() || version == 2 && v2_only;
            if !counts || is_own(&hierarchy.own) {
                continue;
            }
            // Whoever cannot enter the group would have none of its limits.
            ensure!(
                !hierarchy.read_only,
                "{} is read-only: the group of process {pid} cannot be entered",
                hierarchy.mount_point.display()
            );
            members.push(NamedMember {
                version,
                controllers: hierarchy.controllers.clone(),
                dir: hierarchy.own.clone(),
                top: hierarchy.mount_point.clone(),
                above: Vec::new(),
            });
        }
        // Nor may one be left out that is mounted nowhere here.
        for line in groups
            .lines()
            .filter(|line| !self.own_groups.lines().any(|one| one == *line))
        {
            let names = line.split(':').nth(1).unwrap_or_default();
            let mut names = names.split(',').filter(|name| !name.contains('='));
            let shown =
                names.all(|name| name.is_empty() || members.iter().any(|one| one.has(name)));
            ensure!(
                shown,
                "the group {line:?} of process {pid} cannot be entered: its hierarchy is not mounted"
            );
        }
        Ok(NamedGroup { members })
    }
}

impl NamedGroup {
    /// The directories that the group will have. An absolute path begins at the
    /// root of each hierarchy, a relative one at the caller's own group. Makes
    /// nothing.
    pub fn plan(path: &Path) -> Result<NamedGroup> {
        Self::planned(path, Empty::LeftOut)
    }

    /// The same for a group that systemd makes. It follows the processes of its
    /// units in the hierarchy of v2, also where that has no controllers: a unit
    /// whose group is empty there has ended for it.
    pub fn plan_of_systemd(path: &Path) -> Result<NamedGroup> {
        Self::planned(path, Empty::TakesPart)
    }

    fn planned(path: &Path, empty: Empty) -> Result<NamedGroup> {
        check_path(path)?;
        let layout = Layout::detect()?;
        let v2_only = !layout.hierarchies.iter().any(|h| h.version == Version::V1);
        let mut members = Vec::new();
        for hierarchy in &layout.hierarchies {
            let wanted = match hierarchy.version {
                // A named one without controllers counts if systemd sorts its
                // services by it.
                Version::V1 => match &hierarchy.name {
                    Some(name) => name == "systemd",
                    None => !hierarchy.controllers.is_empty(),
                },
                Version::V2 => {
                    v2_only || empty == Empty::TakesPart || !hierarchy.controllers.is_empty()
                }
            };
            if !wanted || hierarchy.read_only {
                continue;
            }
            let mut member = NamedMember {
                version: match hierarchy.version {
                    Version::V1 => 1,
                    Version::V2 => 2,
                },
                controllers: hierarchy.controllers.clone(),
                dir: below(hierarchy, path),
                top: hierarchy.mount_point.clone(),
                above: Vec::new(),
            };
            let mut above: Vec<PathBuf> = way(&member).iter().map(|dir| dir.into()).collect();
            above.pop();
            let own = hierarchy.mount_point.join(OWN);
            above.retain(|dir| *dir == own || !dir.exists());
            member.above = above;
            members.push(member);
        }
        Ok(NamedGroup { members })
    }

    /// The groups that a running process is in, without those that the caller is
    /// in as well: there is nothing to enter. The caller makes sure afterwards
    /// that it is still the same process.
    ///
    /// # Errors
    /// If a hierarchy is mounted read-only, or not at all.
    pub fn of_process(pid: Pid) -> Result<NamedGroup> {
        GroupFinder::new()?.group_of(pid)
    }

    /// The same group, whose parents somebody else keeps.
    #[must_use]
    pub fn with_foreign_parents(mut self) -> NamedGroup {
        for member in &mut self.members {
            member.above.clear();
        }
        self
    }

    /// Whether it is no group in any hierarchy.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether the caller may make the group's directories, or their parents.
    pub fn is_writable(&self) -> bool {
        self.members.iter().all(|member| {
            let there = member.dir.ancestors().find(|dir| dir.exists());
            there.is_some_and(v1::may_make_groups)
        })
    }

    /// Makes the directories, and switches controllers on for them.
    ///
    /// # Errors
    /// If a directory exists and processes are in it: they would be limited,
    /// frozen and ended together with the container.
    pub fn make(&self) -> Result<()> {
        self.make_beside(None)
    }

    /// The same for a group in which a process of the caller's is already.
    pub fn make_beside(&self, own: Option<Pid>) -> Result<()> {
        for member in &self.members {
            say!("make the group {}", member.dir.display());
            let make = || match member.version() {
                Version::V1 => make_v1(member),
                Version::V2 => make_v2(member),
            };
            let mut made = make();
            // Another container has removed a group above.
            for _ in 0..100 {
                match made {
                    Err(ref error) if kit::errno::is(error, &[Errno::ENOENT, Errno::ENODEV]) => {
                        made = make();
                    }
                    _ => break,
                }
            }
            made?;
            member.expect_empty(own)?;
        }
        Ok(())
    }

    /// Makes sure that no process is in the group: [`end`](Self::end) would kill it.
    /// A group that does not exist is empty.
    pub fn expect_empty(&self) -> Result<()> {
        let mut members = self.members.iter();
        members.try_for_each(|member| member.expect_empty(None))
    }

    /// The interface of a controller on this host; `None` if it has none.
    pub fn interface(&self, controller: &str) -> Option<Interface> {
        self.of(controller).map(|member| match member.version() {
            Version::V1 => Interface::V1,
            Version::V2 => Interface::V2,
        })
    }

    /// Whether there is a group on v2.
    pub fn has_v2(&self) -> bool {
        self.v2().is_some()
    }

    fn of(&self, controller: &str) -> Option<&NamedMember> {
        self.members.iter().find(|member| member.has(controller))
    }

    fn v2(&self) -> Option<&NamedMember> {
        self.members
            .iter()
            .find(|member| member.version() == Version::V2)
    }

    /// Writes a file of a controller.
    ///
    /// # Errors
    /// That of write(2), with the file; a controller that is not available.
    pub fn write(&self, controller: &str, name: &str, value: &str) -> Result<()> {
        let Some(member) = self.of(controller) else {
            bail!("the {controller} controller is not available on this host");
        };
        let path = member.dir.join(name);
        say!("write {value:?} to {}", path.display());
        file::write(&path, value)
    }

    /// Writes a file of the group on v2.
    pub fn write_v2(&self, name: &str, value: &str) -> Result<()> {
        let member = self
            .v2()
            .context("the group is in no hierarchy of cgroup2")?;
        file::write(&member.dir.join(name), value)
    }

    /// Reads a file of a controller; `None` if either is missing.
    pub fn read(&self, controller: &str, name: &str) -> Result<Option<String>> {
        match self.of(controller) {
            Some(member) => file::read_if_there(&member.dir.join(name)),
            None => Ok(None),
        }
    }

    /// Changes the limits from those of `before` to those of `after`.
    ///
    /// # Errors
    /// Names the limit that cannot be set. The others are then as they were.
    pub fn change(&self, before: &CgroupSettings, after: &CgroupSettings) -> Result<()> {
        change::change(&self.group(), before, after)
    }

    /// Sets the rules for devices: the last one that applies decides, and what
    /// no rule mentions is refused.
    ///
    /// # Errors
    /// If there is nothing to enforce them by.
    pub fn set_devices(&self, rules: &[Verdict]) -> Result<()> {
        if let Some(v1) = self.of("devices") {
            // The group has a copy of the rules of the group above.
            file::write(&v1.dir.join("devices.deny"), "a")?;
            for verdict in rules {
                let name = match verdict.allow {
                    true => "devices.allow",
                    false => "devices.deny",
                };
                file::write(&v1.dir.join(name), &verdict.rule.to_string())?;
            }
            return Ok(());
        }
        let Some(v2) = self.v2() else {
            bail!("the use of devices cannot be limited: there is no group to limit it by");
        };
        let dir = File::open(&v2.dir).with_context(|| format!("open {}", v2.dir.display()))?;
        bpf::attach_ordered(dir.as_fd(), rules)
    }

    /// The processes in the group and below.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        match self.first() {
            Some(member) => processes::processes(&member.dir),
            None => Ok(Vec::new()),
        }
    }

    /// The member to ask about processes: all of them are in each.
    fn first(&self) -> Option<&NamedMember> {
        self.of("pids")
            .or_else(|| self.of("freezer"))
            .or_else(|| self.v2())
            .or_else(|| self.members.first())
    }

    /// Stops or resumes all processes, and waits until they have.
    pub fn freeze(&self, stop: bool) -> Result<()> {
        let state = match stop {
            true => GroupState::Frozen,
            false => GroupState::Thawed,
        };
        freeze::set(&self.group(), state)
    }

    /// Whether its processes are stopped.
    pub fn is_frozen(&self) -> Result<bool> {
        Ok(freeze::get(&self.group())? == Some(GroupState::Frozen))
    }

    /// Kills all processes and removes the directories. Missing ones count as
    /// removed.
    ///
    /// # Errors
    /// Names a group that could not be emptied within ten seconds.
    pub fn end(&self) -> Result<()> {
        let mut failed = Ok(());
        for member in &self.members {
            // A frozen process does not die.
            if member.version() == Version::V1 && member.has("freezer") && member.dir.exists() {
                failed = failed.and(kill_legacy::thaw(&member.dir));
            }
        }
        for member in self.members.iter().rev() {
            failed = failed.and(end::end(&member.dir, member.version()));
            for dir in member.above.iter().rev() {
                failed = failed.and(remove_if_empty(dir));
            }
        }
        failed
    }

    /// Kills all processes, and keeps the directories.
    pub fn kill(&self) -> Result<()> {
        match self.first() {
            Some(member) => end::kill_all(&member.dir, member.version()),
            None => Ok(()),
        }
    }

    /// Its statistics.
    pub fn usage(&self) -> Result<Usage> {
        let group = self.group();
        let stats = stats::of(&group)?;
        Ok(Usage {
            processes: stats.pids.as_ref().map(|pids| pids.now),
            cpu_nanoseconds: stats.cpu.map(|time| time.as_nanos()),
            memory: stats.memory.as_ref().map(|memory| memory.now.0),
            memory_limit: stats
                .memory
                .as_ref()
                .and_then(|memory| memory.limit)
                .map(|l| l.0),
            memory_peak: stats.memory_peak.map(|peak| peak.0),
            oom_kills: stats.oom_kills,
            inactive_file: self.inactive_file()?,
            read: stats.io.map(|(read, _)| read.0),
            written: stats.io.map(|(_, written)| written.0),
        })
    }

    fn inactive_file(&self) -> Result<Option<u64>> {
        let key = match self.interface("memory") {
            Some(Interface::V1) => "total_inactive_file ",
            _ => "inactive_file ",
        };
        let text = self.read("memory", "memory.stat")?.unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(key));
        Ok(value.and_then(|value| value.trim().parse().ok()))
    }

    fn group(&self) -> Group {
        let name = self.first().and_then(|member| member.dir.file_name());
        Group {
            name: name.unwrap_or_default().to_string_lossy().into_owned(),
            members: self
                .members
                .iter()
                .map(|member| Member {
                    version: member.version(),
                    controllers: member.controllers.clone(),
                    dir: member.dir.clone(),
                    lock: None,
                })
                .collect(),
        }
    }

    /// The open files by which a process enters the group. On v2 the container
    /// may have given its own groups controllers; this one then takes no
    /// processes, and a further one goes beside the first, `beside`, wherever that
    /// is.
    pub fn entrance(&self, beside: Option<Pid>) -> Result<Entrance> {
        self.entrance_below(beside, &[])
    }

    /// The same, for some controllers into a group below it.
    ///
    /// # Errors
    /// If there is no such group, or no such controller.
    pub fn entrance_below(&self, beside: Option<Pid>, below: &[Below]) -> Result<Entrance> {
        for controller in below.iter().flat_map(|one| &one.controllers) {
            ensure!(
                self.of(controller).is_some(),
                "unknown controller {controller}"
            );
        }
        let mut entrance = Entrance::default();
        for member in &self.members {
            let mut chosen = below.iter();
            let below = chosen.find(|one| {
                let mut controllers = one.controllers.iter();
                one.controllers.is_empty() || controllers.any(|name| member.has(name))
            });
            let dir = match below {
                Some(below) => member.dir.join(&below.path),
                None => member.dir.clone(),
            };
            match member.version() {
                Version::V1 => {
                    let tasks = OpenOptions::new().write(true).open(dir.join("tasks"));
                    entrance.tasks.push((tasks.enters(&dir)?, dir));
                }
                Version::V2 => {
                    let dir = match beside {
                        Some(pid) if below.is_none() && !takes_processes(&dir)? => {
                            v2_group_of(pid, member)?
                        }
                        _ => dir,
                    };
                    entrance.v2 = Some((File::open(&dir).enters(&dir)?, dir));
                }
            }
        }
        Ok(entrance)
    }

    /// What a container can see of its groups. Ask for it on the host: in a cgroup
    /// namespace of its own a process no longer recognises the host's mounts,
    /// whose roots are above its own (cgroup_namespaces(7)).
    pub fn view(&self) -> Result<GroupView> {
        let mut layout = Layout::detect()?;
        layout.hierarchies.retain(|hierarchy| {
            let mut members = self.members.iter();
            members.any(|member| member.top == hierarchy.mount_point)
        });
        Ok(GroupView {
            layout,
            group: self.clone(),
        })
    }
}

/// A group below a container's, for a further process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below {
    /// The controllers whose group is meant; all if there are none.
    controllers: Vec<String>,
    /// The path from the container's group.
    path: PathBuf,
}

impl FromStr for Below {
    type Err = Error;

    /// Parses `PATH`, or `CONTROLLER,…:PATH`. The root of the path is the
    /// container's group.
    fn from_str(text: &str) -> Result<Self> {
        let (controllers, path) = text.split_once(':').unwrap_or(("", text));
        let mut parts = PathBuf::new();
        for part in Path::new(path).components() {
            match part {
                Component::Normal(name) => parts.push(name),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    bail!("{path} is not a sub cgroup path: it leads out of the container's group")
                }
            }
        }
        let names = controllers.split(',').filter(|name| !name.is_empty());
        Ok(Below {
            controllers: names.map(str::to_owned).collect(),
            path: parts,
        })
    }
}

/// What a container can see of its groups.
#[derive(Debug)]
pub struct GroupView {
    layout: Layout,
    group: NamedGroup,
}

impl GroupView {
    /// Mounts the groups on the directory `place` of the container: in a cgroup
    /// namespace of its own as roots, else as the directories that they are.
    pub fn show(&self, place: BorrowedFd<'_>, own_namespace: bool, rights: Rights) -> Result<()> {
        if own_namespace {
            return namespace::show(&self.layout, place, rights);
        }
        let dir = |hierarchy: &Hierarchy| {
            let mut members = self.group.members.iter();
            let member = members.find(|member| member.top == hierarchy.mount_point);
            member.map(|member| member.dir.clone())
        };
        namespace::bind(&self.layout, place, rights, dir)
    }
}

/// What a group has used. A value is `None` if its controller is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it; sizes are in bytes.
pub struct Usage {
    pub processes: Option<u64>,
    pub cpu_nanoseconds: Option<u128>,
    pub memory: Option<u64>,
    pub memory_limit: Option<u64>,
    pub memory_peak: Option<u64>,
    pub oom_kills: Option<u64>,
    /// Of the memory, the part of the page cache that was not used lately.
    pub inactive_file: Option<u64>,
    pub read: Option<u64>,
    pub written: Option<u64>,
}

/// The files by which a child enters a group.
#[derive(Debug, Default)]
pub struct Entrance {
    tasks: Vec<(File, PathBuf)>,
    v2: Option<(File, PathBuf)>,
}

impl Entrance {
    /// The directory for [`process::Isolation::cgroup`].
    pub fn born_into(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(|(dir, _)| dir.as_fd())
    }

    /// For [`process::Isolation::why_refused`]: a group whose own groups have
    /// controllers takes no processes (cgroup-v2.rst “No Internal Process
    /// Constraint”).
    pub fn why_refused(&self, errno: Errno) -> Option<String> {
        let (_, dir) = self.v2.as_ref().filter(|_| errno == Errno::EBUSY)?;
        let why = refused(dir, "device or resource busy");
        Some(format!("{why}: its own groups have controllers"))
    }

    /// What the child needs to [`enter`](Self::enter).
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.tasks.iter().map(|(file, _)| file.as_fd())
    }

    /// Child: enters the groups on v1. It was born into the one on v2.
    pub fn enter(&mut self) -> Result<()> {
        for (tasks, dir) in &mut self.tasks {
            v1::enter(tasks, dir)?;
        }
        Ok(())
    }
}

/// Child, in its groups: makes a cgroup namespace of which they are the roots.
pub fn new_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWCGROUP).context("unshare(CLONE_NEWCGROUP)")
}

fn below(hierarchy: &Hierarchy, path: &Path) -> PathBuf {
    let base = match path.is_absolute() {
        true => &hierarchy.mount_point,
        false => &hierarchy.own,
    };
    let names = path.components().filter(|part| *part != Component::RootDir);
    names.fold(base.clone(), |dir, name| dir.join(name))
}

/// The groups on the way from the topmost one to the member's.
fn way(member: &NamedMember) -> Vec<&Path> {
    let mut way: Vec<&Path> = member
        .dir
        .ancestors()
        .take_while(|dir| dir.starts_with(&member.top) && *dir != member.top)
        .collect();
    way.reverse();
    way
}

fn make_dir(dir: &Path) -> Result<bool> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(|| format!("mkdir {}", dir.display())),
    }
}

fn remove_if_empty(dir: &Path) -> Result<()> {
    match fs::remove_dir(dir) {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(error).with_context(|| format!("rmdir {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn make_v1(member: &NamedMember) -> Result<()> {
    for dir in way(member) {
        make_dir(dir)?;
        if member.has("cpuset") {
            v1::fill_cpuset(dir)?;
        }
    }
    Ok(())
}

fn make_v2(member: &NamedMember) -> Result<()> {
    let way = way(member);
    let mut above = member.top.as_path();
    for dir in way {
        // All of them, as other runtimes do: a container may limit its own groups
        // by each.
        for controller in controllers(above)? {
            let control = above.join("cgroup.subtree_control");
            // A limit that needs it says so when it is set.
            if let Err(error) = file::write(&control, &format!("+{controller}")) {
                say!("without the {controller} controller: {error:#}");
            }
        }
        make_dir(dir)?;
        above = dir;
    }
    Ok(())
}

/// The error for a group that cannot be entered, in the words of other runtimes.
fn refused(dir: &Path, why: &str) -> String {
    let file = dir.join("cgroup.procs");
    format!(
        "adding pid of the command to cgroups: {}: {why}",
        file.display()
    )
}

/// Adds the group to the error of its entrance.
trait Enters<T> {
    fn enters(self, dir: &Path) -> Result<T>;
}

impl<T> Enters<T> for std::io::Result<T> {
    fn enters(self, dir: &Path) -> Result<T> {
        self.map_err(|error| {
            let why = match error.kind() {
                ErrorKind::NotFound => "no such file or directory",
                _ => "open",
            };
            Error::new(error).context(refused(dir, why))
        })
    }
}

/// Whether a group on v2 takes processes: none of its controllers is switched on
/// for its own groups.
fn takes_processes(dir: &Path) -> Result<bool> {
    let control = file::read_if_there(&dir.join("cgroup.subtree_control"))?;
    Ok(control.is_none_or(|control| control.trim().is_empty()))
}

/// The group on v2 in which process `pid` is: the container may have moved it
/// into one of its own, below `member`'s.
fn v2_group_of(pid: Pid, member: &NamedMember) -> Result<PathBuf> {
    let layout = Layout::of_process(&pid.to_string())?;
    let own = layout.v2().map(|hierarchy| hierarchy.own.clone());
    Ok(own
        .filter(|own| own.starts_with(&member.dir))
        .unwrap_or_else(|| member.dir.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_group_below_the_root() {
        for good in ["/a", "a/b", "/machine.slice/a.scope"] {
            check_path(Path::new(good)).unwrap();
        }
        for bad in ["", "/", "//", "/..", "a/../..", "../a", "./a/.."] {
            assert!(check_path(Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_absolute_path_begins_at_the_top() {
        let hierarchy = Hierarchy {
            version: Version::V1,
            controllers: vec!["memory".into()],
            name: None,
            mount_point: "/m".into(),
            own: "/m/own".into(),
            read_only: false,
        };
        assert_eq!(below(&hierarchy, Path::new("/a/b")), Path::new("/m/a/b"));
        assert_eq!(below(&hierarchy, Path::new("a")), Path::new("/m/own/a"));
    }
}
