//! The container's root: the mounts in the order of the configuration, the
//! nodes of devices, and what is hidden.
//!
//! The root file system is foreign data. Every destination is resolved inside it
//! by a descriptor (openat2(2), `RESOLVE_IN_ROOT`), and every mount is complete
//! before it is attached to that descriptor: a symbolic link in the image leads
//! nowhere else.

use std::cell::{Cell, OnceCell};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use cgroups::named::GroupView;
use cgroups::{NamedGroup, Rights};
use kit::{say, sys};
use libc::MOUNT_ATTR_RDONLY;
use mount::detached::{Detached, FsOption, MountAttrFlags};
use mount::target::{FileKind, open_or_make};
use mount::{change, masks, root::Root};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, major, makedev, minor, mknodat, umask};
use nix::unistd::{Gid, Pid, Uid, UnlinkatFlags, fchownat, mkfifoat, symlinkat, unlinkat};
use process::Isolation;
use rustix::fs::{PROC_SUPER_MAGIC, fstatfs};
use user::choice::{Mapping, Writer};
use user::ids::Ids;

use crate::config::check::{CheckedDevice, CheckedMount, NodeKind};
use crate::config::options::{Attributes, Reach};
use crate::launch::copy_up;
use crate::launch::sources::Sources;

/// The root, shared by the isolations that work in it until it is `/`.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedRoot(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    root: OnceCell<Root>,
    /// It is `/`: nobody needs its descriptor any more.
    left: Cell<bool>,
}

impl SharedRoot {
    /// The root, while it is not `/` yet.
    pub(crate) fn get(&self) -> Result<&Root> {
        self.0.root.get().context("the root is not made")
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        let root = self.0.root.get().filter(|_| !self.0.left.get())?;
        Some(root.fd())
    }
}

/// The nodes that every container has (config-linux.md “Default Devices”).
const NODES: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
];

/// The files of /proc that may be covered: they show the container's limits
/// instead of the machine. Anything else there could be something that the
/// runtime itself relies on (CVE-2019-16884).
const COVERABLE: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// The isolation that makes the mounts and the nodes. The root is not `/` yet.
pub(crate) struct Rootfs {
    pub path: PathBuf,
    pub bundle: PathBuf,
    pub mounts: Vec<CheckedMount>,
    pub devices: Vec<CheckedDevice>,
    pub propagation: Option<(MsFlags, Reach)>,
    /// The label of SELinux for the files of new file systems.
    pub label: String,
    pub group: NamedGroup,
    /// What it can see of the group: looked for on the host.
    pub view: Option<GroupView>,
    /// Whether the group is the root of the container's cgroup namespace.
    pub own_groups: bool,
    pub root: SharedRoot,
    /// ID-mapped mounts, made on the host: only its root may map them.
    pub mapped: Vec<Option<Detached>>,
    /// Whether the child is root of a user namespace of its own, and has mounts
    /// of its own: the caller may reach sources that the child may not.
    pub own_users: bool,
    pub sources: Option<Sources>,
}

