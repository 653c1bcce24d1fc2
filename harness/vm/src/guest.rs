//! Runs a plan in the virtual machine.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::times::Times;
use crate::{Accel, BrokenOff, CgroupLayout, Kernel, Vm, programs};
use check::fence;
use check::outcome::Record;
use check::plan::{Batch, Plan};
use check::registry::Entry;
use check::report::seconds;
use check::runner::{CHECK_LIMIT, SEQUENCES};
use check::workspace;

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

/// The orders sent into the machine.
#[derive(Serialize, Deserialize)]
pub struct Orders {
    /// The plan.
    pub plan: Plan,
    /// Prefix of every record that is to be believed. The ports are open to
    /// every program of the machine once the runner has been killed.
    pub token: Option<String>,
}

/// Directory of our files inside the machine.
const INSIDE: &str = "/drydock";

/// Longest run, boot included: beyond it something hangs.
const TIME_LIMIT: Duration = Duration::from_secs(45 * 60);

/// Boots the machine, runs the plan in it and passes on each record as it
/// arrives, with a description of the machine. Returns the timings in words.
///
/// # Errors
/// [`BrokenOff`] if the machine boots but does not run the plan to its end.
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
    // A step's own program from bin/ would pass every check of a submission;
    // and every file that is not needed takes time to unpack.
    let steps = plan.batches.iter().filter(|batch| batch.program.is_none());
    let steps = steps.map(|batch| workspace::program(&batch.step.step));
    let programs: BTreeSet<String> = ["harness", "probe"]
        .map(str::to_owned)
        .into_iter()
        .chain(steps)
        .collect();
    all.extend(programs.iter().map(|name| {
        let inside = Path::new(INSIDE).join("bin").join(name);
        (workspace::bin().join(name), inside)
    }));
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
        disk: None,
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
        memory_mib: memory_mib(&rootfs),
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

/// Runs the plan in several machines at once, as many as there are processors
/// and memory for. Each runs some of the batches, or some of their checks.
/// Records arrive in any order, each once.
pub fn run_side_by_side(
    plan: &Plan,
    machine: &Machine,
    on_record: &mut dyn FnMut(Record, &str) -> Result<()>,
) -> Result<String> {
    let mut times = Times::read();
    let shares = shares(&plan.batches, machines(plan), &times);
    let (to_us, records) = channel::<(Record, String)>();
    std::thread::scope(|scope| {
        let running: Vec<_> = shares
            .into_iter()
            .map(|Share { batches, elsewhere }| {
                let (share, to_us) = (Plan { batches, ..*plan }, to_us.clone());
                scope.spawn(move || {
                    run(&share, machine, &mut |record, description| {
                        if elsewhere.contains(&(record.step.clone(), record.check.clone())) {
                            return Ok(());
                        }
                        to_us
                            .send((record, description.to_owned()))
                            .context("nobody takes the records any more")
                    })
                })
            })
            .collect();
        drop(to_us);
        let handed_on = records.iter().try_for_each(|(record, description)| {
            times.note(&record);
            on_record(record, &description)
        });
        // If that failed, records that the machines still send are refused.
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
            None => {
                times.write()?;
                Ok(timings.join("; "))
            }
        }
    })
}

