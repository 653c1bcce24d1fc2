//! Other limits for a group in which processes run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::say;

use crate::cli::args::CgroupSettings;
use crate::group::file;
use crate::group::{Group, Member};
use crate::host::hierarchy::Version;
use crate::host::layout::Layout;
use crate::limits::limit::{Limit, Value, value};
use crate::limits::{apply, limits};

/// Changes the limits of a group from those of `before` to those of `after`.
///
/// # Errors
/// Names the limit that cannot be set. The others are then as they were.
pub(crate) fn change(group: &Group, before: &CgroupSettings, after: &CgroupSettings) -> Result<()> {
    let old = all(before)?;
    // A limit that is already set is not written again: somebody may have
    // tightened it.
    let mut new: Vec<Limit> = all(after)?;
    new.retain(|limit| {
        let mut same = old.iter();
        !same.any(|old| (&old.v1, &old.v2) == (&limit.v1, &limit.v2))
    });
    let mut undo = Undo::default();
    let changed = apply_all(group, &new, &mut undo);
    let Err(error) = changed else { return Ok(()) };
    match undo.all() {
        Ok(()) => Err(error),
        Err(more) => Err(error.context(format!("and not all limits are as before: {more:#}"))),
    }
}

/// The limits that options ask for, and the absence of one that can be removed.
fn all(settings: &CgroupSettings) -> Result<Vec<Limit>> {
    let mut all = limits(settings)?;
    if settings.pids_limit.is_some_and(|most| most <= 0) {
        let pids = vec![value("pids", "pids.max", "max")];
        all.push(Limit {
            asked: "--pids-limit -1".to_owned(),
            implied: false,
            v1: pids.clone(),
            v2: pids,
        });
    }
    Ok(all)
}

/// Whether this kernel limits swap. On v2 that shows in a group with the memory
/// controller only, and there may be none yet.
pub(crate) fn limits_swap() -> Result<bool> {
    let layout = Layout::detect()?;
    let Some(memory) = layout.find("memory") else {
        return Ok(false);
    };
    if memory.version == Version::V1 {
        return Ok(memory.own.join("memory.memsw.limit_in_bytes").exists());
    }
    let below = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let mut groups = vec![memory.own.clone()];
    groups.extend(below(&memory.own));
    groups.extend(below(&memory.mount_point));
    let group = groups.iter().find(|dir| dir.join("memory.max").exists());
    Ok(group.is_none_or(|dir| dir.join("memory.swap.max").exists()))
}

/// What was in files before they were changed.
#[derive(Default)]
struct Undo(Vec<(PathBuf, String)>);

impl Undo {
    fn note(&mut self, member: &Member, value: &Value) -> Result<()> {
        for (name, _) in &value.choices {
            let path = member.dir.join(name);
            if let Some(text) = file::read_if_there(&path)? {
                self.0.push((path, text));
                return Ok(());
            }
        }
        Ok(())
    }

    fn all(self) -> Result<()> {
        let mut failed = Ok(());
        for (path, text) in self.0.into_iter().rev() {
            say!("write {text:?} to {} again", path.display());
            // An empty cpuset is written as a newline.
            let text = match text.is_empty() {
                true => "\n",
                false => &*text,
            };
            failed = failed.and(file::write(&path, text));
        }
        failed
    }
}

fn apply_all(group: &Group, new: &[Limit], undo: &mut Undo) -> Result<()> {
    let mut todo: Vec<&Limit> = new.iter().collect();
    // On v1 the limit of memory may not exceed that of memory and swap, whichever
    // is written first: the one that goes up. So what is refused is tried again
    // after the others.
    while !todo.is_empty() {
        let mut refused = Vec::new();
        let mut why = None;
        let count = todo.len();
        for limit in todo {
            if let Err(error) = set(group, limit, undo) {
                why = Some(error);
                refused.push(limit);
            }
        }
        match why {
            Some(error) if refused.len() == count => return Err(error),
            _ => todo = refused,
        }
    }
    Ok(())
}

fn set(group: &Group, limit: &Limit, undo: &mut Undo) -> Result<()> {
    let on_v1 = limit
        .v1
        .iter()
        .all(|value| has(group, value.controller, Version::V1));
    let version = match on_v1 {
        true => Version::V1,
        false => Version::V2,
    };
    let values = match version {
        Version::V1 => &limit.v1,
        Version::V2 => &limit.v2,
    };
    for value in values {
        if version == Version::V2 {
            enable(group, value.controller).with_context(|| limit.asked.clone())?;
        }
        let Some(member) = member(group, value.controller) else {
            bail!(
                "{}: the container has no group with the {} controller",
                limit.asked,
                value.controller
            );
        };
        undo.note(member, value)?;
    }
    let v2 = group.v2().map(|member| member.dir.clone());
    match (version, v2) {
        // Its controllers may have been switched on only now.
        (Version::V2, Some(dir)) => {
            let mut group = Group {
                name: group.name.clone(),
                members: Vec::new(),
            };
            group.members.push(Member {
                version,
                controllers: values.iter().map(|v| v.controller.to_owned()).collect(),
                dir,
                lock: None,
            });
            apply::limit(&group, limit, version)
        }
        _ => apply::limit(group, limit, version),
    }
}

fn has(group: &Group, controller: &str, version: Version) -> bool {
    group
        .controller(controller)
        .is_some_and(|member| member.version == version)
}

/// The group in the hierarchy of a controller; of v2, whether or not it is
/// switched on.
fn member<'a>(group: &'a Group, controller: &str) -> Option<&'a Member> {
    group.controller(controller).or_else(|| group.v2())
}

/// Switches a controller on for a group on v2, in the one above: a container
/// without a limit has started without it.
fn enable(group: &Group, controller: &str) -> Result<()> {
    let Some(member) = group.v2() else {
        return Ok(());
    };
    let there = file::read(&member.dir.join("cgroup.controllers"))?;
    if there.split_whitespace().any(|one| one == controller) {
        return Ok(());
    }
    let above = member
        .dir
        .parent()
        .context("the root group has no limits")?;
    file::write(
        &above.join("cgroup.subtree_control"),
        &format!("+{controller}"),
    )
    .with_context(|| format!("switch the {controller} controller on"))
}