impl Isolation for Rootfs {
    fn name(&self) -> &'static str {
        "rootfs"
    }

    fn prepare(&mut self) -> Result<()> {
        self.view = Some(self.group.view()?);
        self.mapped = Vec::new();
        for one in &self.mounts {
            let mapped = match one.uid_map.is_empty() {
                true => None,
                false => Some(self.mapped(one).with_context(|| named(one))?),
            };
            self.mapped.push(mapped);
        }
        if self.own_users && self.opened().next().is_some() {
            self.sources = Some(Sources::new()?);
        }
        Ok(())
    }

    fn on_host(&mut self, child: Pid) -> Result<()> {
        let paths = self.opened().map(|one| self.source(one)).collect();
        match &mut self.sources {
            Some(sources) => sources.open(child, paths),
            None => Ok(()),
        }
    }

    fn cleanup(&mut self) -> Result<()> {
        match &mut self.sources {
            Some(sources) => sources.end(),
            None => Ok(()),
        }
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        let mapped = self.mapped.iter().flatten().map(AsFd::as_fd);
        let sources = self.sources.as_ref().and_then(Sources::fd);
        mapped.chain(self.root.fd()).chain(sources).collect()
    }

    fn in_container(&mut self) -> Result<()> {
        // Nodes and directories get the modes that are written here.
        let before = umask(Mode::empty());
        let (kind, reach) = self
            .propagation
            .unwrap_or((MsFlags::MS_SLAVE, Reach::Below));
        // An unbindable root could not be bound on itself.
        let kind = match kind {
            MsFlags::MS_UNBINDABLE => MsFlags::MS_PRIVATE,
            kind => kind,
        };
        match reach {
            Reach::Below => change("/", kind)?,
            Reach::Alone => change_one(Path::new("/"), kind)?,
        }
        // pivot_root(2) refuses a shared parent, and the host must not see the
        // mounts appear.
        let parent = mount_point_of(&self.path)?;
        change_one(&parent, MsFlags::MS_PRIVATE)?;
        let root = Root::bind(&self.path)?;
        for n in 0..self.mounts.len() {
            let mapped = self.mapped[n].take();
            let source = match &mut self.sources {
                Some(sources) if is_opened(&self.mounts[n]) => sources.next(),
                _ => None,
            };
            let one = &self.mounts[n];
            self.mount(root.fd(), one, mapped, source)
                .with_context(|| named(one))?;
        }
        if let Some(sources) = &mut self.sources {
            sources.close();
        }
        if self.has_own_dev() {
            self.fill_dev(root.fd())?;
        }
        umask(before);
        match self.root.0.root.set(root) {
            Ok(()) => Ok(()),
            Err(_) => bail!("the root is made twice"),
        }
    }
}

/// Whether it gets files and mount points before [`Pivot`] makes it read-only.
pub(crate) fn is_filled(one: &CheckedMount) -> bool {
    one.raw.kind == "tmpfs" && one.options.attributes.set & MOUNT_ATTR_RDONLY != 0
}

/// Whether its source is opened for it on the host, if the child is root of a user
/// namespace.
fn is_opened(one: &CheckedMount) -> bool {
    one.bind().is_some() && one.uid_map.is_empty() && !one.options.remount
}

fn named(one: &CheckedMount) -> String {
    format!("mount {}", one.target)
}

impl Rootfs {
    /// Whether /dev is the container's. A bind mount there is the host's.
    fn has_own_dev(&self) -> bool {
        !self
            .mounts
            .iter()
            .any(|one| one.bind().is_some() && one.target.to_string() == "/dev")
    }

    fn source(&self, one: &CheckedMount) -> PathBuf {
        self.bundle.join(&one.raw.source)
    }

    /// The mounts whose sources are opened on the host, in their order.
    fn opened(&self) -> impl Iterator<Item = &CheckedMount> {
        self.mounts.iter().filter(|one| is_opened(one))
    }

    /// A copy of the mount of a source, which is open already if it is `file`.
    fn copy(&self, one: &CheckedMount, reach: Reach, file: Option<OwnedFd>) -> Result<Detached> {
        let source = self.source(one);
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let file = match file {
            Some(file) => file,
            None => open(&source, flags, Mode::empty())
                .with_context(|| format!("open the source {source:?}"))?,
        };
        match reach {
            Reach::Below => Detached::copy_of_fd(file.as_fd(), &source),
            Reach::Alone => Detached::copy_of_fd_alone(file.as_fd(), &source),
        }
    }

    /// A bind mount whose files have other owners inside.
    fn mapped(&self, one: &CheckedMount) -> Result<Detached> {
        let reach = one.bind().context("only a bind mount can be ID-mapped")?;
        let maps =
            [(Ids::User, &one.uid_map), (Ids::Group, &one.gid_map)].map(|(ids, maps)| Mapping {
                ids,
                maps: maps.clone(),
                writer: Writer::Privileged,
            });
        let users = user::held::with_maps(&maps)?;
        let copy = self.copy(one, reach, None)?;
        let below = one.options.id_map == Some(Reach::Below);
        match below {
            true => sys::map_ids_below(copy.as_fd(), users.as_fd()),
            false => sys::map_ids(copy.as_fd(), users.as_fd()),
        }
        .context("mount_setattr(MOUNT_ATTR_IDMAP)")?;
        Ok(copy)
    }

