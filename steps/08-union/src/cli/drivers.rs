//! `step-08 drivers`: the drivers that work here.

use std::io::{Write, stdout};

use anyhow::{Context, Result};
use clap::Args;

use super::StoreArgs;
use crate::detect;
use crate::kind::Kind;

/// The state directory that the drivers would work in.
#[derive(Args, Clone, Debug)]
pub struct DriversArgs {
    #[command(flatten)]
    store: StoreArgs,
}

/// Prints one line per driver. If one was chosen, prints its status as well.
pub fn run(args: DriversArgs) -> Result<()> {
    let root = args.store.root()?;
    let mut out = stdout().lock();
    for kind in Kind::ALL {
        if args.store.driver.is_some_and(|only| only != kind) {
            continue;
        }
        let name = kind.as_str();
        if let Some(reason) = detect::unsupported(kind, &root)? {
            writeln!(out, "{name:<13} unsupported: {reason}").context("write")?;
            continue;
        }
        writeln!(out, "{name:<13} works").context("write")?;
        // Only on request: opening a driver creates pools and images.
        if args.store.driver.is_some() {
            for (key, value) in detect::open(kind, &root)?.status()? {
                writeln!(out, "  {key}: {value}").context("write")?;
            }
        }
    }
    Ok(())
}
