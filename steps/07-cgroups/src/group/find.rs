//! Searches for groups: by a process, by name, and all of them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::group::kill_legacy;
use crate::group::leaf;
use crate::group::parent::{NAME, PREFIX, Parent, directories, launcher};
use crate::group::v1::{self, may_make_groups};
use crate::group::{self, Group, Member};
use crate::host::hierarchy::{Hierarchy, Version};
use crate::host::layout::{Layout, controllers};
use crate::limits::protection;

/// Finds the group `what`: the PID of a process in it, its name as
/// `step-07 stats` lists it, or its path from the root of the hierarchy.
///
/// # Errors
/// Names the missing process or group.
pub(crate) fn group(what: &str) -> Result<Group> {
    if what.bytes().all(|b| b.is_ascii_digit()) {
        return of_process(what);
    }
    let layout = v1::layout()?;
    let members = |dir: &dyn Fn(&Hierarchy) -> PathBuf| -> Result<Vec<Member>> {
        let dirs = layout.hierarchies.iter().map(|h| (h, dir(h)));
        dirs.filter(|(_, dir)| dir.is_dir())
            .map(|(hierarchy, dir)| member(hierarchy, dir))
            .collect()
    };
    let name = what.trim_start_matches('/');
    let mut found = members(&|h| h.mount_point.join(name))?;
    if !name.contains('/') && name.starts_with(PREFIX) {
        let all = containers()?;
        if let Some(group) = all.into_iter().find(|group| group.name == name) {
            found = group.members;
        }
    }
    if name.is_empty() || found.is_empty() {
        bail!("there is no group {what}: step-07 stats lists the groups of containers");
    }
    Ok(Group {
        name: name.to_owned(),
        members: found,
    })
}

/// Finds the group of a container's process.
fn of_process(pid: &str) -> Result<Group> {
    if !Path::new("/proc").join(pid).exists() {
        bail!("there is no process {pid}");
    }
    let layout = v1::ordered(Layout::of_process(pid)?);
    let mut members = Vec::new();
    for hierarchy in &layout.hierarchies {
        // In a root group nothing limits or counts the process.
        if hierarchy.own != hierarchy.mount_point {
            members.push(member(hierarchy, hierarchy.own.clone())?);
        }
    }
    let named = members.iter().find(|member| is_container(&member.dir));
    let name = match named.or(members.first()) {
        Some(member) => file_name(&member.dir),
        None => bail!("process {pid} is only in root groups"),
    };
    // A hierarchy in which it was not placed would show another group's use.
    if named.is_some() {
        members.retain(|member| file_name(&member.dir) == name);
    }
    Ok(Group { name, members })
}

fn member(hierarchy: &Hierarchy, dir: PathBuf) -> Result<Member> {
    Ok(Member {
        version: hierarchy.version,
        controllers: match hierarchy.version {
            Version::V1 => hierarchy.controllers.clone(),
            Version::V2 => controllers(&dir)?,
        },
        dir,
        lock: None,
    })
}

/// Whether this is the group of a container, which may be paused.
pub(crate) fn is_container(dir: &Path) -> bool {
    launcher(dir).is_some()
}

fn file_name(dir: &Path) -> String {
    dir.file_name()
        .map_or(String::new(), |name| name.to_string_lossy().into_owned())
}

