//! The device nodes that a container may open: the rules, and their v1 form
//! (cgroup-v1/devices.rst). [`bpf`] has their v2 form.

pub(crate) mod bpf;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};
use nix::sys::stat::{major, minor};

/// The kind of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Character device, `c`.
    Char,
    /// Block device, `b`.
    Block,
}

/// The permitted operations on a device: `r`, `w` and `m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAccess {
    /// open(2) for reading.
    pub read: bool,
    /// open(2) for writing.
    pub write: bool,
    /// mknod(2).
    pub mknod: bool,
}

impl DeviceAccess {
    const ALL: DeviceAccess = DeviceAccess {
        read: true,
        write: true,
        mknod: true,
    };
    const MKNOD: DeviceAccess = DeviceAccess {
        read: false,
        write: false,
        mknod: true,
    };
}

impl FromStr for DeviceAccess {
    type Err = Error;

    /// Reads some of the letters `r`, `w` and `m`, each at most once.
    fn from_str(text: &str) -> Result<Self> {
        let has = |letter| text.chars().filter(|c| *c == letter).count() == 1;
        let access = DeviceAccess {
            read: has('r'),
            write: has('w'),
            mknod: has('m'),
        };
        if text.is_empty() || access.to_string().len() != text.len() {
            bail!("{text:?}: give some of the letters r, w and m");
        }
        Ok(access)
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (set, letter) in [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')] {
            if set {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// A rule that allows one device, or all devices of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// The kind of the node.
    pub kind: DeviceKind,
    /// Major number; `None` for all.
    pub major: Option<u32>,
    /// Minor number; `None` for all.
    pub minor: Option<u32>,
    /// The permitted operations.
    pub access: DeviceAccess,
}

impl fmt::Display for DeviceRule {
    /// The form of the v1 files: `c 1:3 rwm`, `b *:* m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::Char => 'c',
            DeviceKind::Block => 'b',
        };
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        write!(f, "{kind} {major}:{minor} {}", self.access)
    }
}

/// A rule of an ordered list: the last one that applies decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The devices and operations.
    pub rule: DeviceRule,
    /// Whether they are allowed.
    pub allow: bool,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.allow { "allow" } else { "deny" };
        write!(f, "{word} {}", self.rule)
    }
}

const fn all(kind: DeviceKind, access: DeviceAccess) -> DeviceRule {
    DeviceRule {
        kind,
        major: None,
        minor: None,
        access,
    }
}

const fn char(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule {
        kind: DeviceKind::Char,
        major: Some(major),
        minor,
        access: DeviceAccess::ALL,
    }
}

/// The rules for every container, as with Docker. Nodes of all devices may be
/// made: only opening one gives access.
pub(crate) const DEFAULT: [DeviceRule; 11] = [
    all(DeviceKind::Char, DeviceAccess::MKNOD),
    all(DeviceKind::Block, DeviceAccess::MKNOD),
    char(1, Some(3)), // /dev/null
    char(1, Some(5)), // /dev/zero
    char(1, Some(7)), // /dev/full
    char(1, Some(8)), // /dev/random
    char(1, Some(9)), // /dev/urandom
    char(5, Some(0)), // /dev/tty
    char(5, Some(1)), // /dev/console
    char(5, Some(2)), // /dev/ptmx
    char(136, None),  // /dev/pts/*
];

/// `--device-cgroup-rule`: a rule in v1's form, `c 10:* rwm`, with `a` for both
/// kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleArg {
    kinds: Vec<DeviceKind>,
    rule: DeviceRule,
}

impl FromStr for RuleArg {
    type Err = Error;

    /// Reads `KIND MAJOR:MINOR ACCESS`.
    fn from_str(text: &str) -> Result<Self> {
        let what = || format!("{text:?}: write a rule such as \"c 10:* rwm\"");
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [kind, numbers, access] = words[..] else {
            bail!(what());
        };
        let kinds = match kind {
            "a" => vec![DeviceKind::Char, DeviceKind::Block],
            "c" => vec![DeviceKind::Char],
            "b" => vec![DeviceKind::Block],
            _ => bail!(what()),
        };
        let number = |text: &str| match text {
            "*" => Ok(None),
            _ => text.parse().map(Some).with_context(what),
        };
        let (major, minor) = numbers.split_once(':').with_context(what)?;
        Ok(RuleArg {
            rule: DeviceRule {
                kind: kinds[0],
                major: number(major)?,
                minor: number(minor)?,
                access: access.parse().with_context(what)?,
            },
            kinds,
        })
    }
}

impl RuleArg {
    /// The rules, one per kind.
    pub(crate) fn rules(&self) -> impl Iterator<Item = DeviceRule> + '_ {
        self.kinds.iter().map(|kind| DeviceRule {
            kind: *kind,
            ..self.rule
        })
    }

    /// Whether it allows every operation on all devices: `a *:* rwm`.
    pub(crate) fn is_everything(&self) -> bool {
        let DeviceRule {
            major,
            minor,
            access,
            ..
        } = self.rule;
        self.kinds.len() == 2 && (major, minor, access) == (None, None, DeviceAccess::ALL)
    }
}

