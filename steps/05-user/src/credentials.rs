//! `--user`: the command's own IDs, taken just before execve(2)
//! (credentials(7)).

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Once;

use anyhow::{Context, Error, Result, bail, ensure};
use kit::{say, warn};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, getegid, getgroups, setgroups, setresgid, setresuid};
use process::{Command, Isolation};

use crate::UserSettings;
use crate::accounts::{Account, Group, accounts, groups};
use crate::ids::Ids;

/// The value of `--user`: a user and a group, either of which may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSpec {
    user: String,
    group: String,
}

impl UserSpec {
    /// Whether both halves are empty, which is as if the option were not given.
    pub fn is_empty(&self) -> bool {
        self.user.is_empty() && self.group.is_empty()
    }
}

impl FromStr for UserSpec {
    type Err = Error;

    /// Reads `USER[:GROUP]`, each a number or a name. Either may be missing, as
    /// with Docker: the default user is root, the default groups are the
    /// user's.
    ///
    /// # Errors
    /// A second colon, which no name contains, or a number outside the range of
    /// IDs.
    fn from_str(text: &str) -> Result<Self> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        ensure!(!group.contains(':'), "use UID or UID:GID, numbers or names");
        id(Ids::User, user)?;
        id(Ids::Group, group)?;
        Ok(UserSpec {
            user: user.to_owned(),
            group: group.to_owned(),
        })
    }
}

/// The highest ID that `--user` takes as a number: Docker's limit.
const HIGHEST: u32 = i32::MAX as u32;

/// The ID that half of `--user` stands for if it is a number; `None` for a
/// name. Digits, also after a sign, are always a number, whatever names the
/// container's files define: the files come from the image.
///
/// # Errors
/// A number that is negative or above [`HIGHEST`].
fn id(ids: Ids, text: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= HIGHEST => Ok(Some(id)),
        _ => bail!("{} {text} is not between 0 and {HIGHEST}", ids.noun()),
    }
}

/// Refuses an ID of the container's `file` above [`HIGHEST`], as Docker does.
/// The kernel reads 4294967295 as -1, which setresuid(2) and setresgid(2) take
/// for “no change”: the command would stay root.
fn in_range(ids: Ids, id: u32, file: &str) -> Result<u32> {
    ensure!(
        id != u32::MAX,
        "--user: {} {id} in the container's {file} is no ID: it stands for “no change” \
         (setresuid(2))",
        ids.noun()
    );
    ensure!(
        id <= HIGHEST,
        "--user: {} {id} in the container's {file} is not between 0 and {HIGHEST}",
        ids.noun()
    );
    Ok(id)
}

/// The lines of a file of the container's. Without a file that can be read, such
/// as when root inside has put a FIFO in its place, there are none, and numbers
/// still work: nobody inside locks an administrator out. `why` gets the reason.
fn lines<T>(read: Result<Vec<T>>, why: &mut Vec<String>) -> Vec<T> {
    read.unwrap_or_else(|error| {
        say!("no users or groups: {error:#}");
        why.push(format!("{error:#}"));
        Vec::new()
    })
}

/// The resolved IDs of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Resolved {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// The home directory in `/etc/passwd`, else `/`.
    home: String,
}

/// The isolation that gives the command its credentials.
///
/// It goes last in the list: it looks names up in the root file system that the
/// others have switched to, and it gives up the rights that they need. It acts
/// in `before_exec`, after any init of step 03 has forked: the init stays root,
/// so that it may signal its children.
pub struct Credentials {
    spec: Option<UserSpec>,
    /// Additional groups, by number or name: `--group-add`.
    group_add: Vec<String>,
    resolved: Option<Resolved>,
    owner: Rc<OnceCell<(u32, u32)>>,
}

impl Credentials {
    /// The isolation that `args` describe.
    pub fn new(args: &UserSettings) -> Self {
        // Whoever has more groups only is root, as without any option.
        let root = || UserSpec {
            user: String::new(),
            group: String::new(),
        };
        let more = !args.group_add.is_empty();
        Credentials {
            spec: args.user.clone().or_else(|| more.then(root)),
            group_add: args.group_add.clone(),
            resolved: None,
            owner: Rc::default(),
        }
    }

