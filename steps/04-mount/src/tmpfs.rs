//! `--tmpfs DST[:OPTIONS]`: an empty file system in memory, gone with the
//! container. tmpfs(5).

use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::detached::{Detached, FsOption, MountAttrFlags};
use crate::proc_sys::INERT;
use crate::target::Target;
use kit::errno::is;

/// A tmpfs that was asked for, checked as far as can be without the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tmpfs {
    pub(crate) target: Target,
    attributes: MountAttrFlags,
    /// What the file system itself shall take: `size=64m`, `mode=700`…
    options: Vec<(String, Option<String>)>,
}

impl Tmpfs {
    /// Reads `DST` or `DST:OPTION,OPTION=VALUE…`. As for Docker, the mount is
    /// `rw,nosuid,nodev,noexec` unless the options say otherwise.
    ///
    /// # Errors
    /// One that quotes the option and says what is wrong with it. Whether tmpfs
    /// takes a name or value, only the kernel knows.
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
                Some((flag, set)) => tmpfs.attributes.set(flag, set),
                None => tmpfs.options.push(match word.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (word.to_owned(), None),
                }),
            }
        }
        Ok(tmpfs)
    }

    /// Makes the file system. Over a directory that was there before, it takes
    /// its mode, user and group, unless the options say others.
    ///
    /// # Errors
    /// `EINVAL`, with the kernel's words, for an option that it does not take.
    pub(crate) fn make(&self, over: Option<FileStat>) -> Result<Detached> {
        let inherited = over.map(|stat| self.inherited(&stat)).unwrap_or_default();
        let options: Vec<FsOption<'_>> = inherited
            .iter()
            .map(|(name, value)| (*name, Some(value.as_str())))
            .chain(
                self.options
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_deref())),
            )
            .collect();
        match Detached::new("tmpfs", &options, self.attributes) {
            // Nobody in this user namespace is the owner of that directory.
            Err(error) if inherited.len() > 1 && is(&error, &[Errno::EINVAL]) => {
                let rest = &options[inherited.len()..];
                let options: Vec<_> = options[..1].iter().chain(rest).copied().collect();
                Detached::new("tmpfs", &options, self.attributes)
            }
            made => made,
        }
    }

    /// The mode first.
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

/// The options of mount(8) that are about the mount, not about the file system.
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
    }

    #[test]
    fn what_is_wrong_with_a_tmpfs_is_said() {
        for (option, why) in [("", "empty"), (":size=1m", "empty"), ("run", "relative")] {
            let error = format!("{:#}", Tmpfs::parse(option).unwrap_err());
            assert!(error.contains(why), "{option:?}: {error}");
        }
    }
}
