//! A profile: which system calls a container may make, in the JSON of Docker
//! and podman. It is the OCI runtime specification's (`linux.seccomp`) with
//! `archMap`, and with `includes` and `excludes` for each rule.
//!
//! Whoever writes `actoin` has forgotten an action. Docker ignores what it does
//! not know, and starts the container with another filter than its author
//! meant; here, unknown and contradictory things are refused by name. `null`
//! means what is missing, as Go writes it for empty lists.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::seccomp::action::{Action, HIGHEST_ERRNO};
use crate::seccomp::builtin::DEFAULT;

/// The largest profile in bytes. Docker's own has 14 KiB.
pub const LARGEST: usize = 1 << 20;

/// A profile as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// The action for calls without a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<ActionName>,
    /// The errno of that action; `EPERM` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u64>,
    /// The interfaces (`SCMP_ARCH_X86_64`); the native one is always among them.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub architectures: Vec<String>,
    /// Or the interfaces for each native one.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub arch_map: Vec<ArchMap>,
    /// `SECCOMP_FILTER_FLAG_*`; `SPEC_ALLOW` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    /// The socket of the process that decides for `SCMP_ACT_NOTIFY`.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "String::is_empty"
    )]
    pub listener_path: String,
    /// What that process is told besides.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "String::is_empty"
    )]
    pub listener_metadata: String,
    /// The rules.
    #[serde(default, deserialize_with = "null")]
    pub syscalls: Vec<Call>,
}

/// The interfaces that go with a native one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArchMap {
    /// The native interface.
    #[serde(default, deserialize_with = "null")]
    pub architecture: String,
    /// The others of the same kernel.
    #[serde(default, deserialize_with = "null")]
    pub sub_architectures: Vec<String>,
}

/// A rule: some calls, and what happens to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Call {
    /// For readers.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// The calls.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub names: Vec<String>,
    /// A single call, as old profiles have it.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "String::is_empty"
    )]
    pub name: String,
    /// What happens to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionName>,
    /// The errno, or the tracer's number; `EPERM` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u64>,
    /// Conditions on the arguments.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub args: Vec<Argument>,
    /// The rule applies only if all of these hold.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "When::is_empty"
    )]
    pub includes: When,
    /// The rule does not apply if any of these holds.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "When::is_empty"
    )]
    pub excludes: When,
}

/// A condition on an argument, in the words of libseccomp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Argument {
    /// Which argument, from 0 to 5.
    #[serde(default, deserialize_with = "null")]
    pub index: u64,
    /// What it is compared with; the mask of a masked comparison.
    #[serde(default, deserialize_with = "null")]
    pub value: u64,
    /// What the masked argument is compared with.
    #[serde(default, deserialize_with = "null")]
    pub value_two: u64,
    /// How.
    pub op: Operator,
}

/// A comparison of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // The names say it.
pub enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// Conditions on where a rule applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct When {
    /// Capabilities of the container: `CAP_SYS_ADMIN`.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub caps: Vec<String>,
    /// Native interfaces, in Go's words: `amd64`.
    #[serde(
        default,
        deserialize_with = "null",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub arches: Vec<String>,
    /// A kernel at least as new: `4.8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_kernel: Option<KernelVersion>,
}

impl When {
    fn is_empty(&self) -> bool {
        *self == When::default()
    }
}

