//! Users and groups by name: passwd(5) and group(5), read as plain files.
//!
//! getpwnam(3) would ask the host's name services. A static program cannot load
//! their libraries, and their answers are not those of the container.

use std::path::Path;

use anyhow::Result;
use process::inside;

use crate::map::number;

/// The most that is read of either file, in bytes. An image may have put
/// anything in its place.
const LIMIT: u64 = 16 << 20;

/// A line of `/etc/passwd`: the fields that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The user ID.
    pub uid: u32,
    /// The ID of the primary group.
    pub gid: u32,
    /// The home directory; empty if the line has none.
    pub home: String,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group's name.
    pub name: String,
    /// The group ID.
    pub gid: u32,
    /// The login names of the users for whom it is a supplementary group.
    pub members: Vec<String>,
}

/// Reads the lines of `/etc/passwd`. A missing file has none.
pub fn accounts() -> Result<Vec<Account>> {
    Ok(parse_accounts(&read("/etc/passwd")?))
}

/// Reads the lines of `/etc/group`. A missing file has none.
pub fn groups() -> Result<Vec<Group>> {
    Ok(parse_groups(&read("/etc/group")?))
}

fn read(path: &str) -> Result<String> {
    let bytes = inside::read(Path::new(path), LIMIT)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Parses passwd(5). Malformed lines are skipped, as getpwnam(3) does. Blanks
/// around a line do not count, as with Docker.
pub fn parse_accounts(text: &str) -> Vec<Account> {
    text.lines()
        .map(str::trim)
        .filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _password, uid, gid, ref rest @ ..] = fields[..] else {
                return None;
            };
            Some(Account {
                name: name.to_owned(),
                uid: number(uid).ok()?,
                gid: number(gid).ok()?,
                home: rest.get(1).copied().unwrap_or_default().to_owned(),
            })
        })
        .collect()
}

/// Parses group(5), as [`parse_accounts`] does. Fields after the members are
/// ignored.
pub fn parse_groups(text: &str) -> Vec<Group> {
    text.lines()
        .map(str::trim)
        .filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _password, gid, members, ..] = fields[..] else {
                return None;
            };
            Some(Group {
                name: name.to_owned(),
                gid: number(gid).ok()?,
                members: members
                    .split(',')
                    .filter(|member| !member.is_empty())
                    .map(str::to_owned)
                    .collect(),
            })
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn some_accounts() -> Vec<Account> {
        parse_accounts("root:x:0:0:root:/root:/bin/sh\nbad line\nalice:x:1000:100::/:/bin/sh\n")
    }

    pub(crate) fn some_groups() -> Vec<Group> {
        parse_groups("root:x:0:\nusers:x:100:\nwheel:x:10:alice,root\ntty:x:5:bob\n")
    }

    #[test]
    fn bad_lines_are_passed_over() {
        assert_eq!(some_accounts().len(), 2);
        assert_eq!(some_accounts()[1].gid, 100);
        assert_eq!(some_accounts()[0].home, "/root");
    }

    #[test]
    fn members_are_listed_and_may_be_none() {
        assert!(some_groups()[0].members.is_empty());
        assert_eq!(some_groups()[2].members, ["alice", "root"]);
    }

    #[test]
    fn blanks_around_a_line_and_further_fields_do_not_count() {
        assert_eq!(parse_accounts("  bob:x:7:8::/:/bin/sh \n")[0].name, "bob");
        assert_eq!(parse_groups("\tn:x:9:bob:more")[0].members, ["bob"]);
    }
}
