//! `harness run PLAN`: runs a plan and prints the records, one line of JSON
//! each.

use std::fs;
use std::io::stdout;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use check::fence::{self, Fence};
use check::own_host::OwnHost;
use check::runner;
use vm::guest::Orders;

/// Arguments of `harness run`.
#[derive(clap::Args)]
pub struct Args {
    /// A plan as JSON
    plan: PathBuf,

    /// Run it in mounts, network, IPC objects and host name of its own: a
    /// program under test may do harm
    #[arg(long)]
    own_host: bool,
}

/// Runs the plan. A check that fails is a record, not an error.
pub fn run(args: Args) -> Result<ExitCode> {
    let text = fs::read(&args.plan).with_context(|| format!("read {}", args.plan.display()))?;
    let orders: Orders =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", args.plan.display()))?;
    let _own = args.own_host.then(OwnHost::enter).transpose()?;
    let fence = match orders.plan.untrusted {
        true => Some(Fence::put_up(&orders.plan, &args.plan)?),
        false => None,
    };
    runner::run_behind(fence.as_ref(), &orders.plan, &mut |record| {
        let json = serde_json::to_vec(&record).context("write a record as JSON")?;
        fence::write_line(stdout(), orders.token.as_deref(), &json)
    })?;
    Ok(ExitCode::SUCCESS)
}
