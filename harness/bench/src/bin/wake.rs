//! `wake`: sets the clock of a resumed machine and reseeds its random numbers,
//! which would otherwise be the same in all machines that resume from one
//! image. `vm/init` runs it first.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use check::sys::add_entropy;
use clap::Parser;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

/// Set the clock and stir the random numbers of a machine that was resumed
#[derive(Parser)]
struct Args {
    /// The time, in seconds since 1970
    now: f64,

    /// A file of random bytes, which is removed
    seed: std::path::PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let now = Duration::try_from_secs_f64(args.now).context("a time since 1970")?;
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(now))
        .context("clock_settime")?;
    let seed = fs::read(&args.seed).with_context(|| format!("read {}", args.seed.display()))?;
    fs::remove_file(&args.seed).with_context(|| format!("unlink {}", args.seed.display()))?;
    add_entropy(&seed)
}
