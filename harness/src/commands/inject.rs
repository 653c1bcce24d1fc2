//! `harness inject`: injects faults into every call of a launch, one at a time.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use check::report::{progress, seconds};
use check::share::Share;
use check::{build, workspace};
use inject::exceptions::{self, Exception};
use inject::forms::FORMS;
use inject::ground::Place;
use inject::plan::Planned;
use inject::run::{Plan, matches};
use inject::table::{self, Record};
use inject::verdict::Verdict;

/// Arguments of `harness inject`.
#[derive(clap::Args)]
pub struct Args {
    /// Only these forms of run [default: all]
    #[arg(long, value_name = "FORM")]
    form: Vec<String>,

    /// Only the K-th of every N faults
    #[arg(long, value_name = "K/N")]
    share: Option<Share>,

    /// Only faults of this call, with this errno, or on this path
    #[arg(long, value_name = "CALL")]
    filter: Option<String>,

    /// Only the fault with this number
    #[arg(long, value_name = "N")]
    only: Option<usize>,

    /// Print the faults and inject none
    #[arg(long)]
    list: bool,

    /// Print the verdict of every fault
    #[arg(long)]
    verbose: bool,

    /// Also write the verdicts to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Instead of all that, run the first form once, and make the launcher's
    /// N-th call of this name wait
    #[arg(long, num_args = 3, value_names = ["CALL", "N", "MILLISECONDS"])]
    delay: Vec<String>,
}

/// Injects all faults, or the selected ones, and prints a table. A fault with a
/// bad verdict makes the exit status 1.
pub fn inject(args: Args) -> Result<ExitCode> {
    if !geteuid().is_root() {
        bail!("inject runs containers on this host, which needs root: use sudo");
    }
    for form in &args.form {
        if !FORMS.iter().any(|known| known.name == form) {
            let known: Vec<&str> = FORMS.iter().map(|form| form.name).collect();
            bail!("there is no form {form:?}: there are {}", known.join(", "));
        }
    }
    progress("building");
    build::programs(&["09".to_owned()])?;
    workspace::need_rootfs("busybox")?;
    let exceptions = exceptions::read()?;
    inject::keep_to_itself()?;
    let place = Place::make()?;
    let mut plan = Plan::make(&place, |form| {
        args.form.is_empty() || args.form.iter().any(|name| name == form.name)
    })?;
    if let [call, nth, time] = args.delay.as_slice() {
        return delay(&mut plan, call, nth, time);
    }
    let all = plan.faults.len();
    let mut wanted = plan.faults.clone();
    wanted.retain(|fault| {
        args.only.is_none_or(|number| fault.number == number)
            && args
                .filter
                .as_ref()
                .is_none_or(|filter| matches(fault, filter))
    });
    if wanted.is_empty() {
        bail!(
            "no fault fits: --filter takes the name of a call (openat), a part of its object with a \
             `/` (/volumes/), or an error (ENOENT); --list shows all {all} faults"
        );
    }
    if let Some(share) = args.share {
        share.keep(&mut wanted);
    }
    if args.list {
        for fault in &wanted {
            println!("{}", listed(fault));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let started = Instant::now();
    let mut records = Vec::new();
    for fault in &wanted {
        let record = plan.inject(fault, &exceptions)?;
        if args.verbose || record.is_bad() {
            println!("{} · {}", record.describe(), record.verdict);
            if !record.reason.is_empty() {
                println!("    {}", record.reason);
            }
        }
        records.push(record);
    }
    println!("{}", table::of(&records));
    println!(
        "  {} of {all} faults in {}",
        wanted.len(),
        seconds(started.elapsed())
    );
    if let Some(file) = &args.json {
        let json = serde_json::to_vec_pretty(&records).context("write the records as JSON")?;
        fs::write(file, json).with_context(|| format!("write {}", file.display()))?;
    }
    let complete = wanted.len() == all && args.form.is_empty();
    let stale = stale(&exceptions, &wanted, &records, complete);
    for exception in &stale {
        println!("exception that fails no more: {exception:?}");
    }
    let bad = records.iter().filter(|record| record.is_bad()).count() + stale.len();
    println!("{} passed, {bad} failed", records.len() + stale.len() - bad);
    Ok(ExitCode::from(u8::from(bad > 0)))
}

/// Exceptions that no fault confirms any more; none unless all faults were
/// tried.
fn stale<'a>(
    exceptions: &'a [Exception],
    wanted: &[Planned],
    records: &[Record],
    complete: bool,
) -> Vec<&'a Exception> {
    let is_stale = |exception: &&Exception| {
        let tried = wanted.iter().zip(records).filter(|(fault, record)| {
            exception.covers(fault, &record.form) && record.verdict != Verdict::Missed
        });
        let verdicts: Vec<Verdict> = tried.map(|(_, record)| record.verdict).collect();
        // A share may contain none of its bad faults.
        complete && !verdicts.contains(&exception.verdict)
    };
    exceptions.iter().filter(is_stale).collect()
}

fn listed(fault: &Planned) -> String {
    let at = &fault.at;
    format!(
        "{} · {} · {} {} · {} · {}",
        fault.number, at.process, at.call, at.nth, at.object, fault.fault
    )
}

fn delay(plan: &mut Plan<'_>, call: &str, nth: &str, time: &str) -> Result<ExitCode> {
    let nth = nth
        .parse()
        .with_context(|| format!("{nth:?} is not a number"))?;
    let time = time
        .parse()
        .with_context(|| format!("{time:?} is not a number"))?;
    let launch = plan.delay(call, nth, Duration::from_millis(time))?;
    match launch.reached {
        Some(object) => println!("delayed: {call} {object}"),
        None => println!("not made: {call} {nth}"),
    }
    print!("{}", launch.stderr);
    Ok(ExitCode::from(launch.status.unwrap_or(125) as u8))
}
