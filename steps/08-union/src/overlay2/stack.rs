//! The overlay mount of a stack of layers, by fsopen(2).

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::say;
use nix::unistd::{chdir, fchdir, setfsgid, setfsuid};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{capabilities, set_capabilities};
use user::held::Users;

use mount::file_system::attach;

use crate::driver::{Access, View};
use crate::mounts::detached::{self, FileSystem, bind};
use crate::mounts::private::aside;

use super::mount_legacy::{self, is_old_kernel};
use super::options::{Attributes, Setting, Stack};

/// The error of kernels without ID-mapped layers or detached mounts of overlay.
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
        bind(&path, self.stack.access())
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

    /// Mounts with one fsconfig(2) call per layer, so that no page of options
    /// limits them. Since Linux 6.8.
    fn by_fsconfig(&self) -> Result<OwnedFd> {
        // ANCHOR: exercise_mount_the_overlay
        let overlay = self.file_system()?;
        for lower in &self.stack.lower {
            overlay.set("lowerdir+", lower)?;
        }
        detached::mount(overlay, self.stack.access(), self.stack.access())
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
        if let Some((upper, work)) = self.stack.upper_and_work() {
            overlay.set("upperdir", upper)?;
            overlay.set("workdir", work)?;
        }
        Ok(overlay)
        // ANCHOR_END: exercise_mount_the_overlay
    }
    // ANCHOR_END: file_system

    fn overlaid(&self) -> Result<OwnedFd> {
        match self.by_fsconfig() {
            Err(error) if is_old_kernel(&error) => {
                say!("overlay: {error:#}; trying mount(2)");
                mount_legacy::mount(&self.stack, self.attributes)
                    .map_err(|second| second.context(format!("{error:#}; and by mount(2)")))
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
