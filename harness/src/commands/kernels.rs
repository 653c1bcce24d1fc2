//! `harness kernels`: runs the checks on every kernel of the distribution, with
//! every layout of cgroups.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;

use check::build::{self, Tests};
use check::outcome::{Outcome, Record};
use check::plan::{Batch, Plan, Until};
use check::registry::{self, Step};
use check::report::{print_totals, progress, seconds};
use check::workspace;
use vm::checking;
use vm::guest::{self, Machine};
use vm::matrix::{self, Cell, Outcomes};
use vm::suites::{self, Offer};
use vm::{Accel, CgroupLayout, Kernel, kvm};

/// Arguments of `harness kernels`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step, or several; all of them by default
    steps: Vec<String>,

    /// Only this kernel, such as 6.12; may be repeated
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,

    /// Look for kernels in this suite of the distribution, such as trixie; may
    /// be repeated [default: Debian's from oldoldstable to unstable]
    #[arg(long, value_name = "NAME")]
    suite: Vec<String>,

    /// Look in the oldest and in the newest suite only
    #[arg(long, conflicts_with_all = ["suite", "kernel"])]
    ends: bool,

    /// Only this layout of cgroups; may be repeated
    #[arg(long, value_enum, value_name = "LAYOUT")]
    cgroup: Vec<CgroupLayout>,

    /// Run only the checks whose name or title holds this text, and those that
    /// they need
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Number of machines at once [default: the number of processors]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// How QEMU runs the guest's code
    #[arg(long, value_enum, default_value_t)]
    accel: Accel,

    /// Where the records go, a file a cell
    #[arg(long, value_name = "DIR", default_value = "target/kernels")]
    output: PathBuf,

    /// Only list the available kernels
    #[arg(long)]
    list: bool,
}