/// Finds the groups of all containers, in any parent, sorted by name.
pub(crate) fn containers() -> Result<Vec<Group>> {
    let mut all: Vec<Group> = Vec::new();
    for hierarchy in &v1::layout()?.hierarchies {
        for dir in walk(&hierarchy.mount_point)? {
            let name = file_name(&dir);
            if !is_container(&dir) {
                continue;
            }
            let member = member(hierarchy, dir)?;
            match all.iter_mut().find(|group| group.name == name) {
                Some(group) => group.members.push(member),
                None => all.push(Group {
                    name,
                    members: vec![member],
                }),
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// All groups below a group, except those inside containers and those that the
/// caller may not list.
fn walk(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    if accessat(CWD, dir, Access::READ_OK, AtFlags::EACCESS).is_err() {
        return Ok(all);
    }
    for below in directories(dir)? {
        if !is_container(&below) {
            all.extend(walk(&below)?);
        }
        all.push(below);
    }
    Ok(all)
}

/// Removes what killed launchers left behind: their groups in all hierarchies,
/// with the processes in them, and then their empty parents. Returns the
/// removed directories.
///
/// # Errors
/// The first group that could not be removed; the others are tried all the
/// same.
pub fn sweep() -> Result<Vec<PathBuf>> {
    let mut swept = Vec::new();
    let mut failed = Ok(());
    // The first hierarchy comes last, because a launcher searches there.
    for hierarchy in v1::layout()?.hierarchies.iter().rev() {
        let all = walk(&hierarchy.mount_point)?;
        let leaves = all.iter().filter(|dir| leaf::is_leaf(dir));
        swept.extend(leaves.filter(|dir| remove_leaf(dir)).cloned());
        let parents = all
            .into_iter()
            .filter(|dir| is_container(dir) || file_name(dir) == NAME)
            .map(|dir| match is_container(&dir) {
                true => dir.parent().map_or(dir.clone(), Path::to_owned),
                false => dir,
            });
        failed = failed.and(sweep_each(parents, hierarchy.version, &mut swept));
    }
    failed.map(|()| swept)
}

/// Thaws the group of this name, if the freezer is a controller of v1.
pub(crate) fn thaw(name: &OsStr) -> Result<()> {
    let layout = v1::layout()?;
    let freezer = layout.find("freezer");
    let Some(freezer) = freezer.filter(|hierarchy| hierarchy.version == Version::V1) else {
        return Ok(());
    };
    let all = walk(&freezer.mount_point)?;
    let named = all.iter().filter(|dir| dir.file_name() == Some(name));
    named.map(PathBuf::as_path).try_for_each(kill_legacy::thaw)
}

/// Removes a leaf, and returns whether its launcher was gone. rmdir(2) refuses
/// one that holds a launcher; the lock protects one that a launcher is about to
/// enter.
fn remove_leaf(dir: &Path) -> bool {
    let Some(Ok(_held)) = dir.parent().map(leaf::hold) else {
        return false;
    };
    fs::remove_dir(dir).is_ok()
}

/// Removes the groups with the names of these from all hierarchies.
pub(crate) fn sweep_named(dead: &[PathBuf]) -> Result<()> {
    let mut failed = Ok(());
    for hierarchy in v1::layout()?.hierarchies.iter().rev() {
        let all = walk(&hierarchy.mount_point)?;
        let named = |dir: &&PathBuf| dead.iter().any(|one| one.file_name() == dir.file_name());
        let parents = all.iter().filter(named);
        let parents = parents.filter_map(|dir| Some(dir.parent()?.to_owned()));
        failed = failed.and(sweep_each(parents, hierarchy.version, &mut Vec::new()));
    }
    failed
}

/// Sweeps in each of these parents once, and appends the removed directories.
fn sweep_each(
    parents: impl Iterator<Item = PathBuf>,
    version: Version,
    swept: &mut Vec<PathBuf>,
) -> Result<()> {
    let mut failed = Ok(());
    for dir in parents.collect::<BTreeSet<_>>() {
        match sweep_in(&dir, version) {
            Ok(some) => swept.extend(some),
            Err(error) => failed = failed.and(Err(error)),
        }
    }
    failed
}

fn sweep_in(dir: &Path, version: Version) -> Result<Vec<PathBuf>> {
    // Another user's parent, whose launchers may be alive.
    if !may_make_groups(dir) {
        return Ok(Vec::new());
    }
    let Some(parent) = Parent::existing(dir).with_context(|| dir.display().to_string())? else {
        return Ok(Vec::new());
    };
    let mut swept = group::sweep(&parent, version)?;
    protection::leave(parent, version)?;
    if !dir.exists() {
        swept.push(dir.to_owned());
    }
    Ok(swept)
}
