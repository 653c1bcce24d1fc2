//! `--tmpfs DST[:OPTIONS]`: an empty file system in memory, which ends with the
//! container. tmpfs(5).

use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::detached::{Detached, FsOption, MountAttrFlags};
use crate::proc_sys::INERT;
use crate::target::Target;
use kit::errno::is;

/// A `--tmpfs` option, checked as far as possible without the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tmpfs {
    pub(crate) target: Target,
    attributes: MountAttrFlags,
    /// The options of the file system itself: `size=64m`, `mode=700`…
    options: Vec<(String, Option<String>)>,
}

impl Tmpfs {
    /// Parses `DST` or `DST:OPTION,OPTION=VALUE…`. As in Docker, the mount is
    /// `rw,nosuid,nodev,noexec` unless the options say otherwise.
    ///
    /// # Errors
    /// Quotes the option and says what is wrong with it. Names and values that
    /// tmpfs does not accept are found in [`make`](Self::make), by the kernel.
    pub(crate) fn parse(option: &str) -> Result<Self> {
        Self::read(option).with_context(|| format!("--tmpfs {option}"))
    }

    fn read(option: &str) -> Result<Self> {
        let (target, list) = option.split_once(':').unwrap_or((option, ""));
        if target.is_empty() {
            bail!("DST is empty: a tmpfs is DST or DST:OPTIONS, as in /run:size=64m,mode=755");
        }
        let mut tmpfs = Tmpfs {
            target: Target::new(Path::new(target))?,
            attributes: INERT,
            options: Vec::new(),
        };
        for word in list.split(',').filter(|word| !word.is_empty()) {
            match attribute(word) {
                Some((flag, set)) => {
                    // The rules for access times exclude one another.
                    if ACCESS_TIMES.contains(flag) {
                        tmpfs.attributes.remove(ACCESS_TIMES);
                    }
                    tmpfs.attributes.set(flag, set);
                }
                None if MEANINGLESS.contains(&word) => {}
                None => tmpfs.options.push(match word.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (word.to_owned(), None),
                }),
            }
        }
        Ok(tmpfs)
    }

    /// Makes the file system. If its target existed before, it inherits the
    /// mode, user and group of that directory (`over`), unless the options set
    /// them.
    ///
    /// # Errors
    /// `EINVAL`, with the kernel's message, for an option that tmpfs rejects.
    pub(crate) fn make(&self, over: Option<FileStat>) -> Result<Detached> {
        let mut inherited = over.map(|stat| self.inherited(&stat)).unwrap_or_default();
        let make = |inherited: &[(&'static str, String)]| {
            let inherited = inherited
                .iter()
                .map(|(name, value)| (*name, Some(value.as_str())));
            let given = self
                .options
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_deref()));
            let options: Vec<FsOption<'_>> = inherited.chain(given).collect();
            Detached::new("tmpfs", &options, self.attributes)
        };
        match make(&inherited) {
            // The owner of that directory is not mapped in this user namespace.
            Err(error)
                if is(&error, &[Errno::EINVAL])
                    && inherited.iter().any(|(name, _)| *name != "mode") =>
            {
                inherited.retain(|(name, _)| *name == "mode");
                make(&inherited)
            }
            made => made,
        }
    }

    /// The options for the mode, user and group of a directory, except those
    /// that are given.
    fn inherited(&self, stat: &FileStat) -> Vec<(&'static str, String)> {
        let mut inherited = vec![
            ("mode", format!("{:o}", stat.st_mode & 0o7777)),
            ("uid", stat.st_uid.to_string()),
            ("gid", stat.st_gid.to_string()),
        ];
        inherited.retain(|(name, value)| {
            let given = self.options.iter().any(|(option, _)| option == name);
            !given && (*name == "mode" || value != "0")
        });
        inherited
    }
}

const ACCESS_TIMES: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOATIME.union(MountAttrFlags::MOUNT_ATTR_STRICTATIME);

/// Options that Docker takes and that say what a tmpfs is anyway.
const MEANINGLESS: [&str; 4] = ["defaults", "async", "private", "rprivate"];

/// The mount attribute for an option of mount(8), and whether to set or to
/// clear it. `None` for an option of the file system.
fn attribute(word: &str) -> Option<(MountAttrFlags, bool)> {
    let (flag, set) = match word {
        "ro" => (MountAttrFlags::MOUNT_ATTR_RDONLY, true),
        "rw" => (MountAttrFlags::MOUNT_ATTR_RDONLY, false),
        "nosuid" => (MountAttrFlags::MOUNT_ATTR_NOSUID, true),
        "suid" => (MountAttrFlags::MOUNT_ATTR_NOSUID, false),
        "nodev" => (MountAttrFlags::MOUNT_ATTR_NODEV, true),
        "dev" => (MountAttrFlags::MOUNT_ATTR_NODEV, false),
        "noexec" => (MountAttrFlags::MOUNT_ATTR_NOEXEC, true),
        "exec" => (MountAttrFlags::MOUNT_ATTR_NOEXEC, false),
        "noatime" => (MountAttrFlags::MOUNT_ATTR_NOATIME, true),
        "strictatime" => (MountAttrFlags::MOUNT_ATTR_STRICTATIME, true),
        // The kernel's default.
        "atime" | "relatime" | "nostrictatime" => (MountAttrFlags::MOUNT_ATTR_NOATIME, false),
        "nodiratime" => (MountAttrFlags::MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (MountAttrFlags::MOUNT_ATTR_NODIRATIME, false),
        _ => return None,
    };
    Some((flag, set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_mount_and_of_the_file_system_are_told_apart() {
        let tmpfs = Tmpfs::parse("/run:size=64m,exec,ro,inode64").unwrap();
        assert_eq!(tmpfs.target.to_string(), "/run");
        assert_eq!(
            tmpfs.attributes,
            MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_RDONLY
        );
        let options = [
            ("size".to_owned(), Some("64m".to_owned())),
            ("inode64".to_owned(), None),
        ];
        assert_eq!(tmpfs.options, options);
        let tmpfs = Tmpfs::parse("/run:defaults,private,noatime,strictatime,nodiratime").unwrap();
        assert_eq!(
            tmpfs.attributes,
            INERT | MountAttrFlags::MOUNT_ATTR_STRICTATIME | MountAttrFlags::MOUNT_ATTR_NODIRATIME
        );
        assert_eq!(tmpfs.options, []);
    }

    #[test]
    fn what_is_wrong_with_a_tmpfs_is_said() {
        for (option, why) in [("", "empty"), (":size=1m", "empty"), ("run", "relative")] {
            let error = format!("{:#}", Tmpfs::parse(option).unwrap_err());
            assert!(error.contains(why), "{option:?}: {error}");
        }
    }
}
