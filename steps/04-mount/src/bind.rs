//! `--bind SRC:DST[:ro]`: a directory or a file of the host, mounted in the
//! container. open_tree(2), move_mount(2).

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::detached::Detached;
use crate::target::Target;

/// A `--bind` option, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    source: PathBuf,
    pub(crate) target: Target,
    pub(crate) read_only: bool,
    /// Whether the mounts below the source are omitted.
    alone: bool,
}

impl Bind {
    /// Parses `SRC:DST` or `SRC:DST:MODE,…`, and checks that the source exists.
    /// A relative source is resolved from the working directory. The modes are
    /// `ro`, `rw`, and `nonrecursive`, which omits the mounts below the source.
    ///
    /// # Errors
    /// Quotes the option and says what is wrong with it.
    pub(crate) fn parse(option: &OsStr) -> Result<Self> {
        Self::read(option).with_context(|| format!("--bind {}", option.display()))
    }

    fn read(option: &OsStr) -> Result<Self> {
        let parts: Vec<&OsStr> = option
            .as_bytes()
            .split(|byte| *byte == b':')
            .map(OsStr::from_bytes)
            .collect();
        let (source, target, mode) = match parts[..] {
            [source, target] => (source, target, OsStr::new("rw")),
            [source, target, mode] => (source, target, mode),
            _ => bail!("use SRC:DST or SRC:DST:ro, as in /srv/data:/data:ro"),
        };
        if source.is_empty() || target.is_empty() {
            bail!("SRC or DST is empty: use SRC:DST or SRC:DST:ro");
        }
        let (mut read_only, mut alone) = (false, false);
        for word in mode.as_bytes().split(|byte| *byte == b',') {
            match word {
                b"ro" => read_only = true,
                b"rw" => read_only = false,
                b"nonrecursive" => alone = true,
                _ => bail!("the mode after DST is ro, rw or nonrecursive, not {mode:?}"),
            }
        }
        let bind = Self::of(Path::new(source), Path::new(target))?;
        Ok(Bind {
            read_only,
            alone,
            ..bind
        })
    }

    /// A read-write bind of `source` on the host to `target` inside.
    ///
    /// # Errors
    /// Refuses a source that does not exist, and a target that cannot be a
    /// mount point.
    pub(crate) fn of(source: &Path, target: &Path) -> Result<Self> {
        let target = Target::new(target)?;
        let source = source.canonicalize().with_context(|| {
            format!("realpath({source:?}), the source on the host: make it first")
        })?;
        Ok(Bind {
            source,
            target,
            read_only: false,
            alone: false,
        })
    }

    /// Copies the source's mount: open_tree(2). Must be called before the root
    /// is changed, while paths are the host's.
    pub(crate) fn take(&self) -> Result<Detached> {
        if !self.alone {
            return Detached::copy_of(&self.source);
        }
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let source = open(&self.source, flags, Mode::empty())
            .with_context(|| format!("open({:?})", self.source))?;
        Detached::copy_of_fd_alone(source.as_fd(), &self.source)
    }

    /// The option, for error messages.
    pub(crate) fn option(&self) -> String {
        format!("--bind {}:{}", self.source.display(), self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_has_two_or_three_parts() {
        let bind = Bind::parse(OsStr::new("/:/data:ro")).unwrap();
        assert!(bind.read_only);
        assert_eq!(bind.target.to_string(), "/data");
        assert!(!Bind::parse(OsStr::new("/:/data")).unwrap().read_only);
    }

    #[test]
    fn what_is_wrong_with_a_bind_is_said() {
        for (option, why) in [
            ("", "use SRC:DST"),
            ("/srv", "use SRC:DST"),
            ("/:/a:ro:z", "use SRC:DST"),
            (":/a", "empty"),
            ("/:", "empty"),
            ("/:/a:readonly", "ro, rw or"),
            ("/:a", "relative"),
            ("/:/a/../b", ".."),
            ("/:/", "the root itself"),
            ("/no/such:/a", "realpath(\"/no/such\")"),
        ] {
            let error = format!("{:#}", Bind::parse(OsStr::new(option)).unwrap_err());
            assert!(error.contains(why), "{option:?}: {error}");
            assert!(error.starts_with("--bind "), "{option:?}: {error}");
        }
    }
}
