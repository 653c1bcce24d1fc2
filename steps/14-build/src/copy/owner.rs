//! `--chown`, `USER` and `--chmod`.

use anyhow::{Context, Result, bail, ensure};
use user::accounts::{parse_accounts, parse_groups};

use crate::copy::stage::Stage;

/// The most that is read of passwd(5) and group(5). The image may have put
/// anything in their place.
const LIMIT: u64 = 16 << 20;

/// Reads `USER[:GROUP]`, numbers or names. Names are looked up in the stage's
/// own files. Without a group it is the user's: of a number, the same number.
pub fn owner(stage: &Stage, text: &str) -> Result<(u32, u32)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let read = |path| -> Result<String> {
        let text = stage.read(path, LIMIT);
        Ok(text?.unwrap_or_default())
    };
    let (uid, primary) = match (user, number(user)?) {
        ("", _) => (0, 0),
        (_, Some(uid)) => (uid, uid),
        (name, None) => {
            let accounts = parse_accounts(&read("etc/passwd")?);
            let found = accounts.iter().find(|account| account.name == name);
            let found = found.with_context(|| {
                format!("unable to find user {name}: no matching entries in passwd file")
            })?;
            (found.uid, found.gid)
        }
    };
    let gid = match group {
        None => primary,
        Some("") => 0,
        Some(group) => match number(group)? {
            Some(gid) => gid,
            None => {
                let groups = parse_groups(&read("etc/group")?);
                let found = groups.iter().find(|known| known.name == group);
                let found = found.with_context(|| {
                    format!("unable to find group {group}: no matching entries in group file")
                })?;
                found.gid
            }
        },
    };
    for id in [uid, gid] {
        // chown(2) takes it for “no change”.
        ensure!(id != u32::MAX, "{id} is no ID");
    }
    Ok((uid, gid))
}

fn number(text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let parsed = text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    let Some(id) = parsed else {
        bail!("{text} is no ID");
    };
    Ok(Some(id))
}

/// A change of permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// These and no others.
    Octal(u32),
    /// Clauses of chmod(1).
    Symbolic(Vec<Clause>),
}

/// One clause: `ug+rX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Whose: the bits of those users.
    who: u32,
    /// The operators, each with the letters behind it.
    changes: Vec<(char, String)>,
}

impl Chmod {
    /// Reads an octal number, or clauses as of chmod(1).
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and \
                 07777, or a symbolic mode"
            )
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok();
            let mode = mode.filter(|mode| *mode <= 0o7777);
            return mode.map(Chmod::Octal).with_context(wrong);
        }
        let clauses = text.split(',').map(clause).collect::<Option<Vec<_>>>();
        Ok(Chmod::Symbolic(clauses.with_context(wrong)?))
    }

    /// The permissions that become of `mode`.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let clauses = match self {
            Chmod::Octal(mode) => return *mode,
            Chmod::Symbolic(clauses) => clauses,
        };
        let mut now = mode;
        for clause in clauses {
            for (operator, letters) in &clause.changes {
                let bits = bits(letters, clause.who, now, is_directory);
                now = match operator {
                    '+' => now | bits,
                    '-' => now & !bits,
                    // Those of the others stay, and of a directory the bits that
                    // nobody has named, as chmod(1) does it.
                    _ => {
                        let mut cleared = clause.who & 0o777;
                        if !is_directory {
                            cleared |= clause.who & 0o7000;
                        }
                        now & !cleared | bits
                    }
                };
            }
        }
        now
    }
}

fn clause(text: &str) -> Option<Clause> {
    let begin = text.find(['+', '-', '='])?;
    let (whose, mut rest) = text.split_at(begin);
    let mut who = 0;
    for letter in whose.chars() {
        who |= match letter {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    if who == 0 {
        who = 0o7777;
    }
    let mut changes = Vec::new();
    while let Some(operator) = rest.chars().next() {
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        let (letters, next) = rest.split_at(end);
        let copies = matches!(letters, "u" | "g" | "o");
        if !copies && !letters.chars().all(|letter| "rwxXst".contains(letter)) {
            return None;
        }
        changes.push((operator, letters.to_owned()));
        rest = next;
    }
    Some(Clause { who, changes })
}

fn bits(letters: &str, who: u32, now: u32, is_directory: bool) -> u32 {
    let for_all = |bits: u32| (bits | bits << 3 | bits << 6) & who;
    let mut all = 0;
    for letter in letters.chars() {
        all |= match letter {
            'r' => for_all(4),
            'w' => for_all(2),
            'x' => for_all(1),
            'X' if is_directory || now & 0o111 != 0 => for_all(1),
            's' => 0o6000 & who,
            't' => 0o1000 & who,
            'u' => for_all(now >> 6 & 7),
            'g' => for_all(now >> 3 & 7),
            'o' => for_all(now & 7),
            _ => 0,
        };
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_chmod() {
        let apply =
            |text: &str, mode, directory| Chmod::parse(text).unwrap().apply(mode, directory);
        assert_eq!(apply("644", 0o755, false), 0o644);
        assert_eq!(apply("4755", 0o600, false), 0o4755);
        assert_eq!(apply("0", 0o600, false), 0);
        assert_eq!(apply("u+x", 0o640, false), 0o740);
        assert_eq!(apply("+x", 0o640, false), 0o751);
        assert_eq!(apply("a-w,u+w", 0o666, false), 0o644);
        assert_eq!(apply("u=rwX,go=rX", 0o600, false), 0o644);
        assert_eq!(apply("u=rwX,go=rX", 0o700, false), 0o755);
        assert_eq!(apply("u=rwX,go=rX", 0o600, true), 0o755);
        assert_eq!(apply("g=u,o=", 0o740, false), 0o770);
        assert_eq!(apply("u+s,+t", 0o755, false), 0o5755);
        assert_eq!(apply("o=g-w", 0o660, false), 0o664);
        for bad in ["", "999", "77777", "u", "z+x", "u+q", "u+rg", "8", "-1"] {
            assert!(Chmod::parse(bad).is_err(), "{bad}");
        }
    }
}
