//! `--user`: the command's own IDs, taken at the very end (credentials(7)).

use std::cell::OnceCell;
use std::ffi::OsString;
use std::rc::Rc;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use process::{Command, Isolation, say};
use rustix::thread::{CapabilitySet, capabilities};

use crate::UserArgs;
use crate::accounts::{Account, Group, accounts, groups};
use crate::ids::Ids;
use crate::map::number;

/// What `--user` says: a user, and a group if one is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSpec {
    user: String,
    group: Option<String>,
}

impl FromStr for UserSpec {
    type Err = Error;

    /// Reads `USER[:GROUP]`, each a number or a name.
    ///
    /// # Errors
    /// Where either is empty.
    fn from_str(text: &str) -> Result<Self> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group.to_owned())),
            None => (text, None),
        };
        ensure!(
            !user.is_empty() && group.as_deref() != Some(""),
            "it is UID or UID:GID, numbers or names"
        );
        Ok(UserSpec {
            user: user.to_owned(),
            group,
        })
    }
}

/// IDs, ready to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Resolved {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// Of the line in `/etc/passwd`, else `/`.
    home: String,
}

/// The credentials of the command.
///
/// Goes last in the list: names are looked up in the root file system that the
/// others have switched to, and all of them need the rights that this one gives
/// up. It acts in `before_exec`, after any init of step 03 has forked: that one
/// stays root, so that it may signal its children.
pub struct Credentials {
    spec: Option<UserSpec>,
    resolved: Option<Resolved>,
    owner: Rc<OnceCell<(u32, u32)>>,
}

impl Credentials {
    /// The isolation that `args` describe.
    pub fn new(args: &UserArgs) -> Self {
        Credentials {
            spec: args.user.clone(),
            resolved: None,
            owner: Rc::default(),
        }
    }

    /// The UID and GID that the command will have, once they are known: for
    /// another isolation that has something to give to it.
    pub fn owner(&self) -> Rc<OnceCell<(u32, u32)>> {
        Rc::clone(&self.owner)
    }
}

impl Isolation for Credentials {
    fn name(&self) -> &'static str {
        "credentials"
    }

    fn in_container(&mut self) -> Result<()> {
        if let Some(spec) = &self.spec {
            let resolved = resolve(spec, &accounts()?, &groups()?)?;
            self.owner.get_or_init(|| (resolved.uid, resolved.gid));
            self.resolved = Some(resolved);
        }
        Ok(())
    }

    /// Gives the command the user's `HOME` where its environment has none, as
    /// Docker does: a program that looks for its files in somebody else's
    /// directory finds the wrong ones, or may not read them.
    fn adjust(&mut self, command: &mut Command) -> Result<()> {
        let Some(Resolved { home, .. }) = &self.resolved else {
            return Ok(());
        };
        let known = |pair: &OsString| pair.as_encoded_bytes().starts_with(b"HOME=");
        if !command.env.iter().any(known) {
            command.env.push(format!("HOME={home}").into());
        }
        Ok(())
    }

    // ANCHOR: before_exec
    /// Groups first and the user last: whoever is not root any more may change
    /// neither.
    fn before_exec(&mut self) -> Result<()> {
        // ANCHOR: exercise_become_the_user
        let Some(Resolved {
            uid, gid, groups, ..
        }) = &self.resolved
        else {
            return Ok(());
        };
        say!("become UID {uid}, GID {gid}, groups {groups:?}");
        set_groups(groups)?;
        let raw = Gid::from_raw(*gid);
        setresgid(raw, raw, raw).or_else(|errno| refused(Ids::Group, *gid, errno))?;
        let raw = Uid::from_raw(*uid);
        setresuid(raw, raw, raw).or_else(|errno| refused(Ids::User, *uid, errno))
        // ANCHOR_END: exercise_become_the_user
    }
    // ANCHOR_END: before_exec
}

