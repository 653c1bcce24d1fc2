//! `WORKDIR`: a directory of a layer, without a command.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use engine::cli::places::Places;
use engine::list::layers;
use engine::spec::Spec;
use kit::sys::exit;
use nix::sched::CloneFlags;
use process::{Command, Container, Exit, Isolation};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, mkdirat, open, openat2};
use rustix::io::Errno;
use union::Harvest;
use user::User;
use user::accounts::{parse_accounts, parse_groups};

/// Makes the working directory of a container.
pub fn directory(places: &Places, spec: &Spec, harvest: Harvest) -> Result<Exit> {
    let union = layers(spec, places)?.harvest(Some(harvest));
    let root = union.mount_point().context("no layers")?;
    // Never executed.
    let command = Command {
        argv: vec!["mkdir".into()],
        env: Vec::new(),
    };
    Container::new(command)
        .keep_terminal()
        .with(User::new(spec.user.clone()))
        .with(union)
        .with(Making {
            root,
            path: spec.workdir.clone(),
            user: spec.user.user.as_ref().map(ToString::to_string),
        })
        .run()
}

/// The isolation that makes a directory, and then ends the process.
struct Making {
    root: PathBuf,
    path: PathBuf,
    user: Option<String>,
}

impl Isolation for Making {
    fn name(&self) -> &'static str {
        "workdir"
    }

    /// The layers are mounted in a namespace of its own, and end with it.
    fn namespaces(&self) -> CloneFlags {
        CloneFlags::CLONE_NEWNS
    }

    fn before_exec(&mut self) -> Result<()> {
        nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        let owner = owner(&self.root, self.user.as_deref())?;
        make_directory(&self.root, &self.path, owner)?;
        exit(0)
    }
}

/// The most that is read of an account file: an image may hold anything there.
const LARGEST: u64 = 1 << 20;

/// The user and group that a directory belongs to, looked up in the root's own
/// files; `None` for root.
fn owner(root: &Path, user: Option<&str>) -> Result<Option<(u32, u32)>> {
    let Some(user) = user.filter(|user| !matches!(*user, "" | "0" | "root")) else {
        return Ok(None);
    };
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let accounts = parse_accounts(&read(root, "etc/passwd")?);
    let found = accounts.iter().find(|account| account.name == name);
    let (uid, own) = match (name.parse::<u32>(), found) {
        (Ok(uid), _) => {
            let found = accounts.iter().find(|account| account.uid == uid);
            (uid, found.map_or(0, |account| account.gid))
        }
        (Err(_), Some(account)) => (account.uid, account.gid),
        (Err(_), None) => bail!("unable to find user {name}: no matching entries in passwd file"),
    };
    let gid = match group.filter(|group| !group.is_empty()) {
        None => own,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => {
                let groups = parse_groups(&read(root, "etc/group")?);
                let found = groups.iter().find(|known| known.name == group);
                let no_group = || format!("unable to find group {group}");
                found.with_context(no_group)?.gid
            }
        },
    };
    Ok(Some((uid, gid)))
}

/// A file of the root; empty if there is none.
fn read(root: &Path, path: &str) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let top = open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .with_context(|| format!("open({root:?})"))?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(&top, path, flags, Mode::empty(), inside) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(errno).with_context(|| format!("open(/{path})")),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read /{path}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes a directory of a root, and those above it. Links do not lead out.
fn make_directory(root: &Path, path: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let top = open(root, flags, Mode::empty()).with_context(|| format!("open({root:?})"))?;
    let mut so_far = PathBuf::new();
    let mut directory: OwnedFd = top.try_clone().context("dup")?;
    for name in path.strip_prefix("/").unwrap_or(path) {
        so_far.push(name);
        let mut found = openat2(&top, &so_far, flags, Mode::empty(), inside);
        if matches!(found, Err(Errno::NOENT)) {
            mkdirat(&directory, name, Mode::from_raw_mode(0o755))
                .with_context(|| format!("mkdir(/{})", so_far.display()))?;
            found = openat2(&top, &so_far, flags, Mode::empty(), inside);
            if let (Ok(made), Some((uid, gid))) = (&found, owner) {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                chownat(made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                    .with_context(|| format!("chown(/{})", so_far.display()))?;
            }
        }
        directory = found.with_context(|| format!("open(/{})", so_far.display()))?;
    }
    Ok(())
}
