//! Detection of the drivers that work on this machine, with the reason for each
//! that does not.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use rustix::process::geteuid;

use crate::aufs::Aufs;
use crate::driver::StorageDriver;
use crate::kind::Kind;
use crate::layers::id::LayerId;
use crate::layers::lineage::layers_in;
use crate::overlay2::Overlay2;
use crate::overlay2::trial;
use crate::trees::btrfs::{Btrfs, is_btrfs};
use crate::trees::devicemapper::Devicemapper;
use crate::trees::program;
use crate::trees::vfs::Vfs;
use kit::own::is_there;

/// Why a driver does not work with the state directory `root` on this machine;
/// `None` if it works.
pub fn unsupported(kind: Kind, root: &Path) -> Result<Option<String>> {
    Ok(match kind {
        Kind::Overlay2 => match lacks_overlay()? {
            None => trial::refused(root)?,
            lacks => lacks,
        },
        Kind::Aufs => crate::aufs::unsupported(),
        Kind::Btrfs => btrfs(root)?,
        Kind::Devicemapper => devicemapper(),
        Kind::Vfs => None,
    })
}

fn lacks_overlay() -> Result<Option<String>> {
    Ok((!has_file_system("overlay")?).then(|| {
        "this kernel has no overlay file system (CONFIG_OVERLAY_FS; modprobe overlay)".into()
    }))
}

fn btrfs(root: &Path) -> Result<Option<String>> {
    if !geteuid().is_root() {
        return Ok(Some("only root may create and mount a btrfs".into()));
    }
    if !has_file_system("btrfs")? {
        return Ok(Some(
            "this kernel has no btrfs (CONFIG_BTRFS_FS; modprobe btrfs)".into(),
        ));
    }
    kit::own::make(root, 0o711)?;
    if is_btrfs(root)? {
        return Ok(None);
    }
    Ok(missing(&["mkfs.btrfs"]).or_else(no_loop_devices))
}

fn devicemapper() -> Option<String> {
    if !geteuid().is_root() {
        return Some("only root may create block devices".into());
    }
    // Opening this file makes the kernel load the module.
    let control = fs::File::open("/dev/mapper/control").is_ok();
    let misc = fs::read_to_string("/proc/misc").unwrap_or_default();
    if !control && !misc.contains("device-mapper") {
        return Some(
            "this kernel has no device mapper (CONFIG_BLK_DEV_DM; modprobe dm_thin_pool)".into(),
        );
    }
    if let Some(missing) = missing(&["dmsetup", "mkfs.ext4"]).or_else(no_loop_devices) {
        return Some(missing);
    }
    match has_thin_pools() {
        Ok(true) => None,
        Ok(false) => Some(
            "this kernel has no thin pools (CONFIG_DM_THIN_PROVISIONING; modprobe dm_thin_pool)"
                .into(),
        ),
        Err(error) => Some(format!("{error:#}")),
    }
}

fn has_thin_pools() -> Result<bool> {
    let listed =
        || -> Result<bool> { Ok(program::run("dmsetup", &["targets"])?.contains("thin-pool")) };
    if Path::new("/sys/module/dm_thin_pool").exists() || listed()? {
        return Ok(true);
    }
    // A target is listed once its module is loaded. A built-in one has no
    // module to load.
    if let Err(error) = program::run("modprobe", &["-q", "dm_thin_pool"]) {
        kit::say!("{error:#}");
    }
    listed()
}

fn missing(programs: &[&str]) -> Option<String> {
    programs
        .iter()
        .find(|name| program::find(name).is_none())
        .map(|name| format!("the program {name} is missing"))
}

fn no_loop_devices() -> Option<String> {
    let control = fs::metadata("/dev/loop-control");
    match control {
        Ok(control) if control.file_type().is_char_device() => None,
        _ => Some("there are no loop devices (/dev/loop-control; modprobe loop)".into()),
    }
}

/// Whether the kernel has a file system: /proc/filesystems lists it, or
/// fsopen(2) loads its module.
fn has_file_system(name: &'static str) -> Result<bool> {
    let list = "/proc/filesystems";
    let listed = fs::read_to_string(list).with_context(|| format!("read({list})"))?;
    let mut listed = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next_back());
    Ok(listed.any(|listed| listed == name)
        || crate::mounts::detached::FileSystem::new(name).is_ok())
}

/// Opens the driver `kind` below the state directory `root`.
///
/// # Errors
/// If the driver does not work on this machine, with the reason.
pub fn open(kind: Kind, root: &Path) -> Result<Box<dyn StorageDriver>> {
    // No trial mount of overlay: the container's own mount reports what is
    // wrong.
    let reason = match kind {
        Kind::Overlay2 => lacks_overlay()?,
        _ => unsupported(kind, root)?,
    };
    if let Some(reason) = reason {
        return Err(anyhow!(
            "the driver {kind} does not work here: {reason}; step-08 drivers shows those that do"
        ));
    }
    Ok(match kind {
        Kind::Overlay2 => Box::new(Overlay2::open(root)?),
        Kind::Aufs => Box::new(Aufs::open(root)?),
        Kind::Btrfs => Box::new(Btrfs::open(root)?),
        Kind::Devicemapper => Box::new(Devicemapper::open(root)?),
        Kind::Vfs => Box::new(Vfs::open(root)?),
    })
}

/// The default driver: overlay2 if it works, else vfs. The others are used only
/// on request.
pub fn preferred(root: &Path) -> Result<Kind> {
    Ok(match unsupported(Kind::Overlay2, root)? {
        None => Kind::Overlay2,
        Some(_) => Kind::Vfs,
    })
}

/// The layers of the driver `kind` below `root` that belong to containers with
/// random ids of 64 hexadecimal digits, as step 09 assigns them. Does not open
/// the driver. Empty if the driver keeps nothing here.
pub fn container_layers(root: &Path, kind: Kind) -> Result<Vec<LayerId>> {
    let driver = root.join(kind.as_str());
    let layers = match kind {
        Kind::Overlay2 => driver,
        _ => driver.join("layers"),
    };
    if !is_there(&layers)? {
        return Ok(Vec::new());
    }
    let digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    let mut layers = layers_in(&layers)?;
    layers.retain(|id| id.as_str().len() == 64 && id.as_str().chars().all(digit));
    Ok(layers)
}

/// Whether the driver `kind` below `root` has the layer `id`: one call of
/// stat(2), without opening the driver.
pub fn has_layer(root: &Path, kind: Kind, id: &LayerId) -> bool {
    let driver = root.join(kind.as_str());
    match kind {
        Kind::Overlay2 => driver.join(id).join("work").exists(),
        _ => driver.join("layers").join(id).exists(),
    }
}
