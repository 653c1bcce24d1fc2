//! What a filter says of a call, and why.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};

use crate::seccomp::abi::{Abi, multiplexed};
use crate::seccomp::action::Action;
use crate::seccomp::cache::Program;
use crate::seccomp::interpret::{self, Verdict};
use crate::seccomp::profile::{Operator, Profile};
use crate::seccomp::resolve::{Condition, Decision, Filter, NotHere, Rule, Situation, not_here};

/// Explains the verdict on a call with these arguments, a line an interface;
/// missing arguments are 0. The verdict is the program's, not the profile's.
///
/// # Errors
/// A name that is no call of any interface of the filter.
pub fn explain(
    profile: &Profile,
    situation: &Situation,
    name: &str,
    arguments: &[u64],
) -> Result<String> {
    let filter = profile.resolve(situation)?;
    let program = Program::new(profile, situation)?;
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let mut lines: Vec<(Vec<Abi>, String)> = Vec::new();
    for interface in &filter.interfaces {
        let abi = interface.abi;
        let Some(number) = abi.number(name) else {
            continue;
        };
        let call = interpret::Call {
            arch: abi.audit_arch(),
            number,
            arguments: all,
            pointer: 0,
        };
        let Verdict { action, steps } = interpret::run(&program.code, &call)?;
        let decision = interface.calls.get(&number);
        let newer = interface.newest.is_some_and(|newest| number > newest);
        let why = why(profile, situation, &filter, name, decision, newer)?;
        let shown = shown(decision, arguments);
        let text = format!("{name}{shown}: {action}, {why}");
        say(&mut lines, abi, text);
        kit::say!("{abi}: {steps} instructions");
    }
    ensure!(!lines.is_empty(), "{name:?} is not a system call");
    let mut text = String::new();
    let several = lines.len() > 1;
    for (abis, line) in &lines {
        let abis: Vec<String> = abis.iter().map(Abi::to_string).collect();
        match several {
            true => writeln!(text, "{line} ({})", abis.join(", ")),
            false => writeln!(text, "{line}"),
        }
        .context("format")?;
    }
    for interface in &filter.interfaces {
        if let Some((_, first)) = multiplexed(interface.abi, name) {
            let by = if first_is_ipc(name) {
                "ipc"
            } else {
                "socketcall"
            };
            writeln!(
                text,
                "a 32-bit program may also reach it as {by}({first}, …): ask for {by} {first}"
            )
            .context("format")?;
        }
    }
    Ok(text)
}

