//! The rules for devices in systemd's words: whenever it applies the properties
//! of a scope again (`systemctl daemon-reload`), it replaces what the group
//! says by what it knows.

use std::fs;

use anyhow::{Context, Result};
use cgroups::named::{DeviceKind, DeviceRule, Verdict};
use kit::warn;

use crate::systemd::bus::{Properties, Value};

/// The properties that mean the same as `verdicts`, a list in which the last
/// rule that applies decides, after "nothing is allowed". None if systemd has no
/// words for it: its own default, `auto`, allows everything, and leaves the rules
/// of the group in force until it applies them.
pub(crate) fn properties(verdicts: &[Verdict]) -> Result<Properties> {
    let known = fs::read_to_string("/proc/devices").context("read /proc/devices")?;
    Ok(match allowed(verdicts, &known) {
        Some(pairs) => vec![
            ("DevicePolicy", Value::Text("strict".to_owned())),
            ("DeviceAllow", Value::Pairs(pairs)),
        ],
        None => {
            warn!(
                "systemd cannot express the rules for devices, and a reload of its own replaces them"
            );
            Vec::new()
        }
    })
}

/// The entries of `DeviceAllow` (systemd.resource-control(5)), each a device and
/// the operations on it.
fn allowed(verdicts: &[Verdict], known: &str) -> Option<Vec<(String, String)>> {
    let mut rules: Vec<DeviceRule> = Vec::new();
    for verdict in verdicts {
        let rule = verdict.rule;
        if verdict.allow {
            rules.push(rule);
            continue;
        }
        // It has no denials: only one that takes back whole rules can be said.
        let touches = |other: &DeviceRule| {
            let same = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
            other.kind == rule.kind
                && same(other.major, rule.major)
                && same(other.minor, rule.minor)
        };
        let covers = |other: &DeviceRule| {
            let within = |mine: Option<u32>, its: Option<u32>| mine.is_none() || mine == its;
            let (mine, its) = (rule.access, other.access);
            within(rule.major, other.major)
                && within(rule.minor, other.minor)
                && (mine.read || !its.read)
                && (mine.write || !its.write)
                && (mine.mknod || !its.mknod)
        };
        rules.retain(|other| !(touches(other) && covers(other)));
        if rules.iter().any(touches) {
            return None;
        }
    }
    rules
        .iter()
        .map(|rule| Some((word(rule, known)?, rule.access.to_string())))
        .collect()
}

/// The word for the devices of a rule: a node by its numbers, or `char-NAME` for
/// all of a driver, with the name that /proc/devices has.
fn word(rule: &DeviceRule, known: &str) -> Option<String> {
    let (kind, title) = match rule.kind {
        DeviceKind::Char => ("char", "Character devices:"),
        DeviceKind::Block => ("block", "Block devices:"),
    };
    match (rule.major, rule.minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (None, None) => Some(format!("{kind}-*")),
        (None, Some(_)) => None,
        (Some(major), None) => {
            let lines = known.lines().skip_while(|line| *line != title).skip(1);
            let mut drivers = lines
                .take_while(|line| !line.is_empty())
                .filter_map(|line| line.trim().split_once(' '))
                .filter(|(number, _)| number.parse() == Ok(major));
            let (_, name) = drivers.next()?;
            // One name would mean the devices of both.
            let is_only = drivers.next().is_none();
            is_only.then(|| format!("{kind}-{name}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cgroups::named::DeviceAccess;

    const KNOWN: &str = "Character devices:\n  1 mem\n  4 tty\n  4 ttyS\n136 pts\n\n\
                         Block devices:\n  7 loop\n";

    fn verdict(allow: bool, kind: DeviceKind, numbers: [Option<u32>; 2], access: &str) -> Verdict {
        let access: DeviceAccess = access.parse().unwrap();
        let rule = DeviceRule {
            kind,
            major: numbers[0],
            minor: numbers[1],
            access,
        };
        Verdict { rule, allow }
    }

    #[test]
    fn rules_have_words() {
        use DeviceKind::{Block, Char};
        let rules = [
            verdict(true, Char, [None, None], "m"),
            verdict(true, Char, [Some(1), Some(3)], "rwm"),
            verdict(true, Char, [Some(136), None], "rw"),
            verdict(true, Block, [Some(7), None], "r"),
        ];
        let words = allowed(&rules, KNOWN).unwrap();
        let words: Vec<String> = words.iter().map(|(a, b)| format!("{a} {b}")).collect();
        let expected = [
            "char-* m",
            "/dev/char/1:3 rwm",
            "char-pts rw",
            "block-loop r",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn what_has_no_words_is_not_said() {
        use DeviceKind::Char;
        let all = verdict(true, Char, [None, None], "rwm");
        let null = verdict(false, Char, [Some(1), Some(3)], "w");
        assert_eq!(allowed(&[all, null], KNOWN), None);
        assert_eq!(allowed(&[null], KNOWN), Some(Vec::new()));
        let none = verdict(false, Char, [None, None], "rwm");
        assert_eq!(allowed(&[all, none], KNOWN), Some(Vec::new()));
        for odd in [[None, Some(1)], [Some(4), None], [Some(99), None]] {
            assert_eq!(allowed(&[verdict(true, Char, odd, "r")], KNOWN), None);
        }
    }
}
