//! The choice of the maps: from the options to the IDs that are mapped and the
//! writer of each map.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::UserSettings;
use crate::caller::Caller;
use crate::ids::Ids;
use crate::map::{self, IdMap};
use crate::subid;

/// A map and its writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Users or groups.
    pub ids: Ids,
    /// The ranges; never empty.
    pub maps: Vec<IdMap>,
    /// Their writer.
    pub writer: Writer,
}

/// The writer of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The launcher, which has the capability to write any map.
    Privileged,
    /// The launcher, whose own ID is the only one mapped. The kernel allows
    /// everybody such a map.
    Own,
    /// This set-user-ID program, which checks the ranges in `/etc/subuid` or
    /// `/etc/subgid`.
    Helper(PathBuf),
}

/// Chooses the maps that `args` ask for, of users and of groups.
pub fn mappings(args: &UserSettings, caller: &Caller) -> Result<Vec<Mapping>> {
    let mut mappings = Vec::new();
    for ids in [Ids::User, Ids::Group] {
        mappings.extend(mapping(args, ids, caller)?);
    }
    Ok(mappings)
}

/// Chooses the map of one kind that `args` ask for; `None` with `--map-none`.
///
/// # Errors
/// A map that the kernel would refuse ([`map::check`]), no range for
/// `--map-auto` in `/etc/subuid` or `/etc/subgid`, or no newuidmap(1) or
/// newgidmap(1) where it is needed.
pub fn mapping(args: &UserSettings, ids: Ids, caller: &Caller) -> Result<Option<Mapping>> {
    let maps = if args.map_none {
        return Ok(None);
    } else if args.map_auto {
        auto(ids, caller)?
    } else {
        given(args, ids).unwrap_or_else(|| vec![root(ids, caller)])
    };
    let own = format!("/proc/self/{}", ids.file());
    let own = fs::read_to_string(&own).with_context(|| format!("read {own}"))?;
    map::check(ids, &maps, &map::parse_file(&own)?)?;
    let writer = if caller.may_map(ids) {
        Writer::Privileged
    } else if is_own(&maps, caller.id(ids)) {
        Writer::Own
    } else {
        Writer::Helper(helper(ids)?)
    };
    Ok(Some(Mapping { ids, maps, writer }))
}

/// `--uid-map` and `--gid-map`. If only one is given, it serves both kinds.
fn given(args: &UserSettings, ids: Ids) -> Option<Vec<IdMap>> {
    let (own, other) = match ids {
        Ids::User => (&args.uid_map, &args.gid_map),
        Ids::Group => (&args.gid_map, &args.uid_map),
    };
    [own, other]
        .into_iter()
        .find(|maps| !maps.is_empty())
        .cloned()
}

/// `--map-root`: root inside is the caller outside.
fn root(ids: Ids, caller: &Caller) -> IdMap {
    IdMap {
        inside: 0,
        outside: caller.id(ids),
        count: 1,
    }
}

/// `--map-auto`: root inside is the caller outside, and the IDs from 1 on are
/// the caller's ranges. For root the ranges begin at 0: otherwise root inside
/// would be root outside too.
fn auto(ids: Ids, caller: &Caller) -> Result<Vec<IdMap>> {
    let name = caller.name()?;
    let ranges = subid::ranges(ids, name.as_deref(), caller.uid)?;
    ensure!(
        !ranges.is_empty(),
        "--map-auto: {} has no range for {}: {}",
        ids.subordinate(),
        who(name.as_deref(), caller.uid),
        grant(ids, name.as_deref())
    );
    Ok(if caller.uid == 0 {
        subid::stacked(&ranges, 0)
    } else {
        let mut maps = vec![root(ids, caller)];
        maps.extend(subid::stacked(&ranges, 1));
        maps
    })
}

/// The name of a user, or else its UID, for messages.
pub(crate) fn who(name: Option<&str>, uid: u32) -> String {
    name.map_or_else(|| format!("UID {uid}"), str::to_owned)
}

/// The command with which root gives a range to a user: usermod(8), which
/// requires a name.
pub(crate) fn grant(ids: Ids, name: Option<&str>) -> String {
    let option = match ids {
        Ids::User => "--add-subuids",
        Ids::Group => "--add-subgids",
    };
    format!(
        "root can give one with: usermod {option} 100000-165535 {}",
        name.unwrap_or("NAME")
    )
}

/// Whether this is the map that everybody may write: one ID, the caller's.
fn is_own(maps: &[IdMap], id: u32) -> bool {
    matches!(maps, [map] if map.outside == id && map.count == 1)
}

/// Searches `PATH` for newuidmap(1) or newgidmap(1), in absolute directories
/// only, because the launcher trusts the program.
fn helper(ids: Ids) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| process::exec::DEFAULT_PATH.into());
    let found = std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(ids.helper()))
        .find(|file| is_executable(file));
    match found {
        Some(file) => Ok(file),
        None => bail!(
            "{} is not in PATH, and without it you may map your own {} only: install the \
             package uidmap (shadow-utils on Fedora), or use --map-root",
            ids.helper(),
            ids.noun()
        ),
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::CapabilitySet;

    const ALICE: Caller = Caller {
        uid: 1000,
        gid: 100,
        capabilities: CapabilitySet::empty(),
    };

    fn maps(texts: &[&str]) -> Vec<IdMap> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn without_options_root_inside_is_the_caller() {
        let args = UserSettings::default();
        assert_eq!(given(&args, Ids::User), None);
        assert_eq!(root(Ids::User, &ALICE).to_string(), "0 1000 1");
        assert_eq!(root(Ids::Group, &ALICE).to_string(), "0 100 1");
    }

    #[test]
    fn one_given_map_is_for_both_kinds() {
        let args = UserSettings {
            uid_map: maps(&["0:1:2"]),
            ..UserSettings::default()
        };
        assert_eq!(given(&args, Ids::User), given(&args, Ids::Group));
        let args = UserSettings {
            gid_map: maps(&["0:3:4"]),
            ..args
        };
        assert_eq!(given(&args, Ids::Group), Some(maps(&["0:3:4"])));
    }

    #[test]
    fn everybody_may_map_one_id_their_own() {
        assert!(is_own(&maps(&["0:1000:1"]), 1000));
        assert!(is_own(&maps(&["7:1000:1"]), 1000));
        for others in [
            &["0:0:1"][..],
            &["0:1000:2"],
            &["0:1000:1", "1:1001:1"],
            &[],
        ] {
            assert!(!is_own(&maps(others), 1000), "{others:?}");
        }
    }
}
