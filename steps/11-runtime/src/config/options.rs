//! The options of a mount (config.md “Linux mount options”): what belongs to the
//! mount, what to the file system, and what to neither.

use anyhow::{Context, Result, bail, ensure};
use nix::mount::MsFlags;

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME,
};

/// Attributes of a mount to set and to clear (mount_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub set: u64,
    pub clear: u64,
}

impl Attributes {
    fn change(&mut self, set: u64, clear: u64) {
        self.set = self.set & !clear | set;
        self.clear = self.clear & !set | clear;
        // The values of the access time are alternatives, not bits: they are
        // set by clearing all of them first.
        if (set | clear) & MOUNT_ATTR__ATIME != 0 || clear == MOUNT_ATTR__ATIME {
            self.set = self.set & !MOUNT_ATTR__ATIME | set & MOUNT_ATTR__ATIME;
            self.clear |= MOUNT_ATTR__ATIME;
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Attributes::default()
    }
}

/// How far a bind mount or an ID-mapped mount reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The mount alone.
    Alone,
    /// And all mounts below it.
    Below,
}

/// The options of a mount, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `bind` or `rbind`.
    pub bind: Option<Reach>,
    /// `remount`: change what is mounted there.
    pub remount: bool,
    /// `tmpcopyup`: a tmpfs begins with the files that it covers.
    pub copy_up: bool,
    /// `idmap` or `ridmap`.
    pub id_map: Option<Reach>,
    /// For the mount.
    pub attributes: Attributes,
    /// For the mount and all below it.
    pub below: Attributes,
    /// The propagation types, in their order, and how far each reaches.
    pub propagation: Vec<(MsFlags, Reach)>,
    /// For the file system: names, and their values if they have one.
    pub data: Vec<(String, Option<String>)>,
}

/// An attribute: the name that sets it, the names that clear it, its bits.
const ATTRIBUTES: [(&str, &str, u64); 7] = [
    ("ro", "rw", MOUNT_ATTR_RDONLY),
    ("nosuid", "suid", MOUNT_ATTR_NOSUID),
    ("nodev", "dev", MOUNT_ATTR_NODEV),
    ("noexec", "exec", MOUNT_ATTR_NOEXEC),
    ("nodiratime", "diratime", MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", "symfollow", MOUNT_ATTR_NOSYMFOLLOW),
    ("noatime", "atime", MOUNT_ATTR_NOATIME),
];

const PROPAGATION: [(&str, MsFlags); 4] = [
    ("private", MsFlags::MS_PRIVATE),
    ("shared", MsFlags::MS_SHARED),
    ("slave", MsFlags::MS_SLAVE),
    ("unbindable", MsFlags::MS_UNBINDABLE),
];

/// The propagation type of this name, such as `rslave`.
pub(crate) fn propagation(name: &str) -> Option<(MsFlags, Reach)> {
    let find = |name: &str| PROPAGATION.iter().find(|(known, _)| *known == name);
    if let Some((_, kind)) = find(name) {
        return Some((*kind, Reach::Alone));
    }
    let (_, kind) = find(name.strip_prefix('r')?)?;
    Some((*kind, Reach::Below))
}

/// What an attribute's name sets and clears.
fn attribute(name: &str) -> Option<(u64, u64)> {
    for (set, clear, bits) in ATTRIBUTES {
        if name == set {
            return Some((bits, 0));
        }
        if name == clear {
            return Some((0, bits));
        }
    }
    match name {
        "relatime" | "nostrictatime" => Some((MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME)),
        "strictatime" | "norelatime" => Some((MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME)),
        _ => None,
    }
}

/// Options of mount(8) that mean nothing here.
const IGNORED: [&str; 9] = [
    "defaults",
    "async",
    "loud",
    "silent",
    "nomand",
    "noiversion",
    "nolazytime",
    "copysymlinks",
    "rdefaults",
];

impl Options {
    /// Sorts options. Whatever is not known belongs to the file system.
    ///
    /// # Errors
    /// An option that is no text, such as an empty one with a value.
    pub(crate) fn parse(options: &[String]) -> Result<Options> {
        let mut sorted = Options::default();
        for option in options {
            sorted
                .add(option)
                .with_context(|| format!("option {option:?}"))?;
        }
        ensure!(
            !(sorted.remount && sorted.bind.is_none() && !sorted.data.is_empty()),
            "remount with options of the file system ({}) is not supported",
            sorted.data[0].0
        );
        Ok(sorted)
    }

    fn add(&mut self, option: &str) -> Result<()> {
        if IGNORED.contains(&option) {
            return Ok(());
        }
        match option {
            "bind" => self.bind = Some(Reach::Alone),
            "rbind" => self.bind = Some(Reach::Below),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.id_map = Some(Reach::Alone),
            "ridmap" => self.id_map = Some(Reach::Below),
            _ => {
                if let Some(kind) = propagation(option) {
                    self.propagation.push(kind);
                } else if let Some((set, clear)) = attribute(option) {
                    self.attributes.change(set, clear);
                } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
                    self.below.change(set, clear);
                } else {
                    self.data.push(datum(option)?);
                }
            }
        }
        Ok(())
    }
}

fn datum(option: &str) -> Result<(String, Option<String>)> {
    if option.contains('\0') {
        bail!("it contains a NUL byte");
    }
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (option, None),
    };
    ensure!(!name.is_empty(), "it has no name");
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Options {
        let options: Vec<String> = text.split_whitespace().map(String::from).collect();
        Options::parse(&options).unwrap()
    }

    #[test]
    fn options_are_sorted() {
        let all = parse("rbind rprivate ro nosuid rnoexec size=64k mode=755 noswap tmpcopyup");
        assert_eq!(all.bind, Some(Reach::Below));
        assert_eq!(all.propagation, [(MsFlags::MS_PRIVATE, Reach::Below)]);
        assert_eq!(all.attributes.set, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID);
        assert_eq!(all.below.set, MOUNT_ATTR_NOEXEC);
        assert!(all.copy_up);
        let data: Vec<_> = all.data.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(data, ["size", "mode", "noswap"]);
    }

    #[test]
    fn of_two_the_later_counts() {
        assert_eq!(parse("ro rw").attributes.set, 0);
        assert_eq!(parse("ro rw").attributes.clear, MOUNT_ATTR_RDONLY);
        assert_eq!(parse("rw ro").attributes.set, MOUNT_ATTR_RDONLY);
        let times = parse("noatime strictatime").attributes;
        assert_eq!(times.set, MOUNT_ATTR_STRICTATIME);
        assert_eq!(times.clear & MOUNT_ATTR__ATIME, MOUNT_ATTR__ATIME);
        assert_eq!(parse("noatime relatime").attributes.set, 0);
        assert_eq!(parse("rslave").propagation[0].1, Reach::Below);
        assert!(parse("defaults async").attributes.is_empty());
    }

    #[test]
    fn what_no_kernel_takes_is_refused() {
        for bad in ["=x", "a\0b"] {
            assert!(Options::parse(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
        let remount = ["remount".to_owned(), "size=1m".to_owned()];
        assert!(Options::parse(&remount).is_err());
    }
}