/// Number of machines to run at once: one per processor, with at most half of
/// the available memory.
fn machines(plan: &Plan) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text
            .lines()
            .find(|line| line.starts_with("MemAvailable:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    let each = u64::from(memory_mib(&rootfs(plan))) << 10; // KiB, as there
    let room = available.map_or(usize::MAX, |all| (all / 2 / each) as usize);
    processors.min(room).max(1)
}

/// The work of one machine.
struct Share {
    batches: Vec<Batch>,
    /// Steps and checks that run here only because others need them. Another
    /// machine reports their records.
    elsewhere: BTreeSet<(String, String)>,
}

/// Divides the checks of batches among machines so that each takes about the
/// same time. Their order is kept. If a step is in several batches, its records
/// do not name their batch: each batch then stays whole.
fn shares(batches: &[Batch], machines: usize, times: &Times) -> Vec<Share> {
    let steps: BTreeSet<&str> = batches.iter().map(|b| b.step.step.as_str()).collect();
    if machines > 1 && steps.len() == batches.len() {
        return parts(batches, machines, times);
    }
    let of_batch = |batch: &Batch| -> u64 {
        let checks = batch.step.checks.iter();
        checks.map(|c| times.of(&batch.step.step, c)).sum()
    };
    divided(batches.iter().map(of_batch), machines)
        .into_iter()
        .map(|places| Share {
            batches: places.iter().map(|place| batches[*place].clone()).collect(),
            elsewhere: BTreeSet::new(),
        })
        .collect()
}

/// Divides the checks of batches, each of a different step. The checks that a
/// check needs run in the same machine.
fn parts(batches: &[Batch], machines: usize, times: &Times) -> Vec<Share> {
    let all: Vec<(usize, &Entry)> = batches
        .iter()
        .enumerate()
        .flat_map(|(n, batch)| batch.step.checks.iter().map(move |check| (n, check)))
        .collect();
    let of_check = all
        .iter()
        .map(|(n, check)| times.of(&batches[*n].step.step, check));
    divided(of_check, machines)
        .into_iter()
        .map(|places| {
            let mut share = Share {
                batches: Vec::new(),
                elsewhere: BTreeSet::new(),
            };
            for (n, batch) in batches.iter().enumerate() {
                let own: BTreeSet<&str> = places
                    .iter()
                    .filter(|place| all[**place].0 == n)
                    .map(|place| all[*place].1.name.as_str())
                    .collect();
                let mut batch = batch.clone();
                batch.step.keep(|check| own.contains(check.name.as_str()));
                let kept = batch.step.checks.iter().map(|check| &check.name);
                let others = kept.filter(|name| !own.contains(name.as_str()));
                let step = &batch.step.step;
                share
                    .elsewhere
                    .extend(others.map(|name| (step.clone(), name.clone())));
                if !batch.step.checks.is_empty() {
                    share.batches.push(batch);
                }
            }
            share
        })
        .collect()
}

/// Divides items, given by their weights, into at most `into` parts of about
/// the same weight: the heaviest first, each to the lightest part. Returns
/// their indexes.
fn divided(weights: impl Iterator<Item = u64>, into: usize) -> Vec<Vec<usize>> {
    let weights: Vec<u64> = weights.collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|place| Reverse(weights[*place]));
    let mut parts: Vec<(u64, Vec<usize>)> = vec![(0, Vec::new()); into];
    for place in order {
        if let Some(lightest) = parts.iter_mut().min_by_key(|(weight, _)| *weight) {
            lightest.0 += weights[place];
            lightest.1.push(place);
        }
    }
    let mut parts: Vec<Vec<usize>> = parts.into_iter().map(|(_, places)| places).collect();
    parts.retain(|places| !places.is_empty());
    for places in &mut parts {
        places.sort_unstable();
    }
    parts
}

/// Memory of a machine in MiB. A distribution's userland is unpacked into it.
fn memory_mib(rootfs: &BTreeSet<String>) -> u32 {
    if rootfs.len() > 1 { 2048 } else { 1024 }
}

/// The root file systems that the checks require and that this host has. Every
/// check may use that of busybox.
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

/// A random word that cannot be guessed.
fn secret() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("getrandom")?;
    Ok(format!("{:032x} ", u128::from_ne_bytes(bytes)))
}

fn last_lines(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(8)..].join(" | ")
}

/// Files of this host and their places in the machine, each once.
#[derive(Default)]
struct Files(BTreeMap<PathBuf, PathBuf>);

impl Files {
    /// Adds a file of this host and returns its place in the machine.
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

#[cfg(test)]
mod tests {
    use super::*;
    use check::registry::Step;

    fn batch(checks: &[(&str, &[&str])]) -> Batch {
        let mut text = "step = \"05\"\ntitle = \"t\"\n".to_owned();
        for (name, needs) in checks {
            text += &format!(
                "[[check]]\nname = {name:?}\ntitle = {name:?}\npoints = 1\nneeds = {needs:?}\n\
                 why = \"w\"\nhint = \"h\"\n"
            );
        }
        let step: Step = toml::from_str(&text).unwrap();
        Batch {
            seed: None,
            variant: None,
            program: None,
            tests: PathBuf::from("tests"),
            step,
        }
    }

    #[test]
    fn each_check_of_a_step_is_reported_by_one_machine() {
        let batch = batch(&[("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["c"])]);
        let shares = shares(&[batch], 2, &Times::default());
        let mut reported = Vec::new();
        for share in &shares {
            let run: Vec<&str> = share.batches[0]
                .step
                .checks
                .iter()
                .map(|check| {
                    assert!(check.needs.iter().all(|need| {
                        let all = &share.batches[0].step.checks;
                        all.iter().any(|other| &other.name == need)
                    }));
                    check.name.as_str()
                })
                .collect();
            reported.extend(run.into_iter().filter(|name| {
                let key = ("05".to_owned(), (*name).to_owned());
                !share.elsewhere.contains(&key)
            }));
        }
        reported.sort_unstable();
        assert_eq!(shares.len(), 2);
        assert_eq!(reported, ["a", "b", "c", "d"]);
    }

    #[test]
    fn parts_weigh_about_the_same() {
        let parts = divided([9, 1, 2, 6, 1].into_iter(), 2);
        assert_eq!(parts, [vec![0, 4], vec![1, 2, 3]]);
        assert_eq!(divided([3].into_iter(), 4), [vec![0]]);
    }
}
