//! `harness restore`: removes the remains of an interrupted run.

use std::process::ExitCode;

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use check::restore::{Broom, cgroups, devices, files, mounts, network, running};

/// Arguments of `harness restore`.
#[derive(clap::Args)]
pub struct Args {
    /// Only list what would be removed
    #[arg(long)]
    dry_run: bool,

    /// Also end programs of Drydock that still run
    #[arg(long)]
    force: bool,

    /// Remove images, layers and volumes too
    #[arg(long)]
    all: bool,
}

/// Removes what interrupted runs of ours left on this host, and only that, and
/// prints what it removes. Order matters: processes hold everything, mounts
/// hold devices and files. Without `--force` it fails if a program of ours
/// still runs.
pub fn restore(args: Args) -> Result<ExitCode> {
    let mut broom = Broom::new(args.dry_run);
    let running = running::ours()?;
    if args.force {
        running::end(&mut broom, &running);
    } else if let Some(first) = running.first() {
        bail!(
            "{} still runs as process {} ({} of ours in all): end it first, or give --force",
            first.comm,
            first.pid,
            running.len()
        );
    }
    cgroups::sweep(&mut broom)?;
    network::sweep(&mut broom)?;
    mounts::sweep(&mut broom)?;
    devices::sweep(&mut broom);
    files::sweep(&mut broom, args.all)?;
    let failed = broom.end();
    if failed > 0 && !geteuid().is_root() {
        println!("Some of it is root's: sudo ./just restore");
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}
