//! `step-05 caps`: the capability sets of this process and what they permit
//! (capabilities(7)).

use std::ffi::OsString;
use std::fs;

use anyhow::{Context, Result};
use nix::unistd::{geteuid, getpid};
use process::Exit;
use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_ambient_set, capability_is_in_bounding_set,
};

use crate::attempts::{Outcome, attempts};

/// Prints the five capability sets of this process and a table of what it may
/// and may not do. A refused attempt is a result, not an error.
pub fn print() -> Result<Exit> {
    // ANCHOR: exercise_show_capabilities
    let namespace = fs::read_link("/proc/self/ns/user").context("readlink /proc/self/ns/user")?;
    kit::outln!(
        "process {}, UID {}, user namespace {}",
        getpid(),
        geteuid(),
        namespace.display()
    )?;
    let known = known()?;
    for (name, set) in sets(known)? {
        kit::outln!("  {name:<11}  {}", in_words(set, known))?;
    }
    kit::outln!()?;
    kit::outln!("{:<36}  {:<7}  {:<7}  WHY", "ATTEMPT", "RESULT", "ERRNO")?;
    for attempt in attempts() {
        let (result, errno, why) = match &attempt.outcome {
            Outcome::May => ("may", String::new(), attempt.asks_for),
            Outcome::MayNot(errno) => ("may not", format!("{errno:?}"), attempt.asks_for),
            Outcome::Unknown(why) => ("?", String::new(), why.as_str()),
        };
        kit::outln!("{:<36}  {result:<7}  {errno:<7}  {why}", attempt.what)?;
    }
    Ok(Exit::Code(0))
    // ANCHOR_END: exercise_show_capabilities
}

/// The command line of `step-05 caps --here`, for a container. Its program is a
/// copy of this one ([`Container::program`](process::Container::program)), so
/// the root file system need not hold it.
pub fn inside() -> Vec<OsString> {
    ["step-05", "caps", "--here"].map(OsString::from).into()
}

/// The capabilities that both this kernel and this program know.
fn known() -> Result<CapabilitySet> {
    let of_program = CapabilitySet::from_iter(names().map(|(_, capability)| capability));
    Ok(of_kernel()? & of_program)
}

/// The capabilities that this kernel has, those that are newer than this
/// program among them: /proc/sys/kernel/cap_last_cap (capabilities(7)).
pub fn of_kernel() -> Result<CapabilitySet> {
    let last = "/proc/sys/kernel/cap_last_cap";
    let last: u32 = fs::read_to_string(last)
        .with_context(|| format!("read {last}"))?
        .trim()
        .parse()
        .with_context(|| format!("read {last}"))?;
    Ok(CapabilitySet::from_bits_retain(
        u64::MAX >> 63u32.saturating_sub(last),
    ))
}

fn names() -> impl Iterator<Item = (&'static str, CapabilitySet)> {
    CapabilitySet::from_bits_retain(u64::MAX).iter_names()
}

fn sets(known: CapabilitySet) -> Result<[(&'static str, CapabilitySet); 5]> {
    let own = capabilities(None).context("capget")?;
    let mut bounding = CapabilitySet::empty();
    let mut ambient = CapabilitySet::empty();
    for capability in known {
        if capability_is_in_bounding_set(capability).context("prctl(PR_CAPBSET_READ)")? {
            bounding |= capability;
        }
        if capability_is_in_ambient_set(capability).context("prctl(PR_CAP_AMBIENT_IS_SET)")? {
            ambient |= capability;
        }
    }
    Ok([
        ("inheritable", own.inheritable),
        ("permitted", own.permitted),
        ("effective", own.effective),
        ("bounding", bounding),
        ("ambient", ambient),
    ])
}

/// The names of a set, or of the absent capabilities where these are fewer.
fn in_words(set: CapabilitySet, known: CapabilitySet) -> String {
    let list = |set: CapabilitySet| {
        set.iter_names()
            .map(|(name, _)| format!("CAP_{name}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (set, absent) = (set & known, known - set);
    let (present, all) = (set.iter().count(), known.iter().count());
    match all - present {
        0 => format!("all {all}"),
        _ if set.is_empty() => "none".to_owned(),
        missing if missing < present => format!("all {all} but {}", list(absent)),
        _ => list(set),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_told_by_the_shorter_list() {
        let known = known().unwrap();
        let words = |set| in_words(set, known);
        assert_eq!(words(CapabilitySet::empty()), "none");
        assert!(words(known).starts_with("all 4"));
        assert!(words(known - CapabilitySet::SYS_TIME).ends_with(" but CAP_SYS_TIME"));
        assert_eq!(
            words(CapabilitySet::KILL | CapabilitySet::CHOWN),
            "CAP_CHOWN, CAP_KILL"
        );
    }
}
