//! `--cap-add` and `--cap-drop`: the capabilities that a container may have
//! (capabilities(7)), by Docker's rules.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

/// What a container has by default: Docker's choice (moby
/// `daemon/pkg/oci/caps/defaults.go`), enough for root among the container's
/// own files and processes.
// ANCHOR: kept
pub const KEPT: CapabilitySet = CapabilitySet::AUDIT_WRITE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);
// ANCHOR_END: kept

/// A value of `--cap-add` or `--cap-drop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapabilityArg {
    /// All of them.
    All,
    /// One.
    One(CapabilitySet),
}

impl FromStr for CapabilityArg {
    type Err = Error;

    /// Reads `ALL`, `SYS_TIME` or `cap_sys_time`.
    fn from_str(text: &str) -> Result<Self> {
        let name = text.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        if name == "ALL" {
            return Ok(CapabilityArg::All);
        }
        let known = CapabilitySet::from_name(name).filter(|one| one.iter().count() == 1);
        known.map(CapabilityArg::One).with_context(|| {
            format!("{text:?} is not a capability: see capabilities(7), or write ALL")
        })
    }
}

impl fmt::Display for CapabilityArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CapabilityArg::All => f.write_str("ALL"),
            CapabilityArg::One(one) => f.write_str(&names(*one)),
        }
    }
}

kit::serde_as_text!(CapabilityArg);

/// The names of a set: `CAP_CHOWN, CAP_KILL`.
pub fn names(set: CapabilitySet) -> String {
    let names: Vec<String> = (set & known())
        .iter_names()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

/// The capabilities that this program knows.
fn known() -> CapabilitySet {
    CapabilitySet::from_iter(
        CapabilitySet::from_bits_retain(u64::MAX)
            .iter_names()
            .map(|(_, one)| one),
    )
}

/// The capabilities that `args` name one by one.
pub(crate) fn named(args: &[CapabilityArg]) -> CapabilitySet {
    args.iter()
        .fold(CapabilitySet::empty(), |set, arg| match arg {
            CapabilityArg::One(one) => set | *one,
            CapabilityArg::All => set,
        })
}

// ANCHOR: wanted
/// The capabilities that a container may have, of `all` that there are.
/// Docker's rules: `--cap-add ALL` is all but the dropped ones, `--cap-drop
/// ALL` only the added ones; otherwise the dropped ones go first.
pub fn wanted(add: &[CapabilityArg], drop: &[CapabilityArg], all: CapabilitySet) -> CapabilitySet {
    let (added, dropped) = (named(add), named(drop));
    if add.contains(&CapabilityArg::All) {
        all - dropped
    } else if drop.contains(&CapabilityArg::All) {
        added
    } else {
        (KEPT - dropped) | added
    }
}
// ANCHOR_END: wanted

/// Drops all capabilities but `kept` from the bounding set, also those that are
/// newer than this program: up to the first number that the kernel does not
/// know (`EINVAL`).
pub fn bound(kept: CapabilitySet) -> Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => {
                return Err(errno)
                    .with_context(|| format!("prctl(PR_CAPBSET_DROP, {capability:?})"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use user::caps::of_kernel;

    #[test]
    fn dockers_rules_for_adding_and_dropping() {
        let all = of_kernel().unwrap();
        let args = |text: &str| -> Vec<CapabilityArg> {
            text.split_whitespace()
                .map(|one| one.parse().unwrap())
                .collect()
        };
        let wanted = |add, drop| wanted(&args(add), &args(drop), all);
        let (time, chown) = (CapabilitySet::SYS_TIME, CapabilitySet::CHOWN);
        assert_eq!(wanted("", ""), KEPT);
        assert_eq!(wanted("sys_time", "CAP_CHOWN"), (KEPT - chown) | time);
        assert_eq!(wanted("chown", "chown"), KEPT);
        assert_eq!(wanted("all", "CHOWN"), all - chown);
        assert_eq!(wanted("cap_sys_time", "ALL"), time);
        assert_eq!(wanted("ALL", "ALL"), all);
        for text in ["", "CAP_", "CAP_NOTHING", "CHOWN,KILL", "SYS TIME"] {
            assert!(text.parse::<CapabilityArg>().is_err(), "{text}");
        }
        assert_eq!(
            args("sys_time")[0]
                .to_string()
                .parse::<CapabilityArg>()
                .unwrap(),
            args("SYS_TIME")[0]
        );
    }
}
