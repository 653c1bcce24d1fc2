//! Running a plan in the virtual machine.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::fence;
use crate::outcome::Record;
use crate::report::seconds;
use crate::runner::{Batch, CHECK_LIMIT, Plan, SEQUENCES};
use crate::vm::{Accel, BrokenOff, CgroupLayout, Kernel, Vm, programs};
use crate::workspace;

/// Which virtual machine.
#[derive(clap::Args, Clone, Default)]
pub struct Machine {
    /// Kernel: `distribution`, a version such as 6.12, `host`, or a file
    #[arg(long, default_value_t, conflicts_with = "here")]
    pub kernel: Kernel,

    /// Layout of the cgroup file systems in the virtual machine
    #[arg(long, value_enum, default_value_t, conflicts_with = "here")]
    pub cgroup: CgroupLayout,

    /// How QEMU runs the guest's code
    #[arg(long, value_enum, default_value_t, conflicts_with = "here")]
    pub accel: Accel,

    /// Number of processors, if not the usual one
    #[arg(skip)]
    pub cpus: Option<u32>,

    /// Whether it is needed once: then none is saved to be resumed.
    #[arg(skip)]
    pub once: bool,

    /// Longest run, boot included; three quarters of an hour if none is given.
    #[arg(skip)]
    pub time_limit: Option<Duration>,

    /// Longest time for one check; a minute and a half if none is given.
    #[arg(skip)]
    pub check_limit: Option<Duration>,
}

/// What is sent into the machine.
#[derive(Serialize, Deserialize)]
pub struct Orders {
    /// The plan.
    pub plan: Plan,
    /// With what each record begins that is to be believed. The ports are open
    /// to every program of the machine, once the runner has been killed.
    pub token: Option<String>,
}

/// Where our files are inside.
const INSIDE: &str = "/drydock";

/// Longest run, boot included: beyond it something hangs.
const TIME_LIMIT: Duration = Duration::from_secs(45 * 60);

/// Boots the machine, runs the plan in it and hands on each record as it
/// arrives, with a description of the machine. Returns how long what took, in
/// words.
///
/// # Errors
/// If the machine does not boot; [`BrokenOff`] if it does not run the plan to
/// its end.
pub fn run(
    plan: &Plan,
    machine: &Machine,
    on_record: &mut dyn FnMut(Record, &str) -> Result<()>,
) -> Result<String> {
    let mut files = Files::default();
    let mut inside = plan.clone();
    for batch in &mut inside.batches {
        batch.tests = files.add(&batch.tests)?;
        if let Some(program) = &batch.program {
            batch.program = Some(files.add(program)?);
        }
    }
    let dir = tempfile::Builder::new()
        .prefix("drydock-plan-")
        .tempdir()
        .context("make a temporary directory")?;
    let plan_file = dir.path().join("plan.json");
    let token = match plan.untrusted {
        true => Some(secret()?),
        false => None,
    };
    let orders = Orders {
        plan: inside,
        token: token.clone(),
    };
    let json = serde_json::to_vec(&orders).context("write the plan as JSON")?;
    fs::write(&plan_file, json).with_context(|| format!("write {}", plan_file.display()))?;
    let plan_inside = files.add(&plan_file)?;
    let mut all = files.list();
    match plan.untrusted {
        // The steps themselves, which may be in bin/, would pass every check.
        true => all.extend(["harness", "probe"].map(|name| {
            let inside = Path::new(INSIDE).join("bin").join(name);
            (workspace::bin().join(name), inside)
        })),
        false => all.push((workspace::bin(), Path::new(INSIDE).join("bin"))),
    }
    let rootfs = rootfs(plan);
    for name in &rootfs {
        let inside = Path::new(INSIDE).join("rootfs").join(name);
        all.push((workspace::rootfs(name), inside));
    }
    for file in programs::required(plan)? {
        all.push((file.clone(), file));
    }
    let vm = Vm {
        kernel: machine.kernel.clone(),
        cgroup: machine.cgroup,
        accel: machine.accel,
        files: all,
        command: vec![
            format!("{INSIDE}/bin/harness"),
            "run".to_owned(),
            plan_inside.display().to_string(),
        ],
        env: [
            ("DRYDOCK_BIN".to_owned(), format!("{INSIDE}/bin")),
            ("DRYDOCK_ROOTFS".to_owned(), format!("{INSIDE}/rootfs")),
        ]
        .into_iter()
        .chain(std::env::var(SEQUENCES).map(|number| (SEQUENCES.to_owned(), number)))
        .chain(
            machine
                .check_limit
                .map(|limit| (CHECK_LIMIT.to_owned(), limit.as_secs().to_string())),
        )
        .collect(),
        // A distribution's userland stands in the machine's memory.
        memory_mib: if rootfs.len() > 1 { 2048 } else { 1024 },
        time_limit: machine.time_limit.unwrap_or(TIME_LIMIT),
        cpus: machine.cpus.unwrap_or(Vm::default().cpus),
        resume: !machine.once,
    };
    let description = vm.machine_description()?;
    let expected: usize = plan
        .batches
        .iter()
        .map(|batch| batch.step.checks.len())
        .sum();
    let mut arrived = 0;
    let mut trouble = None;
    let result = vm.run(&mut |line| {
        let Some(line) = fence::read_line(line, token.as_deref()) else {
            return;
        };
        let record =
            serde_json::from_str(line).with_context(|| format!("parse a record: {line:?}"));
        let handed_on = record.and_then(|record| on_record(record, &description));
        match handed_on {
            Ok(()) => arrived += 1,
            Err(error) => trouble = trouble.take().or(Some(error)),
        }
    })?;
    if let Some(error) = trouble {
        return Err(error);
    }
    if result.status != 0 || arrived != expected {
        let why = format!(
            "the run in the virtual machine ended with status {} after {arrived} of {expected} checks; its console said: {}",
            result.status,
            last_lines(&result.console)
        );
        return Err(BrokenOff(why).into());
    }
    Ok(format!(
        "packing {}, {} {}, checks {}",
        seconds(result.timings.packing),
        match result.timings.resumed {
            true => "resume",
            false => "boot",
        },
        seconds(result.timings.boot),
        seconds(result.timings.command)
    ))
}

