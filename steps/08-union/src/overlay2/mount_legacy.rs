//! The overlay mount on kernels before 6.8, by mount(2): all options in one page
//! of 4096 bytes, and attached where it is made.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use kit::errno::is;
use kit::say;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};

use crate::driver::Access;
use crate::mounts::detached::bind;

use super::options::{Attributes, Stack};

/// Whether overlay in this kernel does not know `lowerdir+` (`EINVAL`), or
/// fsopen(2) is missing (`ENOSYS`).
pub(super) fn is_old_kernel(error: &anyhow::Error) -> bool {
    is(error, &[Errno::EINVAL, Errno::ENOSYS])
}

/// Mounts the stack, whose names are relative to the working directory, on a
/// directory of the driver's layout, and detaches the mount at once.
pub(super) fn mount(stack: &Stack, attributes: Attributes) -> Result<OwnedFd> {
    let at = match &stack.upper {
        Some(id) => PathBuf::from(id.as_str()).join("merged"),
        None => PathBuf::from("l"),
    };
    let settings = attributes.options().iter();
    let mut options: Vec<OsString> = settings.map(|s| s.to_string().into()).collect();
    options.push(format!("lowerdir={}", stack.lower.join(":")).into());
    if let Some((upper, work)) = stack.upper_and_work() {
        options.push(format!("upperdir={upper}").into());
        options.push(format!("workdir={work}").into());
    }
    let options = options.join(OsStr::new(","));
    let flags = match stack.access() {
        Access::ReadOnly => MsFlags::MS_RDONLY,
        Access::ReadWrite => MsFlags::empty(),
    };
    say!("overlay: mount(2), {} bytes of options", options.len());
    nix::mount::mount(
        Some("overlay"),
        &at,
        Some("overlay"),
        flags,
        Some(options.as_os_str()),
    )
    .with_context(|| format!("mount(overlay, {at:?}, {} layers)", stack.lower.len()))?;
    let copy = bind(&at, Access::ReadWrite);
    umount2(&at, MntFlags::MNT_DETACH).with_context(|| format!("umount2({at:?}, MNT_DETACH)"))?;
    copy
}