/// An action as a profile names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // See `Action`.
pub enum ActionName {
    /// The old name of `KillThread`.
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

impl ActionName {
    /// The action, with the errno that goes with it.
    ///
    /// # Errors
    /// An errno that is out of range, or that goes with no such action.
    pub fn with_errno(self, errno: Option<u64>) -> Result<Action> {
        let data = |most: u16| -> Result<u16> {
            let errno = errno.unwrap_or(libc::EPERM as u64);
            match u16::try_from(errno) {
                Ok(errno) if errno <= most => Ok(errno),
                _ => bail!("errnoRet {errno} is not between 0 and {most}"),
            }
        };
        let action = match self {
            ActionName::Errno => return Ok(Action::Errno(data(HIGHEST_ERRNO)?)),
            ActionName::Trace => return Ok(Action::Trace(data(u16::MAX)?)),
            ActionName::Kill | ActionName::KillThread => Action::KillThread,
            ActionName::KillProcess => Action::KillProcess,
            ActionName::Trap => Action::Trap,
            ActionName::Allow => Action::Allow,
            ActionName::Log => Action::Log,
            ActionName::Notify => Action::Notify,
        };
        match errno {
            None => Ok(action),
            Some(errno) => bail!(
                "errnoRet {errno} goes with SCMP_ACT_ERRNO and SCMP_ACT_TRACE, which this action \
                 is not"
            ),
        }
    }
}

/// The version of a kernel, as far as a profile looks at it: `6.18`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32);

impl KernelVersion {
    /// The version of this kernel: uname(2).
    pub fn here() -> Result<KernelVersion> {
        let name = rustix::system::uname();
        let release = name.release().to_string_lossy();
        // 6.18.44-cloud, 6.18-rc5
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        next()
            .zip(next())
            .map(|(kernel, major)| KernelVersion(kernel, major))
            .with_context(|| format!("uname: the release {release:?} has no version"))
    }
}

impl FromStr for KernelVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text
            .split_once('.')
            .and_then(|(kernel, major)| Some((kernel.parse().ok()?, major.parse().ok()?)))
            .filter(|numbers| *numbers != (0, 0));
        let (kernel, major) =
            numbers.with_context(|| format!("minKernel {text:?}: write it as 4.8"))?;
        Ok(KernelVersion(kernel, major))
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

kit::serde_as_text!(KernelVersion);

/// Reads `null` as the default.
fn null<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl FromStr for Profile {
    type Err = Error;

    /// Reads a profile and checks what needs no machine to be checked.
    ///
    /// # Errors
    /// Names the unknown or contradictory thing, with its line.
    fn from_str(text: &str) -> Result<Self> {
        ensure!(
            text.len() <= LARGEST,
            "the profile has {} bytes; at most {LARGEST} are read",
            text.len()
        );
        let profile: Profile = serde_json::from_str(text)?;
        profile.check()?;
        Ok(profile)
    }
}

impl Profile {
    /// The default profile.
    pub fn built_in() -> Result<Profile> {
        DEFAULT.parse().context("the built-in profile")
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.default_action.is_some(),
            "it has no defaultAction: whoever wants no filter says seccomp=unconfined"
        );
        ensure!(
            self.default_action != Some(ActionName::Notify),
            "SCMP_ACT_NOTIFY cannot be the defaultAction: the container could not even start"
        );
        ensure!(
            self.architectures.is_empty() || self.arch_map.is_empty(),
            "it has both architectures and archMap: one of the two"
        );
        let listens = |call: &Call| call.action == Some(ActionName::Notify);
        let notifies = self.syscalls.iter().any(listens);
        ensure!(
            !notifies || !self.listener_path.is_empty(),
            "SCMP_ACT_NOTIFY asks a process that nobody names: listenerPath is missing"
        );
        ensure!(
            notifies || self.listener_path.is_empty(),
            "listenerPath is given, but no rule is SCMP_ACT_NOTIFY"
        );
        for (n, call) in self.syscalls.iter().enumerate() {
            let name = || match call.calls().first() {
                Some(first) => format!("rule {} ({first})", n + 1),
                None => format!("rule {}", n + 1),
            };
            call.check().with_context(name)?;
        }
        Ok(())
    }
}

impl Call {
    /// The names of the calls, whichever way they are written.
    pub fn calls(&self) -> Vec<&str> {
        match self.name.as_str() {
            "" => self.names.iter().map(String::as_str).collect(),
            name => vec![name],
        }
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.name.is_empty() || self.names.is_empty(),
            "it has both name and names: one of the two"
        );
        ensure!(!self.calls().is_empty(), "it names no call");
        let action = self.action.context("it has no action")?;
        action.with_errno(self.errno_ret)?;
        // The start waits for execve(2), and a write reports that it has failed:
        // neither can wait for a listener that may have gone.
        for name in ["write", "execve"] {
            ensure!(
                action != ActionName::Notify || !self.calls().contains(&name),
                "{name} cannot be SCMP_ACT_NOTIFY: the container's start needs it"
            );
        }
        for argument in &self.args {
            argument.check()?;
        }
        for when in [&self.includes, &self.excludes] {
            for name in &when.caps {
                capability(name)?;
            }
        }
        Ok(())
    }
}

impl Argument {
    fn check(&self) -> Result<()> {
        let Argument {
            index,
            value,
            value_two,
            op,
        } = *self;
        ensure!(index <= 5, "argument {index}: they are 0 to 5");
        match op {
            Operator::MaskedEqual => ensure!(
                value_two & !value == 0,
                "argument {index}: with the mask {value:#x} it is never {value_two:#x}. value is \
                 the mask, valueTwo what is compared"
            ),
            _ => ensure!(
                value_two == 0,
                "argument {index}: only SCMP_CMP_MASKED_EQ has a valueTwo"
            ),
        }
        Ok(())
    }
}

