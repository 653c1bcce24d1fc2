//! The options of an overlay mount: its layers, and the settings of each mount
//! (overlayfs.rst).

use std::fmt;
use std::fs;
use std::io::ErrorKind::NotFound;

use anyhow::{Context, Result};

use crate::archive::{Marks, OPAQUE_TRUSTED, OPAQUE_USER};
use crate::driver::Access;
use crate::layers::id::LayerId;

/// The layers of a view, by their names relative to the driver's directory.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    /// The lowerdirs, the nearest first: `ID/diff`, or `l/LINK`, a link to it.
    pub lower: Vec<String>,
    /// The layer of the upperdir, which takes the changes; without one the view
    /// is read-only.
    pub upper: Option<LayerId>,
}

impl Stack {
    /// Writable with an upperdir, else read-only.
    pub(super) fn access(&self) -> Access {
        match self.upper {
            Some(_) => Access::ReadWrite,
            None => Access::ReadOnly,
        }
    }

    /// The values of the options upperdir and workdir.
    pub(super) fn upper_and_work(&self) -> Option<(String, String)> {
        let id = self.upper.as_ref()?;
        Some((format!("{id}/diff"), format!("{id}/work")))
    }
}

/// The namespace of the extended attributes in which overlay keeps its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attributes {
    /// `trusted.overlay.*`: only root of the host sees and sets them, so nobody
    /// in a container can forge a mark, or see one.
    Trusted,
    /// `user.overlay.*` (option `userxattr`): the only ones available to an
    /// unprivileged user. Since Linux 5.11.
    User,
}

impl Attributes {
    /// The attributes that the caller may use: `trusted` for root of the host.
    /// Root of another user namespace has UID 0 as well, so this reads its
    /// uid_map.
    ///
    /// # Errors
    /// If root cannot read its uid_map: a guess could confuse the marks of a
    /// container's users with ours.
    pub(crate) fn of_caller() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Attributes::User);
        }
        let path = "/proc/self/uid_map";
        let is_host = match fs::read_to_string(path) {
            Ok(map) => map.split_whitespace().eq(["0", "0", "4294967295"]),
            // A kernel without user namespaces: root is root of the host.
            Err(error) if error.kind() == NotFound => true,
            Err(error) => return Err(error).context(format!("read {path}")),
        };
        Ok(match is_host {
            true => Attributes::Trusted,
            false => Attributes::User,
        })
    }

    /// The marks that the layers use for deletions.
    pub(crate) fn marks(self) -> Marks {
        let opaque = match self {
            Attributes::Trusted => OPAQUE_TRUSTED,
            Attributes::User => OPAQUE_USER,
        };
        Marks::Overlay { opaque }
    }

    /// The options of every mount. Each is given explicitly, so that nothing
    /// depends on the kernel's build or on module parameters.
    pub(super) fn options(self) -> &'static [Setting] {
        match self {
            Attributes::Trusted => &[
                // If on, a renamed directory becomes a mark that points to its
                // old place, and a diff would hold the mark without the files.
                // `nofollow`, because a layer from outside may contain such a
                // mark. If off, rename(2) of a directory of a lower layer fails
                // with EXDEV, and mv(1) copies it.
                Setting(
                    "redirect_dir",
                    Some("nofollow"),
                    "rename of a lower directory is EXDEV",
                ),
                // If on, the names of one lower file stay one file after
                // copy_up, but the layer then holds only one of them, and its
                // diff would be wrong about the others.
                Setting("index", Some("off"), "copy-up separates hard links"),
                // If on, chmod(2) copies up no content: the diff would hold a
                // file of holes.
                Setting("metacopy", Some("off"), "copy-up copies the content too"),
                // Inode numbers that stay the same after copy_up, if the file
                // system below leaves bits for them.
                Setting("xino", Some("auto"), "stable inode numbers"),
            ],
            // Without privilege the kernel never follows redirects and
            // metacopy, because a user could forge the marks. It rejects these
            // options.
            Attributes::User => &[
                Setting("userxattr", None, "marks are user.overlay.*"),
                Setting("index", Some("off"), "copy-up separates hard links"),
                Setting("xino", Some("auto"), "stable inode numbers"),
            ],
        }
    }

    /// The options with their explanations, as
    /// [`status`](crate::StorageDriver::status) shows them.
    pub(crate) fn explained(self) -> Vec<(String, String)> {
        self.options()
            .iter()
            .map(|setting| {
                let Setting(_, _, why) = setting;
                ("Option".to_owned(), format!("{setting}: {why}"))
            })
            .collect()
    }
}

/// An option, its value, and its effect in words.
pub(super) struct Setting(pub &'static str, pub Option<&'static str>, pub &'static str);

impl fmt::Display for Setting {
    /// As mount(8) takes it: `KEY=VALUE`, or `KEY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting(key, Some(value), _) => write!(f, "{key}={value}"),
            Setting(key, None, _) => f.write_str(key),
        }
    }
}