    /// The UID and GID of the command, set by `in_container`: for another
    /// isolation that gives something to the command.
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
            let mut why = Vec::new();
            let groups = lines(groups(), &mut why);
            let accounts = lines(accounts(), &mut why);
            let resolved = resolve(spec, &accounts, &groups).and_then(|mut resolved| {
                for group in &self.group_add {
                    let gid = named_group("--group-add", group, &groups)?;
                    if !resolved.groups.contains(&gid) {
                        resolved.groups.push(gid);
                    }
                }
                Ok(resolved)
            });
            let resolved = match why.is_empty() {
                true => resolved?,
                false => resolved.with_context(|| why.join("; "))?,
            };
            self.owner.get_or_init(|| (resolved.uid, resolved.gid));
            self.resolved = Some(resolved);
        }
        Ok(())
    }

    /// Sets `HOME` to the user's home directory if the environment has no
    /// `HOME`, as Docker does. With another user's `HOME` a program finds the
    /// wrong files, or may not read them.
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
    /// Sets the groups first and the user last: a process that is no longer
    /// root may change neither.
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

/// Looks the names up, as Docker does (moby/sys `user`, `GetExecUser`). A user
/// without a named group gets the one of `/etc/passwd` and the supplementary
/// groups of `/etc/group`; a UID that is in neither gets group 0. The group is
/// also one of the supplementary groups, so that a program which sets another
/// group does not lose the restrictions of the first (CVE-2022-36109).
fn resolve(spec: &UserSpec, accounts: &[Account], groups: &[Group]) -> Result<Resolved> {
    let asked = match &*spec.user {
        "" => Some(0),
        user => id(Ids::User, user)?,
    };
    let account = accounts.iter().find(|account| match asked {
        Some(uid) => account.uid == uid,
        None => account.name == spec.user,
    });
    let uid = match (account, asked) {
        (Some(account), _) => in_range(Ids::User, account.uid, "/etc/passwd")?,
        (None, Some(uid)) => uid,
        (None, None) => return Err(unknown("--user", "user", &spec.user, "/etc/passwd")),
    };
    let home = account
        .map(|account| account.home.clone())
        .filter(|home| !home.is_empty())
        .unwrap_or_else(|| "/".to_owned());
    let (gid, more) = match &*spec.group {
        "" => {
            let gid = account.map_or(0, |account| account.gid);
            let member = |group: &&Group| {
                account.is_some_and(|account| group.members.contains(&account.name))
            };
            let more = groups.iter().filter(member).map(|group| group.gid);
            (in_range(Ids::Group, gid, "/etc/passwd")?, more.collect())
        }
        group => (named_group("--user", group, groups)?, Vec::new()),
    };
    let mut all = vec![gid];
    for group in more {
        let group = in_range(Ids::Group, group, "/etc/group")?;
        if !all.contains(&group) {
            all.push(group);
        }
    }
    Ok(Resolved {
        uid,
        gid,
        groups: all,
        home,
    })
}

/// The GID of a group that `option` names, by number or name.
fn named_group(option: &str, group: &str, groups: &[Group]) -> Result<u32> {
    if let Some(gid) = id(Ids::Group, group)? {
        return Ok(gid);
    }
    let found = groups.iter().find(|known| known.name == group);
    let found = found.ok_or_else(|| unknown(option, "group", group, "/etc/group"))?;
    in_range(Ids::Group, found.gid, "/etc/group")
}

fn unknown(option: &str, kind: &str, name: &str, file: &str) -> Error {
    Error::msg(format!(
        "{option}: there is no {kind} {name:?} in the container's {file}: use a number"
    ))
}

fn refused(ids: Ids, id: u32, errno: Errno) -> Result<()> {
    let noun = ids.noun();
    let call = format!("setres{}({id})", noun.to_lowercase());
    match errno {
        Errno::EINVAL => bail!(
            "--user: {noun} {id} is not mapped in this user namespace: map it with {} or \
             --map-auto",
            ids.option()
        ),
        Errno::EPERM => Err(errno)
            .with_context(|| format!("--user: {call}, which needs root, inside or outside")),
        other => Err(other).context(call),
    }
}