/// The capability of a name as `CAP_SYS_ADMIN`.
///
/// # Errors
/// A name that is none.
pub fn capability(name: &str) -> Result<CapabilitySet> {
    name.strip_prefix("CAP_")
        .and_then(CapabilitySet::from_name)
        .with_context(|| format!("{name:?} is not a capability: see capabilities(7)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        format!("{:#}", text.parse::<Profile>().unwrap_err())
    }

    #[test]
    fn what_is_unknown_or_contradictory_is_refused_by_name() {
        let rule = |rest: &str| {
            refused(&format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],{rest}}}]}}"#
            ))
        };
        let allow = r#""action":"SCMP_ACT_ALLOW""#;
        for (said, word) in [
            (refused("{}"), "no defaultAction"),
            (
                refused(r#"{"defaultAction":"ALLOW"}"#),
                "unknown variant `ALLOW`",
            ),
            (
                refused(r#"{"defaultActoin":null}"#),
                "unknown field `defaultActoin`",
            ),
            (
                refused(r#"{"syscalls":[],"syscalls":[]}"#),
                "duplicate field `syscalls`",
            ),
            (
                refused(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#),
                "cannot be the defaultAction",
            ),
            (
                refused(r#"{"defaultAction":"SCMP_ACT_LOG","architectures":["a"],"archMap":[{}]}"#),
                "both architectures and archMap",
            ),
            (rule(r#""action":null"#), "rule 1 (read): it has no action"),
            (
                rule(&format!(r#"{allow},"name":"write""#)),
                "both name and names",
            ),
            (
                rule(&format!(r#"{allow},"errnoRet":1"#)),
                "errnoRet 1 goes with",
            ),
            (
                rule(r#""action":"SCMP_ACT_ERRNO","errnoRet":4096"#),
                "not between 0 and 4095",
            ),
            (
                rule(r#""action":"SCMP_ACT_ERRNO","errnoRet":-1"#),
                "integer `-1`",
            ),
            (
                rule(r#""action":"SCMP_ACT_NOTIFY""#),
                "listenerPath is missing",
            ),
            (
                rule(&format!(r#"{allow},"includes":{{"caps":["SYS_ADMIN"]}}"#)),
                "not a capability",
            ),
            (
                rule(&format!(r#"{allow},"includes":{{"minKernel":"4"}}"#)),
                "write it as 4.8",
            ),
            (
                rule(&format!(
                    r#"{allow},"args":[{{"index":6,"op":"SCMP_CMP_EQ"}}]"#
                )),
                "argument 6",
            ),
            (
                rule(&format!(r#"{allow},"args":[{{"index":0}}]"#)),
                "missing field `op`",
            ),
            (
                rule(&format!(
                    r#"{allow},"args":[{{"valueTwo":1,"op":"SCMP_CMP_EQ"}}]"#
                )),
                "only SCMP_CMP_MASKED_EQ",
            ),
            (
                rule(&format!(
                    r#"{allow},"args":[{{"value":2,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}}]"#
                )),
                "it is never 0x1",
            ),
            (refused(&"[".repeat(100_000)), "expected value"),
            (
                refused(&r#"{"syscalls":[{"args":[{"op":["#.repeat(10_000)),
                "expected",
            ),
            (refused(&" ".repeat(LARGEST + 1)), "at most 1048576"),
        ] {
            assert!(said.contains(word), "{said}, not {word}");
        }
    }

    #[test]
    fn null_is_what_go_writes_for_nothing() {
        let profile: Profile = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":null,
            "architectures":null,"archMap":null,"flags":null,"listenerPath":null,
            "listenerMetadata":null,"syscalls":[{"name":null,"names":["read"],"comment":null,
            "action":"SCMP_ACT_ALLOW","errnoRet":null,"args":null,"includes":null,
            "excludes":{"caps":null,"arches":null,"minKernel":null}}]}"#
            .parse()
            .unwrap();
        assert_eq!(profile.syscalls[0].calls(), ["read"]);
        assert_eq!(profile.syscalls[0].args, []);
        let again = serde_json::to_string(&profile).unwrap();
        assert_eq!(again.parse::<Profile>().unwrap(), profile);
    }

    #[test]
    fn the_built_in_profile_is_one() {
        let profile = Profile::built_in().unwrap();
        assert!(profile.syscalls.len() > 50);
        assert!(KernelVersion::here().unwrap() > KernelVersion(4, 8));
    }
}
