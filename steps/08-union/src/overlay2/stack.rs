//! The overlay mount of a stack of layers, and its options.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind::NotFound;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::say;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, fchdir, setfsgid, setfsuid};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{capabilities, set_capabilities};
use user::held::Users;

use mount::file_system::attach;

use crate::archive::{Marks, OPAQUE_TRUSTED, OPAQUE_USER};
use crate::driver::{Access, View};
use crate::layers::id::LayerId;
use crate::mounts::detached::{self, FileSystem, bind};
use crate::mounts::private::aside;

/// The layers of a view, by their names relative to the driver's directory.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    /// The lowerdirs, the nearest first: `ID/diff`, or `l/LINK`, a link to it.
    pub lower: Vec<String>,
    /// The layer of the upperdir, which takes the changes; without one the view
    /// is read-only.
    pub upper: Option<LayerId>,
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
    fn options(self) -> &'static [Setting] {
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
            .map(|Setting(key, value, why)| {
                let option = match value {
                    Some(value) => format!("{key}={value}"),
                    None => (*key).to_owned(),
                };
                ("Option".to_owned(), format!("{option}: {why}"))
            })
            .collect()
    }
}

/// An option, its value, and its effect in words.
struct Setting(&'static str, Option<&'static str>, &'static str);

const TOO_OLD: &str = "the layers are those of the host's root, and this kernel (before 6.8) \
                       cannot show them in a user namespace: use --userns host, or --driver vfs";

/// A view of a stack of overlay layers.
#[derive(Debug)]
pub(crate) struct StackView {
    directory: PathBuf,
    stack: Stack,
    attributes: Attributes,
    made: Option<OwnedFd>,
}

impl StackView {
    /// A view of `stack`, whose names are relative to `directory`.
    pub(crate) fn new(directory: &Path, stack: Stack, attributes: Attributes) -> Self {
        StackView {
            directory: directory.to_owned(),
            stack,
            attributes,
            made: None,
        }
    }

    /// Makes the mount at once as root of the host, if the kernel supports
    /// detached mounts of overlay: root of a container's user namespace may not
    /// read `trusted.overlay.*`.
    pub(crate) fn made_by_root(mut self) -> Result<Self> {
        if self.attributes == Attributes::Trusted && !self.is_plain() {
            match self.in_directory(Self::by_fsconfig) {
                Ok(made) => self.made = Some(made),
                Err(error) if is_old_kernel(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self)
    }

    /// Makes the mount at once for the users of a user namespace. Overlay is
    /// mounted on ID-mapped mounts of the layers (overlayfs.rst). These need
    /// names, so they are attached in a mount namespace of their own. Needs
    /// Linux 6.8.
    pub(crate) fn made_for(mut self, users: &Users) -> Result<Self> {
        let mount = || {
            self.map_layers(users)?;
            be_owner(users)?;
            match self.is_plain() {
                true => self.plain(),
                false => self.in_directory(Self::by_fsconfig),
            }
        };
        let made = aside(|| {
            mount().map_err(|error| match is_old_kernel(&error) {
                true => error.context(TOO_OLD),
                false => error,
            })
        })?;
        self.made = Some(made);
        Ok(self)
    }

    /// Mounts each layer on itself as an ID-mapped mount for `users`. upperdir
    /// and workdir have to be on one mount.
    fn map_layers(&self, users: &Users) -> Result<()> {
        let upper = self.stack.upper.as_ref().map(|id| self.directory.join(id));
        let lower = self
            .stack
            .lower
            .iter()
            .map(|name| self.directory.join(name));
        for layer in lower.chain(upper) {
            let path = fs::canonicalize(&layer).with_context(|| format!("realpath({layer:?})"))?;
            let shown = bind(&path, Access::ReadWrite)?;
            detached::map_ids(&shown, users.as_fd()).with_context(|| format!("layer {layer:?}"))?;
            attach(&shown, &path)?;
        }
        Ok(())
    }

    /// Whether the stack is a single directory, which needs no overlay: overlay
    /// wants two.
    fn is_plain(&self) -> bool {
        self.stack.lower.len() + usize::from(self.stack.upper.is_some()) == 1
    }

    fn plain(&self) -> Result<OwnedFd> {
        let path = match (&self.stack.upper, self.stack.lower.first()) {
            (Some(id), _) => self.directory.join(id).join("diff"),
            (None, Some(only)) => self.directory.join(only),
            (None, None) => bail!("a stack of no layers"),
        };
        let path = fs::canonicalize(&path).with_context(|| format!("realpath({path:?})"))?;
        bind(&path, self.access())
    }

    /// Runs `work` in the driver's directory, to which all names are relative,
    /// and returns to the former working directory.
    fn in_directory(&self, work: impl Fn(&Self) -> Result<OwnedFd>) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // The caller may have no access to its working directory. Then there is
        // no way back, and none is needed.
        let before = openat(CWD, ".", flags, Mode::empty());
        let directory = openat(CWD, &self.directory, flags, Mode::empty())
            .with_context(|| format!("open({:?})", self.directory))?;
        fchdir(&directory).with_context(|| format!("fchdir({:?})", self.directory))?;
        let done = work(self);
        match before {
            Ok(before) => fchdir(&before).with_context(|| {
                let path = fs::read_link(format!("/proc/self/fd/{}", before.as_raw_fd()));
                format!("fchdir({:?}), back again", path.unwrap_or_default())
            })?,
            Err(_) => chdir("/").context("chdir(\"/\")")?,
        }
        done
    }

    fn access(&self) -> Access {
        match self.stack.upper {
            Some(_) => Access::ReadWrite,
            None => Access::ReadOnly,
        }
    }

    fn upper_and_work(&self) -> Option<(String, String)> {
        let id = self.stack.upper.as_ref()?;
        Some((format!("{id}/diff"), format!("{id}/work")))
    }

    /// Mounts with one fsconfig(2) call per layer, so that no page of options
    /// limits them. Since Linux 6.8.
    fn by_fsconfig(&self) -> Result<OwnedFd> {
        // ANCHOR: exercise_mount_the_overlay
        let overlay = self.file_system()?;
        for lower in &self.stack.lower {
            overlay.set("lowerdir+", lower)?;
        }
        detached::mount(overlay, self.access(), self.access())
        // ANCHOR_END: exercise_mount_the_overlay
    }

    // ANCHOR: file_system
    fn file_system(&self) -> Result<FileSystem> {
        // ANCHOR: exercise_mount_the_overlay
        let overlay = FileSystem::new("overlay")?;
        overlay.set("source", "overlay")?;
        for Setting(key, value, _) in self.attributes.options() {
            match value {
                Some(value) => overlay.set(key, value)?,
                None => overlay.flag(key)?,
            }
        }
        if let Some((upper, work)) = self.upper_and_work() {
            overlay.set("upperdir", upper)?;
            overlay.set("workdir", work)?;
        }
        Ok(overlay)
        // ANCHOR_END: exercise_mount_the_overlay
    }
    // ANCHOR_END: file_system

    /// Mounts with mount(2), for kernels before 6.8: all options in one page.
    /// mount(2) attaches the mount, so this detaches it at once.
    fn by_mount(&self, at: &Path) -> Result<OwnedFd> {
        let mut options: Vec<OsString> = Vec::new();
        for Setting(key, value, _) in self.attributes.options() {
            options.push(match value {
                Some(value) => format!("{key}={value}").into(),
                None => (*key).into(),
            });
        }
        options.push(format!("lowerdir={}", self.stack.lower.join(":")).into());
        if let Some((upper, work)) = self.upper_and_work() {
            options.push(format!("upperdir={upper}").into());
            options.push(format!("workdir={work}").into());
        }
        let options = options.join(OsStr::new(","));
        let flags = match self.access() {
            Access::ReadOnly => MsFlags::MS_RDONLY,
            Access::ReadWrite => MsFlags::empty(),
        };
        say!("overlay: mount(2), {} bytes of options", options.len());
        mount(
            Some("overlay"),
            at,
            Some("overlay"),
            flags,
            Some(options.as_os_str()),
        )
        .with_context(|| format!("mount(overlay, {at:?}, {} layers)", self.stack.lower.len()))?;
        let copy = bind(at, Access::ReadWrite);
        umount2(at, MntFlags::MNT_DETACH)
            .with_context(|| format!("umount2({at:?}, MNT_DETACH)"))?;
        copy
    }

    fn overlaid(&self) -> Result<OwnedFd> {
        match self.by_fsconfig() {
            Err(error) if is_old_kernel(&error) => {
                say!("overlay: {error:#}; once more in the old way");
                let at = match &self.stack.upper {
                    Some(id) => PathBuf::from(id.as_str()).join("merged"),
                    None => PathBuf::from("l"),
                };
                self.by_mount(&at)
                    .map_err(|second| second.context(format!("{error:#}; and in the old way")))
            }
            done => done,
        }
    }
}

/// Gives this process the file system IDs of root of `users` and keeps its
/// capabilities. Overlay creates files in upperdir and workdir with the
/// credentials of the process that mounts it, and root of the host is not
/// mapped there.
fn be_owner(users: &Users) -> Result<()> {
    let sets = capabilities(None).context("capget")?;
    setfsgid(users.gid);
    setfsuid(users.uid);
    // These calls have no errors: they return the previous ID.
    if setfsgid(users.gid) != users.gid || setfsuid(users.uid) != users.uid {
        bail!("setfsuid({}), setfsgid({}): refused", users.uid, users.gid);
    }
    // Leaving UID 0 has cleared some of them: setfsuid(2).
    set_capabilities(None, sets).context("capset")
}

/// Whether overlay in this kernel does not know `lowerdir+` (`EINVAL`), or
/// fsopen(2) is missing (`ENOSYS`).
fn is_old_kernel(error: &anyhow::Error) -> bool {
    let errno = error.downcast_ref::<Errno>();
    matches!(errno, Some(Errno::EINVAL | Errno::ENOSYS))
}

impl View for StackView {
    fn detached(&mut self) -> Result<OwnedFd> {
        if let Some(made) = self.made.take() {
            return Ok(made);
        }
        if self.is_plain() {
            return self.plain();
        }
        if self.attributes != Attributes::of_caller()? {
            bail!("{TOO_OLD}");
        }
        self.in_directory(Self::overlaid)
    }

    fn keeps(&self) -> Option<BorrowedFd<'_>> {
        self.made.as_ref().map(AsFd::as_fd)
    }

    fn handed_over(&mut self) {
        self.made = None;
    }
}
