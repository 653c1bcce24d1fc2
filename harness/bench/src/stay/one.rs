//! One container in the background: its start, its monitor, a command in it.

use std::time::Duration;

use anyhow::{Context, Result};

use super::turns::{Turns, rows, turn};
use crate::chart::{Bar, Chart};
use crate::keepers::{KEEPERS, Keeper};
use crate::report::Report;
use crate::stats::{Summary, figure, ratio, spread};
use crate::table::Table;

/// The measurements of single containers.
#[derive(Default)]
struct One {
    start: Vec<f64>,
    exec: Vec<f64>,
    own: Vec<f64>,
    pss: Vec<f64>,
    daemons: Option<f64>,
    error: Option<anyhow::Error>,
}

pub(super) fn one(turns: &Turns, report: &mut Report) -> Result<()> {
    let Turns {
        session,
        extent,
        keepers,
        absent,
    } = turns;
    let mut all: Vec<One> = keepers.iter().map(|_| One::default()).collect();
    for round in 0..extent.rounds {
        for at in turn(round, keepers.len()) {
            if all[at].error.is_some() {
                continue;
            }
            session.scratch.stop.check()?;
            if let Err(error) = once(&keepers[at], &mut all[at]) {
                session.scratch.stop.check()?;
                keepers[at].remove_all()?;
                all[at].error = Some(error);
            }
        }
    }
    let ours = keepers.iter().position(|keeper| keeper.name == KEEPERS[0]);
    let base = ours.and_then(|at| Summary::of(&all[at].exec));
    let mut table = Table::new(
        "One container in the background",
        &[
            "",
            "run -d, ms",
            "quartiles",
            "exec true, ms",
            "quartiles",
            "× drydock",
            "monitor: own, KiB",
            "PSS, KiB",
            "daemons: PSS, KiB",
            "",
        ],
    );
    let mut results = Vec::new();
    for (keeper, one) in keepers.iter().zip(all) {
        let cells = match one.error {
            Some(error) => Err(error),
            None => cells_of_one(keeper.name, &one, base.as_ref(), report),
        };
        results.push((keeper.name, cells));
    }
    rows(&mut table, &results, absent);
    let bars = |what: &str| {
        let named = |name: &&str| {
            report
                .measures
                .iter()
                .find(|m| m.name == format!("{name} {what}"))
        };
        let found = KEEPERS.iter().filter_map(|name| Some((name, named(name)?)));
        found.map(|(name, m)| Bar::of(name, &m.summary)).collect()
    };
    let charts = [("run -d", "ms"), ("exec", "ms"), ("monitor", "KiB")];
    let charts = charts.map(|(what, unit)| Chart {
        title: match what {
            "monitor" => "Memory of a monitor's own".to_owned(),
            "exec" => "exec true".to_owned(),
            _ => what.to_owned(),
        },
        unit: unit.to_owned(),
        bars: bars(what),
    });
    report.charts.extend(charts);
    report.tables.push(table);
    Ok(())
}

/// Starts a container, weighs its monitor, runs a command in it, removes it.
fn once(keeper: &Keeper, one: &mut One) -> Result<()> {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let start = keeper.run("bench-one", &[], &["/bin/obey"])?;
    let memory = keeper.memory_of_monitors()?;
    let exec = keeper.call(&["exec", "bench-one", "true"])?;
    one.start.push(ms(start));
    one.exec.push(ms(exec));
    one.own.push(memory.own);
    one.pss.push(memory.pss);
    one.daemons = keeper.memory_of_daemons()?.map(|memory| memory.pss);
    keeper.remove(&["bench-one".to_owned()])
}

fn cells_of_one(
    name: &str,
    one: &One,
    base: Option<&Summary>,
    report: &mut Report,
) -> Result<Vec<String>> {
    let summary = |sample: &[f64]| Summary::of(sample).context("nothing was measured");
    let (start, exec) = (summary(&one.start)?, summary(&one.exec)?);
    let (own, pss) = (summary(&one.own)?, summary(&one.pss)?);
    for (what, unit, summary) in [
        ("run -d", "ms", start),
        ("exec", "ms", exec),
        ("monitor", "KiB", own),
        ("monitor, PSS", "KiB", pss),
    ] {
        report.measured(&format!("{name} {what}"), unit, summary);
    }
    Ok(vec![
        figure(start.median),
        spread(&start),
        figure(exec.median),
        spread(&exec),
        base.map_or(String::new(), |base| ratio(exec.median / base.median)),
        figure(own.median),
        figure(pss.median),
        one.daemons.map_or(String::new(), figure),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_is_compared_with_drydocks() {
        let mut report = Report::default();
        let one = One {
            start: vec![100.0, 110.0],
            exec: vec![30.0],
            own: vec![400.0],
            pss: vec![500.0],
            daemons: Some(9000.0),
            error: None,
        };
        let base = Summary::of(&[10.0]);
        let cells = cells_of_one("docker", &one, base.as_ref(), &mut report).unwrap();
        assert_eq!(cells[4..], ["3.00×", "400", "500", "9000"]);
        assert_eq!(report.measures.len(), 4);
        assert!(cells_of_one("docker", &One::default(), None, &mut report).is_err());
    }
}
