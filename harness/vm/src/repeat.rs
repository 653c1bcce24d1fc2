//! The checks of steps in many rounds, each in another order: an occasional
//! failure reveals a race.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use crate::checking::Checking;
use crate::guest;
use check::draws::Draws;
use check::outcome::{Outcome, Record};
use check::own_host::OwnHost;
use check::plan::{Batch, Plan, Until};
use check::registry::{Entry, Step};
use check::report::seconds;
use check::runner;

/// Time limit of a machine for one round.
const ROUND: Duration = Duration::from_secs(45 * 60);

/// The outcomes of one check in all rounds.
#[derive(Default)]
struct Tally {
    outcomes: BTreeMap<&'static str, usize>,
    /// For each message the first record with it, and the number of such
    /// records.
    failures: Vec<(Record, usize)>,
    slowest: u64,
}

/// Runs the checks in `times` rounds, and prints a table of the failures. The
/// virtual machines, one per processor at most, boot once for all rounds.
/// Returns all records.
pub fn run(checking: &Checking<'_>, times: usize) -> Result<Vec<Record>> {
    let mut batches = Vec::new();
    for round in 0..times as u64 {
        // Each round has its own seed, for the order and for the checks' draws.
        let seed = checking.seed.wrapping_add(round);
        for step in checking.steps {
            batches.push(Batch {
                seed: Some(seed),
                ..checking.batch(shuffled(step, seed))?
            });
        }
    }
    let plan = Plan {
        batches,
        seed: checking.seed,
        untrusted: false,
        until: Until::End,
    };
    let started = Instant::now();
    let mut records = Vec::new();
    let mut on_record = |record: Record| -> Result<()> {
        if !matches!(record.outcome, Outcome::Pass | Outcome::Unsupported) {
            let mut out = stdout().lock();
            let Record {
                step, check, seed, ..
            } = &record;
            writeln!(out, "{step} {check} (seed {seed}): {}", told(&record)).context("print")?;
        }
        records.push(record);
        Ok(())
    };
    if checking.place.here {
        let _own = OwnHost::enter()?;
        runner::run(&plan, &mut on_record)?;
    } else {
        let mut machine = checking.place.machine.clone();
        machine.time_limit = Some(machine.time_limit.unwrap_or(ROUND) * times as u32);
        guest::run_side_by_side(&plan, &machine, &mut |record, _| on_record(record))?;
    }
    print(checking.steps, &records, times);
    println!("  {times} rounds in {}", seconds(started.elapsed()));
    Ok(records)
}

/// The checks of a step in random order, each behind those that it needs.
fn shuffled(step: &Step, seed: u64) -> Step {
    let mut draws = Draws::new(seed);
    let mut left = step.checks.clone();
    let mut checks: Vec<Entry> = Vec::new();
    while !left.is_empty() {
        let ready: Vec<usize> = (0..left.len())
            .filter(|&place| {
                let mut needs = left[place].needs.iter();
                needs.all(|need| left.iter().all(|check| check.name != *need))
            })
            .collect();
        // A check needs only earlier ones, so at least one is ready.
        let drawn = draws.number(ready.len().max(1) as u64) as usize;
        checks.push(left.remove(ready.get(drawn).copied().unwrap_or(0)));
    }
    Step {
        checks,
        ..step.clone()
    }
}

/// The messages of a record, in one paragraph.
fn told(record: &Record) -> String {
    let all = [&[record.message.clone()][..], &record.host, &record.said].concat();
    let lines: Vec<&str> = all
        .iter()
        .map(|line| line.trim())
        .filter(|l| !l.is_empty())
        .collect();
    format!("{}: {}", record.outcome, lines.join(" | "))
}

fn print(steps: &[Step], records: &[Record], times: usize) {
    let mut tallies: BTreeMap<(&str, &str), Tally> = BTreeMap::new();
    for record in records {
        let tally = tallies.entry((&record.step, &record.check)).or_default();
        let class = match record.outcome {
            Outcome::Pass => "passed",
            Outcome::Fail | Outcome::Error => "failed",
            Outcome::Blocked => "blocked",
            Outcome::Unsupported => "unsupported",
        };
        *tally.outcomes.entry(class).or_default() += 1;
        tally.slowest = tally.slowest.max(record.millis);
        if class == "failed" {
            match tally
                .failures
                .iter_mut()
                .find(|(first, _)| first.message == record.message)
            {
                Some((_, times)) => *times += 1,
                None => tally.failures.push((record.clone(), 1)),
            }
        }
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    let heads = [
        "step",
        "check",
        "passed",
        "failed",
        "blocked",
        "unsupported",
        "slowest",
    ];
    table.set_header(heads);
    for step in steps {
        for check in &step.checks {
            let Some(tally) = tallies.get(&(step.step.as_str(), check.name.as_str())) else {
                continue;
            };
            let count = |class| match tally.outcomes.get(class) {
                None => String::new(),
                Some(count) => count.to_string(),
            };
            table.add_row([
                step.step.clone(),
                check.name.clone(),
                count("passed"),
                count("failed"),
                count("blocked"),
                count("unsupported"),
                seconds(Duration::from_millis(tally.slowest)),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    for ((step, check), tally) in &tallies {
        for (record, failed) in &tally.failures {
            println!(
                "{step} {check}: {failed} of {times}, first with seed {}",
                record.seed
            );
            println!("    {}", told(record));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_of_its_own_for_each_seed_and_needs_first() {
        let checks: Vec<Entry> = (0..12)
            .map(|n| Entry {
                name: format!("check_{n}"),
                title: String::new(),
                points: 0,
                needs: (n > 8).then(|| "check_3".to_owned()).into_iter().collect(),
                requires: Vec::new(),
                uses: Vec::new(),
                seconds: None,
                why: String::new(),
                hint: String::new(),
            })
            .collect();
        let step = Step {
            step: "03".to_owned(),
            title: String::new(),
            checks,
        };
        let names = |seed| -> Vec<String> {
            shuffled(&step, seed)
                .checks
                .into_iter()
                .map(|check| check.name)
                .collect()
        };
        assert_eq!(names(1), names(1));
        assert_ne!(names(1), names(2));
        for seed in 0..50 {
            let names = names(seed);
            let place = |name: &str| names.iter().position(|other| other == name);
            assert_eq!(names.len(), 12);
            assert!(place("check_3") < place("check_9"), "{names:?}");
        }
    }
}