    fn mount(
        &self,
        root: BorrowedFd<'_>,
        one: &CheckedMount,
        mapped: Option<Detached>,
        source: Option<OwnedFd>,
    ) -> Result<()> {
        if one.options.remount {
            let target = one.target.open(root)?.context("nothing is mounted there")?;
            set(target.as_fd(), false, one.options.attributes)?;
            return set(target.as_fd(), true, one.options.below);
        }
        let place = match (one.bind(), one.raw.kind.as_str()) {
            (Some(reach), _) => {
                let copy = match mapped {
                    Some(mapped) => mapped,
                    None => self.copy(one, reach, source)?,
                };
                let kind = FileKind::of(copy.as_fd())?;
                let target = one.target.open_or_make(root, kind)?;
                self.may_cover(one, target.as_fd())?;
                set(copy.as_fd(), false, one.options.attributes)?;
                set(copy.as_fd(), true, one.options.below)?;
                copy.attach(target.as_fd())?
            }
            (None, "cgroup" | "cgroup2") => {
                let target = one.target.open_or_make(root, FileKind::Directory)?;
                let rights = match one.options.attributes.set & MOUNT_ATTR_RDONLY {
                    0 => Rights::Writable,
                    _ => Rights::ReadOnly,
                };
                let view = self.view.as_ref().context("the groups are not known")?;
                return view.show(target.as_fd(), self.own_groups, rights);
            }
            (None, kind) => self.new_file_system(root, one, kind)?,
        };
        for (kind, reach) in &one.options.propagation {
            let below = *reach == Reach::Below;
            sys::change_mount(place.as_fd(), below, 0, 0, kind.bits())
                .with_context(|| format!("mount_setattr({kind:?})"))?;
        }
        Ok(())
    }

    fn new_file_system(
        &self,
        root: BorrowedFd<'_>,
        one: &CheckedMount,
        kind: &str,
    ) -> Result<OwnedFd> {
        let there = one.target.open(root)?;
        let target = one.target.open_or_make(root, FileKind::Directory)?;
        if matches!(kind, "proc" | "sysfs") {
            // The runtime itself relies on them (CVE-2019-19921).
            no_links(root, &one.raw.destination)?;
        } else {
            self.may_cover(one, target.as_fd())?;
        }
        let mut data: Vec<FsOption<'_>> = Vec::new();
        let mode;
        let has_mode = one.options.data.iter().any(|(name, _)| name == "mode");
        if kind == "tmpfs"
            && !has_mode
            && let Some(there) = &there
        {
            // Such as 1777 of /tmp.
            mode = format!("{:o}", fstat(there).context("fstat")?.st_mode & 0o7777);
            data.push(("mode", Some(&mode)));
        }
        for (name, value) in &one.options.data {
            data.push((name, value.as_deref()));
        }
        // The kernel itself labels the files of these.
        let own = matches!(kind, "proc" | "sysfs" | "mqueue");
        if !self.label.is_empty() && !own && one.options.data.iter().all(|(n, _)| n != "context") {
            data.push(("context", Some(&self.label)));
        }
        let source = one.raw.source.to_str().context("the source is not UTF-8")?;
        let source = match source {
            "" => kind,
            source => source,
        };
        let attributes = MountAttrFlags::from_bits_retain(one.options.attributes.set as u32);
        let attributes = match is_filled(one) {
            true => attributes.difference(MountAttrFlags::MOUNT_ATTR_RDONLY),
            false => attributes,
        };
        let new = Detached::from_source(kind, source, &data, attributes)?;
        if one.options.copy_up
            && let Some(there) = &there
        {
            copy_up::copy(there.as_fd(), new.as_fd()).context("tmpcopyup")?;
        }
        new.attach(target.as_fd())
    }