fn first_is_ipc(name: &str) -> bool {
    ["msg", "sem", "shm"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn say(lines: &mut Vec<(Vec<Abi>, String)>, abi: Abi, text: String) {
    match lines.iter_mut().find(|(_, before)| *before == text) {
        Some((abis, _)) => abis.push(abi),
        None => lines.push((vec![abi], text)),
    }
}

fn shown(decision: Option<&Decision>, arguments: &[u64]) -> String {
    match (decision, arguments) {
        (_, []) if !matches!(decision, Some(Decision::ByArguments(_))) => String::new(),
        (_, arguments) => {
            let arguments: Vec<String> = arguments.iter().map(|one| format!("{one:#x}")).collect();
            format!("({})", arguments.join(", "))
        }
    }
}

// ANCHOR: why
/// Why a call meets its fate: the rule, or what keeps a rule from applying.
fn why(
    profile: &Profile,
    situation: &Situation,
    filter: &Filter,
    name: &str,
    decision: Option<&Decision>,
    newer: bool,
) -> Result<String> {
    match decision {
        Some(Decision::Always(_)) => return Ok("by a rule for all its arguments".to_owned()),
        Some(Decision::ByArguments(rules)) => {
            let mut rest: Vec<&Rule> = rules.iter().collect();
            let mut groups = Vec::new();
            while let Some(first) = rest.first().map(|rule| rule.action) {
                let (same, others) = rest.into_iter().partition(|rule| rule.action == first);
                rest = others;
                groups.push(format!("{first} if {}", any(same)));
            }
            groups.push(format!("else {}", filter.default));
            return Ok(format!("by its arguments: {}", groups.join("; ")));
        }
        None if newer && filter.for_newer() != filter.default => {
            return Ok("because it is newer than all that the profile names".to_owned());
        }
        None => {}
    }
    let mut reasons = Vec::new();
    let mut named = false;
    for call in &profile.syscalls {
        if !call.calls().contains(&name) {
            continue;
        }
        named = true;
        let reason = match not_here(call, situation)? {
            Some(NotHere::Lacks(caps)) => format!("{} is missing", caps.join(" or ")),
            Some(NotHere::Has(cap)) => format!("the container has {cap}"),
            Some(NotHere::Machine) => "the rule is for another machine".to_owned(),
            Some(NotHere::OlderThan(version)) => format!("the kernel is older than {version}"),
            Some(NotHere::NotOlderThan(version)) => {
                format!("the kernel is not older than {version}")
            }
            None => continue,
        };
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    Ok(match (reasons.is_empty(), named) {
        (false, _) => format!("because {}", reasons.join(", and ")),
        (true, true) => "as is every call without a rule".to_owned(),
        (true, false) => "because no rule names it".to_owned(),
    })
}
// ANCHOR_END: why

/// How many rules are shown of those with the same action.
const SHOWN: usize = 4;

fn any(rules: Vec<&Rule>) -> String {
    let mut words: Vec<String> = rules
        .iter()
        .take(SHOWN)
        .map(|rule| {
            let conditions: Vec<String> = rule.conditions.iter().map(condition).collect();
            conditions.join(" and ")
        })
        .collect();
    if rules.len() > SHOWN {
        words.push(format!("one of {} more", rules.len() - SHOWN));
    }
    words.join(", or ")
}

fn condition(condition: &Condition) -> String {
    let Condition {
        index,
        op,
        mask,
        value,
    } = condition;
    let sign = match op {
        Operator::NotEqual => "!=",
        Operator::Less => "<",
        Operator::LessOrEqual => "<=",
        Operator::Equal => "==",
        Operator::GreaterOrEqual => ">=",
        Operator::Greater => ">",
        Operator::MaskedEqual => return format!("arg{index} & {mask:#x} == {value:#x}"),
    };
    format!("arg{index} {sign} {value:#x}")
}

/// Reads an argument: a number, or a few names that chapters need.
///
/// # Errors
/// A word that is neither.
pub fn argument(text: &str) -> Result<u64> {
    const NAMES: [(&str, u64); 12] = [
        ("CLONE_NEWNS", libc::CLONE_NEWNS as u64),
        ("CLONE_NEWUTS", libc::CLONE_NEWUTS as u64),
        ("CLONE_NEWIPC", libc::CLONE_NEWIPC as u64),
        ("CLONE_NEWUSER", libc::CLONE_NEWUSER as u64),
        ("CLONE_NEWPID", libc::CLONE_NEWPID as u64),
        ("CLONE_NEWNET", libc::CLONE_NEWNET as u64),
        ("CLONE_NEWCGROUP", libc::CLONE_NEWCGROUP as u64),
        ("SIGCHLD", libc::SIGCHLD as u64),
        ("AF_UNIX", libc::AF_UNIX as u64),
        ("AF_INET", libc::AF_INET as u64),
        ("AF_ALG", libc::AF_ALG as u64),
        ("AF_VSOCK", libc::AF_VSOCK as u64),
    ];
    text.split('|').try_fold(0, |all, word| {
        let known = NAMES.iter().find(|(name, _)| *name == word);
        let hex = word
            .strip_prefix("0x")
            .map(|digits| u64::from_str_radix(digits, 16));
        let value = match (known, hex) {
            (Some((_, value)), _) => *value,
            (None, Some(hex)) => hex.with_context(|| format!("the argument {word:?}"))?,
            (None, None) => word
                .parse()
                .or_else(|_| word.parse::<i64>().map(|negative| negative as u64))
                .with_context(|| format!("the argument {word:?}"))?,
        };
        Ok(all | value)
    })
}

/// How many calls of an interface meet which fate, without arguments.
pub fn summary(filter: &Filter) -> String {
    let mut text = String::new();
    for interface in &filter.interfaces {
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for (number, _) in interface.abi.calls() {
            let fate = match interface.calls.get(&number) {
                Some(Decision::Always(action)) => action.to_string(),
                Some(Decision::ByArguments(_)) => "decided by arguments".to_owned(),
                None if interface.newest.is_some_and(|newest| number > newest) => {
                    filter.for_newer().to_string()
                }
                None => filter.default.to_string(),
            };
            *counts.entry(fate).or_default() += 1;
        }
        let counts: Vec<String> = counts
            .iter()
            .map(|(fate, n)| format!("{n} {fate}"))
            .collect();
        text.push_str(&format!(
            "{:<8} {}\n",
            interface.abi.to_string(),
            counts.join(", ")
        ));
    }
    text.push_str(&format!("{:<8} all {}\n", "others", Action::KillThread));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::profile::KernelVersion;
    use rustix::thread::CapabilitySet;

    #[test]
    fn the_reason_is_given() {
        let profile = Profile::built_in().unwrap();
        let situation = Situation {
            native: Abi::X86_64,
            capabilities: CapabilitySet::CHOWN,
            kernel: KernelVersion(4, 4),
        };
        let says =
            |name: &str, arguments: &[u64]| explain(&profile, &situation, name, arguments).unwrap();
        assert_eq!(
            says("mount", &[]),
            "mount: refused with EPERM, because CAP_SYS_ADMIN is missing\n"
        );
        assert_eq!(
            says("bpf", &[]),
            "bpf: refused with EPERM, because CAP_SYS_ADMIN is missing, and CAP_BPF is missing\n"
        );
        assert_eq!(
            says("read", &[]),
            "read: allowed, by a rule for all its arguments\n"
        );
        assert!(says("ptrace", &[]).contains("the kernel is older than 4.8"));
        assert!(says("userfaultfd", &[]).contains("because no rule names it"));
        let clone = says("clone", &[argument("CLONE_NEWUSER|SIGCHLD").unwrap()]);
        assert!(clone.starts_with("clone(0x10000011): refused with EPERM, by its arguments"));
        assert!(
            clone.contains("allowed if arg0 & 0x7e020000 == 0x0"),
            "{clone}"
        );
        assert!(says("socket", &[38]).contains("socketcall(1, …)"));
        assert!(says("file_setattr", &[]).contains("newer than all"));
        assert!(explain(&profile, &situation, "nothing", &[]).is_err());
        assert_eq!(argument("-1").unwrap(), u64::MAX);
        assert!(argument("CLONE_").is_err());
        let filter = profile.resolve(&situation).unwrap();
        assert!(summary(&filter).contains("decided by arguments"));
    }
}
