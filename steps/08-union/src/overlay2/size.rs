//! The size of a container's layer: a project quota of the file system below.
//! overlay itself counts nothing.
//!
//! upperdir and workdir get a project, and whatever is made in them inherits it:
//! files that the container makes, and copies that overlay makes for it, which
//! begin in the workdir. Both have the same one, since a file cannot be renamed
//! from one project into another (`EXDEV`).

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Error, Result, bail};
use kit::say;
use kit::sys::quota::{
    ProjectUsage, enforces_projects, limit_project, project, project_usage, set_project,
};
use nix::errno::Errno;

/// The numbers of ours: of a range that nobody gives by hand (projid(5)).
const FIRST: u32 = 1 << 30;

/// How often a number is drawn that somebody has already.
const DRAWS: usize = 16;

/// Limits the files of a layer to `bytes`. Nobody uses the layer.
///
/// # Errors
/// If the file system has no project quotas, or does not enforce them.
// ANCHOR: limit
pub(super) fn limit(layer: &Path, bytes: u64) -> Result<()> {
    let (own, diff, work) = (
        open(layer)?,
        open(&layer.join("diff"))?,
        open(&layer.join("work"))?,
    );
    let on = work.as_fd();
    if !enforces_projects(on).map_err(|errno| without(layer, "quotactl(Q_XGETQSTATV)", errno))? {
        bail!(
            "{}",
            without(layer, "limits are not enforced", Errno::ENOSYS)
        );
    }
    let failed = |errno| without(layer, "quotactl(Q_SETQUOTA)", errno);
    let number = match own_project(&own, &work) {
        Some(number) => number,
        None => unused(&work).map_err(failed)?,
    };
    say!("overlay2: project {number} of {layer:?} may have {bytes} bytes");
    // Before anything is in them; whoever is killed in between begins again.
    limit_project(on, number, bytes.max(1024)).map_err(failed)?;
    for directory in [&diff, &work] {
        set_project(directory.as_fd(), number)
            .map_err(|errno| without(layer, "ioctl(FS_IOC_FSSETXATTR)", errno))?;
    }
    Ok(())
}
// ANCHOR_END: limit

/// Removes the limit of a layer, which is about to be removed, if it has one.
pub(super) fn forget(layer: &Path) -> Result<()> {
    let (own, work) = (open(layer)?, open(&layer.join("work"))?);
    if let Some(number) = own_project(&own, &work)
        && let Err(errno) = limit_project(work.as_fd(), number, 0)
    {
        say!("quotactl(Q_SETQUOTA, project {number}, 0): {errno}");
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("open({path:?})"))
}

/// The project of a layer; `None` if it has none but that of its surroundings.
fn own_project(layer: &File, work: &File) -> Option<u32> {
    let number = project(work.as_fd()).ok()?;
    let inherited = project(layer.as_fd()).ok()?;
    (number != inherited && number != 0).then_some(number)
}

/// A number that nobody uses. By chance, so that two engines on one file system
/// need not know of each other.
fn unused(on: &File) -> nix::Result<u32> {
    for _ in 0..DRAWS {
        let bytes = kit::random::bytes::<4>().map_err(|_| Errno::EIO)?;
        let number = FIRST | u32::from_ne_bytes(bytes) >> 2;
        if project_usage(on.as_fd(), number)? == ProjectUsage::default() {
            return Ok(number);
        }
    }
    Err(Errno::EUSERS)
}

fn without(layer: &Path, call: &str, errno: Errno) -> Error {
    let what = format!("--storage-opt size: {layer:?}: {call}");
    Error::new(errno).context(match errno {
        Errno::EPERM => format!("{what}: a size takes root (CAP_SYS_ADMIN)"),
        Errno::EUSERS => format!("{what}: no free project"),
        _ => format!(
            "{what}: this takes Linux 5.14, and a file system that has project quotas and is \
             mounted with the option prjquota: xfs, or ext4 made by mkfs.ext4 -O project,quota"
        ),
    })
}
