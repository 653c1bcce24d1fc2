//! A log that is followed and read.

use std::time::Instant;

use anyhow::{Context, Result};

use super::follow::{printed, writes};
use super::turns::{Turns, each, rows};
use crate::keepers::{KEEPERS, Keeper};
use crate::report::Report;
use crate::session::Session;
use crate::stats::{Summary, figure, ratio};
use crate::table::Table;

/// The measurements of logs: following one from its beginning, and reading it
/// again.
#[derive(Default)]
struct Logs {
    times: [Vec<f64>; 2],
    /// The reason why one of the two does not count: an engine may lose lines.
    lost: Option<String>,
    error: Option<anyhow::Error>,
}

pub(super) fn logs(turns: &Turns, report: &mut Report) -> Result<()> {
    let Turns {
        session,
        extent,
        keepers,
        absent,
    } = turns;
    let mut all: Vec<Logs> = keepers.iter().map(|_| Logs::default()).collect();
    for round in 0..extent.logs {
        let reads = each(session, keepers, round, |keeper| {
            read(session, keeper, extent.log)
        })?;
        for (logs, (_, done)) in all.iter_mut().zip(reads) {
            match done {
                Err(error) => logs.error = Some(error),
                Ok(times) => {
                    for (sample, time) in logs.times.iter_mut().zip(times) {
                        match time {
                            Ok(time) => sample.push(time),
                            Err(why) => logs.lost = Some(format!("{why:#}")),
                        }
                    }
                }
            }
        }
    }
    let mb = extent.log as f64 / 1e6;
    let mut table = Table::new(
        &format!("A log of {} MB, in lines of 100 bytes", figure(mb)),
        &[
            "",
            "logs, s",
            "MB/s",
            "× drydock",
            "run -d and logs -f, s",
            "MB/s",
            "",
        ],
    );
    let base = keepers.iter().position(|keeper| keeper.name == KEEPERS[0]);
    let base = base.and_then(|at| Summary::of(&all[at].times[1]));
    let mut results = Vec::new();
    for (keeper, logs) in keepers.iter().zip(all) {
        let cells = match logs.error {
            Some(error) => Err(error),
            None => Ok(cells_of_logs(keeper.name, &logs, mb, base.as_ref(), report)),
        };
        results.push((keeper.name, cells));
    }
    rows(&mut table, &results, absent);
    report.tables.push(table);
    Ok(())
}

fn cells_of_logs(
    name: &str,
    logs: &Logs,
    mb: f64,
    base: Option<&Summary>,
    report: &mut Report,
) -> Vec<String> {
    let [follow, again] = logs.times.each_ref().map(|sample| Summary::of(sample));
    for (what, summary) in [("logs -f", follow), ("logs", again)] {
        if let Some(summary) = summary {
            report.measured(&format!("{name} {what}"), "s", summary);
        }
    }
    let cell = |summary: &Option<Summary>, of: &dyn Fn(f64) -> String| {
        let median = summary.map(|summary| summary.median);
        median.map_or("–".to_owned(), of)
    };
    let speed = |seconds: f64| figure(mb / seconds);
    let against = |seconds: f64| base.map_or(String::new(), |base| ratio(seconds / base.median));
    vec![
        cell(&again, &figure),
        cell(&again, &speed),
        cell(&again, &against),
        cell(&follow, &figure),
        cell(&follow, &speed),
        logs.lost.clone().unwrap_or_default(),
    ]
}

/// Starts a container that writes so many bytes and ends. Returns the seconds
/// until `logs -f` has printed all of them, and the seconds that `logs` takes
/// when the container has ended.
fn read(session: &Session, keeper: &Keeper, bytes: u64) -> Result<[Result<f64>; 2]> {
    let name = "bench-log";
    let print = |args: &[&str], begun: Instant| {
        let argv = keeper.argv(&[args, &[name]].concat());
        let printed = printed(&argv, bytes, begun, &session.scratch.stop);
        let printed = printed.with_context(|| args.join(" "));
        printed.map(|time| time.as_secs_f64())
    };
    let begun = Instant::now();
    keeper.run(name, &[], &["sh", "-c", &writes(bytes)])?;
    let follow = print(&["logs", "-f"], begun);
    keeper.call(&["wait", name])?;
    let again = print(&["logs"], Instant::now());
    keeper.remove(&[name.to_owned()])?;
    Ok([follow, again])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_loses_lines_is_not_fast() {
        let mut report = Report::default();
        let logs = Logs {
            times: [vec![], vec![2.0]],
            lost: Some("logs -f: 1 of 2 bytes".to_owned()),
            error: None,
        };
        let base = Summary::of(&[1.0]);
        let cells = cells_of_logs("podman", &logs, 100.0, base.as_ref(), &mut report);
        assert_eq!(cells[..3], ["2.00", "50.0", "2.00×"]);
        assert_eq!(cells[3..], ["–", "–", "logs -f: 1 of 2 bytes"]);
        assert_eq!(report.measures.len(), 1);
    }
}