/// Runs the checks in each cell, prints the result of each as it ends, and then
/// the table and every reason. A cell whose machine breaks off makes the exit
/// status 1.
pub fn kernels(args: Args) -> Result<ExitCode> {
    progress("looking for kernels");
    let offers = offers(&args)?;
    if args.list {
        for Offer { suite, version } in &offers {
            println!("{version:<8}{suite}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let steps = steps(&args)?;
    // One after the other, and with one test of KVM.
    let mut accel = args.accel;
    for offer in &offers {
        let image = kernel(offer).image()?;
        if accel == Accel::Auto {
            accel = kvm::choose(&image)?;
        }
    }
    progress("building");
    let numbers: Vec<String> = steps.iter().map(|step| step.step.clone()).collect();
    build::programs(&numbers)?;
    let tests = build::tests(&numbers)?;
    workspace::need_rootfs("busybox")?;
    let cells = cells(&offers, &args.cgroup);
    let all = run_all(&cells, &steps, &tests, accel, &args)?;
    print!("\n{}", matrix::table(&all));
    let unsupported = matrix::explained(&all, |r| r.outcome == Outcome::Unsupported);
    if !unsupported.is_empty() {
        print!("\nunsupported:\n{unsupported}");
    }
    let failed = matrix::explained(&all, Record::is_open);
    if !failed.is_empty() {
        print!("\nfailed:\n{failed}");
    }
    for outcomes in all.iter().filter(|outcomes| outcomes.trouble.is_some()) {
        println!("\n{}: {}", outcomes.cell, outcomes.summary());
    }
    let good = all.iter().all(Outcomes::is_good);
    let records: Vec<Record> = all.into_iter().flat_map(|o| o.records).collect();
    println!();
    print_totals(&records);
    Ok(ExitCode::from(u8::from(!good)))
}

/// The selected kernels.
fn offers(args: &Args) -> Result<Vec<Offer>> {
    // Without a suite, a version from the system's own suite is found too.
    if args.suite.is_empty() && !args.kernel.is_empty() {
        let named = args.kernel.iter().map(|version| Offer {
            suite: String::new(),
            version: version.clone(),
        });
        return Ok(named.collect());
    }
    let suites = match args.ends {
        true => suites::ends(),
        false => args.suite.clone(),
    };
    let offers = suites::kernels(&suites)?;
    for version in &args.kernel {
        if !offers.iter().any(|offer| offer.version == *version) {
            bail!(
                "these suites have no Linux {version}: there are {}",
                suites::versions(&offers)
            );
        }
    }
    let wanted = |offer: &Offer| args.kernel.is_empty() || args.kernel.contains(&offer.version);
    Ok(offers.into_iter().filter(wanted).collect())
}

fn kernel(offer: &Offer) -> Kernel {
    Kernel::Version(offer.version.clone())
}

fn steps(args: &Args) -> Result<Vec<Step>> {
    let dir = workspace::checks();
    let known = registry::numbers(&dir)?;
    let wanted: Vec<String> = args.steps.iter().map(|n| format!("{n:0>2}")).collect();
    if let Some(unknown) = wanted.iter().find(|number| !known.contains(number)) {
        bail!(
            "there is no step {unknown} with checks: there are {}",
            known.join(", ")
        );
    }
    let mut steps = Vec::new();
    for number in known {
        if !wanted.is_empty() && !wanted.contains(&number) {
            continue;
        }
        let mut step = Step::read(&dir, &number)?;
        if let Some(text) = &args.filter {
            step.matching(text);
        }
        if !step.checks.is_empty() {
            steps.push(step);
        }
    }
    if steps.is_empty() {
        bail!(
            "no check holds {:?}",
            args.filter.as_deref().unwrap_or_default()
        );
    }
    Ok(steps)
}

fn cells(offers: &[Offer], layouts: &[CgroupLayout]) -> Vec<Cell> {
    let layouts = match layouts {
        [] => CgroupLayout::value_variants(),
        some => some,
    };
    let mut cells = Vec::new();
    for offer in offers {
        for cgroup in layouts {
            cells.push(Cell {
                kernel: offer.version.clone(),
                cgroup: *cgroup,
            });
        }
    }
    cells
}

/// Runs the cells, several at once, and returns their outcomes in order.
fn run_all(
    cells: &[Cell],
    steps: &[Step],
    tests: &Tests,
    accel: Accel,
    args: &Args,
) -> Result<Vec<Outcomes>> {
    let jobs = match args.jobs {
        Some(jobs) => jobs.max(1),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    fs::create_dir_all(&args.output).with_context(|| format!("mkdir {}", args.output.display()))?;
    let queue: Mutex<VecDeque<&Cell>> = Mutex::new(cells.iter().collect());
    let done = Mutex::new(Vec::new());
    let seed = checking::any_seed();
    std::thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            loop {
                let next = queue
                    .lock()
                    .map_err(|_| anyhow!("a thread panicked"))?
                    .pop_front();
                let Some(cell) = next else {
                    return Ok(());
                };
                let started = Instant::now();
                let outcomes = run(cell, steps, tests, accel, seed)?;
                println!(
                    "{:<12}{}  ({})",
                    cell.to_string(),
                    outcomes.summary(),
                    seconds(started.elapsed())
                );
                write(&args.output, &outcomes)?;
                done.lock()
                    .map_err(|_| anyhow!("a thread panicked"))?
                    .push(outcomes);
            }
        };
        let workers: Vec<_> = (0..jobs.min(cells.len()))
            .map(|_| scope.spawn(work))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    let mut all = done
        .into_inner()
        .map_err(|_| anyhow!("a thread panicked"))?;
    all.sort_by_key(|outcomes: &Outcomes| cells.iter().position(|cell| *cell == outcomes.cell));
    Ok(all)
}

fn run(cell: &Cell, steps: &[Step], tests: &Tests, accel: Accel, seed: u64) -> Result<Outcomes> {
    let batches = steps.iter().map(|step| Batch::new(step.clone(), tests));
    let plan = Plan {
        batches: batches.collect::<Result<_>>()?,
        seed,
        untrusted: false,
        until: Until::End,
    };
    let machine = Machine {
        kernel: Kernel::Version(cell.kernel.clone()),
        cgroup: cell.cgroup,
        accel,
        once: true,
        ..Machine::default()
    };
    let mut records = Vec::new();
    let ended = guest::run(&plan, &machine, &mut |record, _| {
        if record.is_open() {
            progress(&format!(
                "{cell}: step {} {}: {}",
                record.step, record.check, record.outcome
            ));
        }
        records.push(record);
        Ok(())
    });
    Ok(Outcomes {
        cell: cell.clone(),
        records,
        trouble: ended.err().map(|error| format!("{error:#}")),
    })
}

fn write(dir: &Path, outcomes: &Outcomes) -> Result<()> {
    let Cell { kernel, cgroup } = &outcomes.cell;
    let file = dir.join(format!("{kernel}-{cgroup}.json"));
    let json = serde_json::to_vec_pretty(outcomes).context("write the records as JSON")?;
    fs::write(&file, json).with_context(|| format!("write {}", file.display()))
}
