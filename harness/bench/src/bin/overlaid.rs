//! `overlaid LOWERDIR DIR COMMAND…`: runs a command with an overlay mounted on
//! `DIR/merged`.
//!
//! drydock and the engines make a layer for each container and remove it at its
//! end; an OCI runtime is given a root that somebody else has mounted. The bench
//! starts runtimes by this, so that all are charged with the same work. It does
//! as little as `floor` does.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use bench::scratch::mount_overlay;
use nix::mount::{MntFlags, umount2};

/// The directories of the overlay.
const PARTS: [&str; 3] = ["upper", "work", "merged"];

fn main() -> Result<ExitCode> {
    let mut words = env::args_os().skip(1);
    let (Some(lower), Some(dir), Some(program)) = (words.next(), words.next(), words.next()) else {
        eprintln!("usage: overlaid LOWERDIR DIR COMMAND…");
        return Ok(ExitCode::from(125));
    };
    let dir = PathBuf::from(dir);
    let [upper, work, merged] = PARTS.map(|part| dir.join(part));
    for part in [&upper, &work, &merged] {
        fs::create_dir(part).with_context(|| format!("mkdir {}", part.display()))?;
    }
    mount_overlay(lower.as_ref(), &upper, &work, &merged)?;
    let status = Command::new(&program).args(words).status();
    umount2(&merged, MntFlags::empty()).with_context(|| format!("umount {}", merged.display()))?;
    for part in [upper, work, merged] {
        fs::remove_dir_all(&part).with_context(|| format!("rm -r {}", part.display()))?;
    }
    let status = status.with_context(|| format!("run {}", program.display()))?;
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|code| code.try_into().ok())
            .unwrap_or(125),
    ))
}