/// Looks the names up. A user without a named group gets the one of
/// `/etc/passwd` and the supplementary groups of `/etc/group`; a UID that is
/// in neither gets group 0, as with Docker.
fn resolve(spec: &UserSpec, accounts: &[Account], groups: &[Group]) -> Result<Resolved> {
    let account = accounts
        .iter()
        .find(|account| account.name == spec.user)
        .or_else(|| {
            let uid = number(&spec.user).ok()?;
            accounts.iter().find(|account| account.uid == uid)
        });
    let uid = match account {
        Some(account) => account.uid,
        None => number(&spec.user).map_err(|_| unknown("user", &spec.user, "/etc/passwd"))?,
    };
    let home = account
        .map(|account| account.home.clone())
        .filter(|home| !home.is_empty())
        .unwrap_or_else(|| "/".to_owned());
    if let Some(group) = &spec.group {
        let found = groups.iter().find(|known| known.name == *group);
        let gid = match found {
            Some(known) => known.gid,
            None => number(group).map_err(|_| unknown("group", group, "/etc/group"))?,
        };
        return Ok(Resolved {
            uid,
            gid,
            groups: Vec::new(),
            home,
        });
    }
    let supplementary = groups
        .iter()
        .filter(|group| account.is_some_and(|account| group.members.contains(&account.name)))
        .map(|group| group.gid)
        .collect();
    Ok(Resolved {
        uid,
        gid: account.map_or(0, |account| account.gid),
        groups: supplementary,
        home,
    })
}

fn unknown(kind: &str, name: &str, file: &str) -> Error {
    Error::msg(format!(
        "--user: there is no {kind} {name:?} in the container's {file}: use a number"
    ))
}

fn refused(ids: Ids, id: u32, errno: Errno) -> Result<()> {
    let noun = ids.noun();
    match errno {
        Errno::EINVAL => bail!(
            "--user: {noun} {id} is not mapped in this user namespace: map it with {} or \
             --map-auto",
            ids.option()
        ),
        Errno::EPERM => bail!("--user: becoming {noun} {id} needs root, inside or outside"),
        other => Err(other).with_context(|| format!("set the {noun} {id}")),
    }
}

/// Sets the supplementary groups, and so drops all that were there before:
/// setgroups(2). Where the namespace denies it to everybody, the caller's
/// groups stay.
///
/// # Errors
/// `EINVAL` for a group that is not mapped, `EPERM` without `CAP_SETGID`.
pub(crate) fn set_groups(groups: &[u32]) -> Result<()> {
    let raw: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    match setgroups(&raw) {
        // With the capability there is one reason left: “deny” in
        // /proc/self/setgroups, or no gid_map yet, which comes to the same.
        Err(Errno::EPERM) if may_set_gids()? => {
            say!("setgroups is denied in this namespace: the caller's groups stay");
            Ok(())
        }
        set => set.with_context(|| format!("setgroups({groups:?})")),
    }
}

fn may_set_gids() -> Result<bool> {
    let own = capabilities(None).context("capget")?.effective;
    Ok(own.contains(CapabilitySet::SETGID))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::tests::{some_accounts, some_groups};

    fn ids(spec: &str) -> Result<(u32, u32, Vec<u32>)> {
        let found = resolve(&spec.parse()?, &some_accounts(), &some_groups())?;
        Ok((found.uid, found.gid, found.groups))
    }

    #[test]
    fn numbers_need_no_files() {
        assert_eq!(ids("5:6").unwrap(), (5, 6, vec![]));
        assert_eq!(ids("5").unwrap(), (5, 0, vec![]));
    }

    #[test]
    fn a_known_user_brings_groups_unless_one_is_named() {
        assert_eq!(ids("alice").unwrap(), (1000, 100, vec![10]));
        assert_eq!(ids("1000").unwrap(), (1000, 100, vec![10]));
        assert_eq!(ids("alice:tty").unwrap(), (1000, 5, vec![]));
    }

    #[test]
    fn home_is_given_where_there_is_none() {
        let home = |spec: &str, env: &[&str]| {
            let mut credentials = Credentials {
                owner: Rc::default(),
                spec: None,
                resolved: Some(
                    resolve(&spec.parse().unwrap(), &some_accounts(), &some_groups()).unwrap(),
                ),
            };
            let mut command = Command {
                argv: vec!["sh".into()],
                env: env.iter().map(Into::into).collect(),
            };
            credentials.adjust(&mut command).unwrap();
            command.env
        };
        assert_eq!(home("root", &["A=b"]), ["A=b", "HOME=/root"]);
        assert_eq!(home("7", &[]), ["HOME=/"]);
        assert_eq!(home("root", &["HOME=/x"]), ["HOME=/x"]);
    }

    #[test]
    fn unknown_names_are_named() {
        let why = |spec| format!("{:#}", ids(spec).unwrap_err());
        assert!(why("eve").contains("no user \"eve\" in the container's /etc/passwd"));
        assert!(why("0:eve").contains("no group \"eve\" in the container's /etc/group"));
    }

    #[test]
    fn nothing_is_no_user() {
        for text in ["", ":", "0:", ":0"] {
            assert!(text.parse::<UserSpec>().is_err(), "{text} was accepted");
        }
    }
}