/// Sets the supplementary groups and drops all previous ones: setgroups(2).
///
/// In a user namespace with one mapped ID setgroups(2) is denied to everybody,
/// because the map's writer was unprivileged. The caller's groups then stay,
/// and a warning says so if there are any.
///
/// # Errors
/// `EINVAL` for a group that is not mapped, `EPERM` without `CAP_SETGID`.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    let raw: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    match setgroups(&raw) {
        Err(Errno::EPERM) if namespace_denies()? => keep_groups(),
        Err(Errno::EINVAL) => bail!(
            "setgroups({groups:?}): EINVAL: a group is not mapped in this user namespace: map it \
             with {} or --map-auto",
            Ids::Group.option()
        ),
        set => set.with_context(|| format!("setgroups({groups:?})")),
    }
}

/// Whether this user namespace denies setgroups(2) to everybody: “deny” in
/// /proc/self/setgroups, or an unwritten gid_map, which has the same effect.
fn namespace_denies() -> Result<bool> {
    let read = |file: &str| fs::read_to_string(file).with_context(|| format!("read {file}"));
    Ok(read("/proc/self/setgroups")?.trim() == "deny" || read("/proc/self/gid_map")?.is_empty())
}

fn keep_groups() -> Result<()> {
    static SAID: Once = Once::new();
    let own = getegid();
    let mut kept = getgroups().context("getgroups")?;
    kept.retain(|group| *group != own);
    say!("setgroups is denied in this namespace: the caller's groups stay");
    if !kept.is_empty() {
        SAID.call_once(|| {
            warn!(
                "user: the caller's {} supplementary groups stay, with their rights to files: a \
                 map of one ID does not allow setgroups(2). --map-auto drops them",
                kept.len()
            )
        });
    }
    Ok(())
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)?;
        match self.group.is_empty() {
            true => Ok(()),
            false => write!(f, ":{}", self.group),
        }
    }
}

kit::serde_as_text!(UserSpec);

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
        assert_eq!(ids("5:6").unwrap(), (5, 6, vec![6]));
        assert_eq!(ids("5").unwrap(), (5, 0, vec![0]));
        assert_eq!(ids("+5:007").unwrap(), (5, 7, vec![7]));
    }

    #[test]
    fn a_known_user_brings_groups_unless_one_is_named() {
        assert_eq!(ids("alice").unwrap(), (1000, 100, vec![100, 10]));
        assert_eq!(ids("1000:").unwrap(), (1000, 100, vec![100, 10]));
        assert_eq!(ids("alice:tty").unwrap(), (1000, 5, vec![5]));
    }

    #[test]
    fn home_is_given_where_there_is_none() {
        let home = |spec: &str, env: &[&str]| {
            let mut credentials = Credentials {
                owner: Rc::default(),
                spec: None,
                group_add: Vec::new(),
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
    fn an_empty_half_is_roots() {
        for text in ["", ":", "0", "root:"] {
            assert_eq!(ids(text).unwrap(), (0, 0, vec![0, 10]), "{text:?}");
        }
        assert_eq!(ids(":5").unwrap(), (0, 5, vec![5]));
        assert!("".parse::<UserSpec>().unwrap().is_empty());
    }

    #[test]
    fn a_number_is_no_name() {
        let named = |name: &str, uid| Account {
            name: name.to_owned(),
            uid,
            gid: uid,
            home: String::new(),
        };
        let accounts = [named("7", 0), named("max", u32::MAX)];
        let groups = [Group {
            name: "7".to_owned(),
            gid: 0,
            members: Vec::new(),
        }];
        let found = resolve(&"7:7".parse().unwrap(), &accounts, &groups).unwrap();
        assert_eq!((found.uid, found.gid), (7, 7));
        let refused = resolve(&"max".parse().unwrap(), &accounts, &groups).unwrap_err();
        assert!(refused.to_string().contains("no change"), "{refused}");
        let accounts = [named("big", HIGHEST + 1)];
        let refused = resolve(&"big".parse().unwrap(), &accounts, &groups).unwrap_err();
        assert!(refused.to_string().contains("between 0 and"), "{refused}");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "4294967295",
            "0:4294967295",
            "4294967296",
            "2147483648",
            "-1",
            "0:-1",
            "18446744073709551616",
            "0:0:0",
        ] {
            assert!(text.parse::<UserSpec>().is_err(), "{text} was accepted");
        }
        assert!(ids(" 0").is_err() && ids("0 ").is_err() && ids("0x0").is_err());
    }
}