/// Runs the plan in as many machines at once as there are processors, each with
/// some of its batches. Records of different batches arrive in any order.
///
/// # Errors
/// As [`run`], of any of the machines.
pub fn run_side_by_side(
    plan: &Plan,
    machine: &Machine,
    on_record: &mut dyn FnMut(Record, &str) -> Result<()>,
) -> Result<String> {
    let machines = std::thread::available_parallelism().map_or(1, usize::from);
    let shares = shares(&plan.batches, machines);
    let (to_us, records) = channel::<(Record, String)>();
    std::thread::scope(|scope| {
        let running: Vec<_> = shares
            .into_iter()
            .map(|batches| {
                let (share, to_us) = (Plan { batches, ..*plan }, to_us.clone());
                scope.spawn(move || {
                    run(&share, machine, &mut |record, description| {
                        to_us
                            .send((record, description.to_owned()))
                            .context("nobody takes the records any more")
                    })
                })
            })
            .collect();
        drop(to_us);
        let handed_on = records
            .iter()
            .try_for_each(|(record, description)| on_record(record, &description));
        // What the machines send from now on, if that failed, is refused.
        drop(records);
        let mut timings = Vec::new();
        let mut trouble = handed_on.err();
        for ended in running {
            match ended.join().map_err(|_| anyhow!("a thread panicked"))? {
                Ok(words) => timings.push(words),
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        match trouble {
            Some(error) => Err(error),
            None => Ok(timings.join("; ")),
        }
    })
}

/// Divides batches so that each share has about as many checks; their order
/// stays.
fn shares(batches: &[Batch], machines: usize) -> Vec<Vec<Batch>> {
    let mut order: Vec<usize> = (0..batches.len()).collect();
    order.sort_by_key(|place| Reverse(batches[*place].step.checks.len()));
    let mut shares: Vec<(usize, Vec<usize>)> = vec![(0, Vec::new()); machines];
    for place in order {
        if let Some(least) = shares.iter_mut().min_by_key(|(checks, _)| *checks) {
            least.0 += batches[place].step.checks.len();
            least.1.push(place);
        }
    }
    shares
        .into_iter()
        .map(|(_, mut places)| {
            places.sort_unstable();
            places.iter().map(|place| batches[*place].clone()).collect()
        })
        .filter(|share: &Vec<Batch>| !share.is_empty())
        .collect()
}

/// The root file systems that the checks require and that this host has.
/// Every check may take the one of busybox.
fn rootfs(plan: &Plan) -> BTreeSet<String> {
    plan.batches
        .iter()
        .flat_map(|batch| &batch.step.checks)
        .flat_map(|check| &check.requires)
        .filter_map(|requirement| requirement.strip_prefix("rootfs:"))
        .chain(["busybox"])
        .filter(|name| workspace::rootfs(name).is_dir())
        .map(str::to_owned)
        .collect()
}

/// A word that nobody can guess.
fn secret() -> Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(format!("{:032x} ", u128::from_ne_bytes(bytes)))
}

fn last_lines(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(8)..].join(" | ")
}

/// Files of this host and their places inside, each once.
#[derive(Default)]
struct Files(BTreeMap<PathBuf, PathBuf>);

impl Files {
    /// The place inside of a file of this host.
    fn add(&mut self, file: &Path) -> Result<PathBuf> {
        let name = file
            .file_name()
            .with_context(|| format!("{} has no name", file.display()))?;
        let inside = Path::new(INSIDE).join("files").join(name);
        self.0.insert(file.to_owned(), inside.clone());
        Ok(inside)
    }

    fn list(self) -> Vec<(PathBuf, PathBuf)> {
        self.0.into_iter().collect()
    }
}
