//! Removes loop devices over our files, and device-mapper devices with our
//! names: loop(4), dmsetup(8).

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Broom;
use super::files;

/// Removes the device-mapper devices, and then the loop devices that they use.
pub fn sweep(broom: &mut Broom) {
    let places = files::places();
    let mut mapped = Vec::new();
    let mut loops = Vec::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let read = |name| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let name = read("dm/name").trim().to_owned();
        if name.starts_with("drydock-") {
            mapped.push(name);
        }
        let file = read("loop/backing_file");
        let file = Path::new(file.trim_end().trim_end_matches(" (deleted)"));
        if places.iter().any(|place| file.starts_with(place)) {
            let device = format!("/dev/{}", entry.file_name().to_string_lossy());
            loops.push((device, file.to_owned()));
        }
    }
    // A pool has a shorter name than the volumes in it, and goes last.
    mapped.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in mapped {
        broom.take(&format!("device-mapper device {name}"), || {
            run("dmsetup", &["remove", &name])
        });
    }
    for (device, file) in loops {
        broom.take(
            &format!("loop device {device} ({})", file.display()),
            || run("losetup", &["-d", &device]),
        );
    }
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