    /// Refuses a target in /proc, but for some files.
    fn may_cover(&self, one: &CheckedMount, target: BorrowedFd<'_>) -> Result<()> {
        let kind = fstatfs(target).context("fstatfs")?.f_type;
        if kind != PROC_SUPER_MAGIC {
            return Ok(());
        }
        let path = one.target.to_string();
        if COVERABLE.contains(&path.as_str()) {
            return Ok(());
        }
        // The proc itself may be covered by another one.
        if path == "/proc" && one.bind().is_some() {
            let source = File::open(self.source(one)).context("open the source")?;
            let source = fstatfs(&source).context("fstatfs")?.f_type;
            if source == PROC_SUPER_MAGIC {
                return Ok(());
            }
        }
        bail!("the target is in /proc, of which only some files may be covered")
    }

    fn fill_dev(&self, root: BorrowedFd<'_>) -> Result<()> {
        for (path, major, minor) in NODES {
            let node = CheckedDevice {
                path: path.into(),
                kind: NodeKind::Char(major, minor),
                mode: 0o666,
                owner: (0, 0),
            };
            if !self.devices.iter().any(|device| device.path == node.path) {
                make_node(root, &node).with_context(|| format!("/{path}"))?;
            }
        }
        for device in &self.devices {
            make_node(root, device).with_context(|| format!("/{}", device.path.display()))?;
        }
        for (to, path) in LINKS {
            link(root, to, path)?;
        }
        if Path::new("/proc/kcore").exists() {
            link(root, "/proc/kcore", "dev/core")?;
        }
        // The multiplexer of the container's own pseudo-terminals.
        let (dev, name) = parent(root, Path::new("dev/ptmx"))?;
        match unlinkat(&dev, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            // Something is mounted there.
            Err(Errno::EBUSY) => return Ok(()),
            Err(errno) => return Err(errno).context("unlinkat(/dev/ptmx)"),
        }
        link(root, "pts/ptmx", "dev/ptmx")
    }
}

/// Sets and clears attributes of a mount.
fn set(mount: BorrowedFd<'_>, below: bool, attributes: Attributes) -> Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    sys::change_mount(mount, below, attributes.set, attributes.clear, 0)
        .with_context(|| format!("mount_setattr({attributes:?}): since Linux 5.12"))
}

/// Sets the propagation type of one mount.
fn change_one(target: &Path, kind: MsFlags) -> Result<()> {
    mount(None::<&str>, target, None::<&str>, kind, None::<&str>)
        .with_context(|| format!("mount({target:?}, {kind:?})"))
}

/// The mount point on which a path is.
fn mount_point_of(path: &Path) -> Result<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    kit::mountinfo::parse(&table)
        .map(|mount| mount.mount_point())
        .filter(|point| path.starts_with(point))
        .max_by_key(|point| point.components().count())
        .with_context(|| format!("no mount shows {path:?}"))
}

/// Refuses a path of the root that leads through a link.
fn no_links(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let path = path.strip_prefix("/").unwrap_or(path);
    match openat2(root, path, how) {
        Ok(_) => Ok(()),
        Err(Errno::ELOOP) => bail!("{path:?} of the root is a symbolic link"),
        Err(errno) => Err(errno).with_context(|| format!("openat2({path:?})")),
    }
}

/// Opens the directory that holds `path` of the root. Makes it if it is missing.
fn parent<'a>(root: BorrowedFd<'_>, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
    let name = path.file_name().context("the path has no name")?;
    let above = path.parent().unwrap_or(Path::new(""));
    Ok((open_or_make(root, above, FileKind::Directory)?, name))
}

fn link(root: BorrowedFd<'_>, to: &str, path: &str) -> Result<()> {
    let (dir, name) = parent(root, Path::new(path))?;
    match symlinkat(to, &dir, name) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("symlinkat(/{path})")),
    }
}

