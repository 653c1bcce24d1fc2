//! AppArmor and SELinux: labels that the kernel enforces, where it has them
//! (apparmor(7), selinux(8)). What it does not have cannot be asked for.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{PROC_SUPER_MAGIC, fstatfs};

use crate::options::HardenSettings;

/// Refuses labels that this kernel does not enforce.
pub(crate) fn check(settings: &HardenSettings) -> Result<()> {
    if let Some(profile) = settings.apparmor() {
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        ensure!(
            enabled.is_ok_and(|enabled| enabled.trim() == "Y"),
            "apparmor={profile}: this kernel has no AppArmor, or has it switched off \
             (apparmor=1 on its command line)"
        );
        let allowed = |c: char| c.is_ascii_graphic();
        ensure!(
            profile.chars().all(allowed),
            "apparmor={profile:?} is not the name of a profile"
        );
    }
    for label in settings.labels() {
        if label == "disable" {
            continue;
        }
        match Path::new("/sys/fs/selinux/enforce").exists() {
            false => bail!("label={label}: this kernel has no SELinux, or has it switched off"),
            true => bail!("label={label}: only label=disable is supported"),
        }
    }
    Ok(())
}

/// Has the command run under an AppArmor profile: it changes at the next
/// execve(2).
///
/// # Errors
/// `ENOENT` for a profile that is not loaded.
pub fn apparmor(profile: &str) -> Result<()> {
    const NEW: &str = "/proc/thread-self/attr/apparmor/exec";
    let path = if Path::new(NEW).exists() { NEW } else { EXEC };
    let mut file = attribute(path)?;
    file.write_all(format!("exec {profile}").as_bytes())
        .with_context(|| {
            format!("write {profile:?} to {path}: is the profile loaded? See aa-status(8)")
        })
}

const EXEC: &str = "/proc/thread-self/attr/exec";

/// Whether this kernel enforces labels of SELinux.
pub fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Has the command run under a label of SELinux, and gives it to the keyrings
/// that are made for it.
///
/// # Errors
/// `EINVAL` for a label that the policy does not have.
pub fn selinux(label: &str) -> Result<()> {
    for path in ["/proc/thread-self/attr/keycreate", EXEC] {
        attribute(path)?
            .write_all(label.as_bytes())
            .with_context(|| format!("write {label:?} to {path}: does the policy have it?"))?;
    }
    Ok(())
}

/// Opens an attribute, and makes sure that it is the kernel's: the root file
/// system may have put anything in the place of /proc.
fn attribute(path: &str) -> Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .with_context(|| format!("open {path}"))?;
    let kind = fstatfs(&file).context("fstatfs")?.f_type;
    ensure!(
        kind == PROC_SUPER_MAGIC,
        "{path} is not in a proc file system"
    );
    Ok(file)
}