/// `--device`: a device of the host, its path inside, and the permitted
/// operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceArg {
    /// The path of its node on the host.
    pub host: PathBuf,
    /// The path of its node inside, absolute.
    pub container: PathBuf,
    /// The permitted operations.
    pub access: DeviceAccess,
}

impl FromStr for DeviceArg {
    type Err = Error;

    /// Reads `HOST`, `HOST:CONTAINER`, `HOST:rwm` or `HOST:CONTAINER:rwm`.
    ///
    /// # Errors
    /// An empty part, a path inside that is not absolute, or letters other than
    /// `rwm`.
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (host, container, access) = match parts[..] {
            [host] => (host, host, DeviceAccess::ALL),
            [host, second] if second.starts_with('/') => (host, second, DeviceAccess::ALL),
            // As Docker: /dev/fuse:r
            [host, second] => (host, host, second.parse()?),
            [host, container, access] => (host, container, access.parse()?),
            _ => bail!("{text:?}: write HOST, HOST:CONTAINER or HOST:CONTAINER:rwm"),
        };
        if host.is_empty() || !container.starts_with('/') {
            bail!("{text:?}: give the paths of the device's node on the host and inside");
        }
        Ok(DeviceArg {
            host: host.into(),
            container: container.into(),
            access,
        })
    }
}

impl fmt::Display for DeviceArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, container) = (self.host.display(), self.container.display());
        write!(f, "{host}:{container}:{}", self.access)
    }
}

impl DeviceArg {
    /// The rule that allows the device. The path on the host must be a device
    /// node.
    pub fn rule(&self) -> Result<DeviceRule> {
        let meta =
            fs::metadata(&self.host).with_context(|| format!("stat {}", self.host.display()))?;
        let kind = match meta.file_type() {
            t if t.is_char_device() => DeviceKind::Char,
            t if t.is_block_device() => DeviceKind::Block,
            _ => bail!("{} is not a device", self.host.display()),
        };
        Ok(DeviceRule {
            kind,
            major: Some(major(meta.rdev()) as u32),
            minor: Some(minor(meta.rdev()) as u32),
            access: self.access,
        })
    }

    pub(crate) fn bind(&self) -> OsString {
        let mut bind = self.host.clone().into_os_string();
        bind.push(":");
        bind.push(&self.container);
        bind
    }
}

impl fmt::Display for RuleArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.rule.to_string();
        match self.kinds[..] {
            [_, _] => write!(f, "a{}", &rule[1..]),
            _ => f.write_str(&rule),
        }
    }
}

kit::serde_as_text!(DeviceArg, RuleArg);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_written_as_v1_shows_it() {
        assert_eq!(DEFAULT[0].to_string(), "c *:* m");
        assert_eq!(DEFAULT[2].to_string(), "c 1:3 rwm");
        assert_eq!(DEFAULT[10].to_string(), "c 136:* rwm");
    }

    #[test]
    fn a_device_is_given_as_to_docker() {
        for (text, shown) in [
            ("/dev/fuse", "/dev/fuse:/dev/fuse:rwm"),
            ("/dev/fuse:/dev/x", "/dev/fuse:/dev/x:rwm"),
            ("/dev/fuse:r", "/dev/fuse:/dev/fuse:r"),
            ("/dev/fuse:/dev/x:mr", "/dev/fuse:/dev/x:rm"),
        ] {
            assert_eq!(text.parse::<DeviceArg>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            ":/x",
            "/dev/fuse:",
            "/dev/fuse:x",
            "/dev/fuse:/x:rr",
            "/a:b:r",
            "/a:/b:r:w",
        ] {
            assert!(text.parse::<DeviceArg>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_rule_is_given_as_v1_shows_it() {
        let shown = |text: &str| -> Vec<String> {
            let rule: RuleArg = text.parse().unwrap();
            rule.rules().map(|rule| rule.to_string()).collect()
        };
        assert_eq!(shown("c 10:* rwm"), ["c 10:* rwm"]);
        assert_eq!(shown("a *:* mr"), ["c *:* rm", "b *:* rm"]);
        assert!("a *:* rwm".parse::<RuleArg>().unwrap().is_everything());
        assert!(!"c *:* rwm".parse::<RuleArg>().unwrap().is_everything());
        for text in ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:3 z", "c -1:3 r"] {
            assert!(text.parse::<RuleArg>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_rule_has_the_numbers_of_the_node() {
        let null: DeviceArg = "/dev/null:r".parse().unwrap();
        assert_eq!(null.rule().unwrap().to_string(), "c 1:3 r");
        let error = "/etc/passwd"
            .parse::<DeviceArg>()
            .unwrap()
            .rule()
            .unwrap_err();
        assert!(error.to_string().contains("not a device"));
    }
}