/// Makes a node. In a user namespace, where nobody may, binds the host's.
fn make_node(root: BorrowedFd<'_>, device: &CheckedDevice) -> Result<()> {
    let (dir, name) = parent(root, &device.path)?;
    let mode = Mode::from_bits_truncate(device.mode);
    let made = match device.kind {
        NodeKind::Fifo => mkfifoat(&dir, name, mode),
        NodeKind::Char(major, minor) => {
            let number = makedev(u64::from(major), u64::from(minor));
            mknodat(&dir, name, SFlag::S_IFCHR, mode, number)
        }
        NodeKind::Block(major, minor) => {
            let number = makedev(u64::from(major), u64::from(minor));
            mknodat(&dir, name, SFlag::S_IFBLK, mode, number)
        }
    };
    match made {
        Ok(()) => {}
        Err(Errno::EPERM) => return bind_node(root, device),
        Err(Errno::EEXIST) => {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let there = nix::fcntl::openat(&dir, name, flags, Mode::empty())
                .with_context(|| format!("openat({name:?})"))?;
            ensure!(
                is_node(there.as_fd(), device.kind)?,
                "something else has this name"
            );
            return Ok(());
        }
        Err(errno) => return Err(errno).with_context(|| format!("mknodat({name:?})")),
    }
    let (uid, gid) = device.owner;
    if (uid, gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        fchownat(
            &dir,
            name,
            Some(uid),
            Some(gid),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .with_context(|| format!("fchownat({name:?})"))?;
    }
    Ok(())
}

fn is_node(file: BorrowedFd<'_>, kind: NodeKind) -> Result<bool> {
    let stat = fstat(file).context("fstat")?;
    let format = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let numbers = (major(stat.st_rdev), minor(stat.st_rdev));
    let is = |a: u32, b: u32| numbers == (u64::from(a), u64::from(b));
    Ok(match kind {
        NodeKind::Char(a, b) => format == SFlag::S_IFCHR && is(a, b),
        NodeKind::Block(a, b) => format == SFlag::S_IFBLK && is(a, b),
        NodeKind::Fifo => format == SFlag::S_IFIFO,
    })
}

fn bind_node(root: BorrowedFd<'_>, device: &CheckedDevice) -> Result<()> {
    let hosts = Path::new("/").join(&device.path);
    say!("bind {hosts:?}, because no node can be made");
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let file = nix::fcntl::openat(AT_FDCWD, &hosts, flags, Mode::empty())
        .with_context(|| format!("open({hosts:?}), because a user namespace may make no node"))?;
    ensure!(
        is_node(file.as_fd(), device.kind)?,
        "a user namespace may make no node, and the host's {hosts:?} is another"
    );
    let target = open_or_make(root, &device.path, FileKind::File)?;
    Detached::copy_of_fd_alone(file.as_fd(), &hosts)?
        .attach(target.as_fd())
        .map(drop)
}

/// The isolation that hides paths, makes the root read-only, and makes it `/`.
pub(crate) struct Pivot {
    pub root: SharedRoot,
    pub read_only: bool,
    /// The working directory.
    pub cwd: PathBuf,
    /// The mounts that were filled first.
    pub filled: Vec<CheckedMount>,
    pub masked: Vec<PathBuf>,
    pub readonly_paths: Vec<PathBuf>,
    pub propagation: Option<(MsFlags, Reach)>,
    /// `--no-pivot`: for a root that is the initial RAM file system.
    pub by_move: bool,
}

impl Isolation for Pivot {
    fn name(&self) -> &'static str {
        "root"
    }

    fn in_container(&mut self) -> Result<()> {
        let root = self.root.get()?;
        for one in &self.filled {
            let place = one.target.open(root.fd())?;
            let place = place.with_context(|| format!("{} is gone", one.target))?;
            set(place.as_fd(), false, one.options.attributes).with_context(|| named(one))?;
        }
        for path in &self.readonly_paths {
            masks::make_read_only(root.fd(), path)?;
        }
        masks::mask_all(root.fd(), &self.masked)?;
        if self.read_only {
            // `Workdir` could not make it any more.
            open_or_make(root.fd(), &self.cwd, FileKind::Directory)
                .with_context(|| format!("process.cwd {:?}", self.cwd))?;
            root.make_read_only()?;
        }
        match self.by_move {
            true => root.move_to_top()?,
            false => root.pivot()?,
        }
        self.root.0.left.set(true);
        match self.propagation {
            Some((kind, Reach::Below)) => change("/", kind),
            Some((kind, Reach::Alone)) => change_one(Path::new("/"), kind),
            None => Ok(()),
        }
    }
}
