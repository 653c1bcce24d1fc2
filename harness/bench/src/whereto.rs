//! `bench where`: the system calls of one start, and where its time goes.

use anyhow::Result;

use super::chart::{Bar, Chart};
use super::contenders::{Contender, Standing, all};
use super::report::Report;
use super::session::Session;
use super::stats::figure;
use super::strace::{KINDS, Trace, kind, mean, trace};
use super::table::Table;

/// The contenders to trace, where they are available.
const TRACED: [&str; 4] = ["floor", "drydock", "crun", "runc"];

/// The number of calls in a table.
const TOP: usize = 12;

/// Traces several starts of each contender, and tabulates their means.
pub fn run(session: &Session) -> Result<Report> {
    let mut report = Report::new(
        "where",
        "The system calls of one start and their times, by strace; the mean of several starts. \
         strace stops a process at each call, so it slows down a start with many calls most. \
         Compare the shares, not the milliseconds.",
    );
    let standings = all(session)?;
    let dir = session.scratch.make("strace")?;
    let traced: Vec<&Contender> = standings
        .iter()
        .filter_map(|standing| match standing {
            Standing::Ready(contender) if TRACED.contains(&contender.name) => Some(contender),
            _ => None,
        })
        .collect();
    let mut traces: Vec<Vec<Trace>> = vec![Vec::new(); traced.len()];
    for _ in 0..(session.runs / 10).clamp(1, 5) {
        for (contender, traces) in traced.iter().zip(&mut traces) {
            session.scratch.stop.check()?;
            let argv = contender.argv(session, "where", "/bin/true")?;
            traces.push(trace(&argv, &dir)?);
        }
    }
    let means: Vec<(&str, Trace)> = traced
        .iter()
        .zip(&traces)
        .map(|(contender, traces)| (contender.name, mean(traces)))
        .collect();
    report.tables.push(kinds(&means));
    for (name, trace) in &means {
        if ["drydock", "runc"].contains(name) {
            report.tables.push(top(name, trace));
        }
    }
    report.charts.push(chart(&means));
    report.notes.push(
        "\"Waiting for others\" is time spent waiting for another process or thread of the same \
         start, or for the kernel: futex, wait4, reading from a pipe or socket. It overlaps with \
         the rest, so the shares and the chart omit it."
            .to_owned(),
    );
    Ok(report)
}

/// The time of a trace without its waits, in milliseconds.
fn work(trace: &Trace) -> f64 {
    let own = trace.iter().filter(|(name, _)| kind(name) != KINDS[6]);
    own.map(|(_, calls)| calls.ms).sum()
}

fn of_kind(trace: &Trace, wanted: &str) -> (f64, f64) {
    trace
        .iter()
        .filter(|(name, _)| kind(name) == wanted)
        .fold((0.0, 0.0), |(count, ms), (_, calls)| {
            (count + calls.count, ms + calls.ms)
        })
}

fn kinds(means: &[(&str, Trace)]) -> Table {
    let mut columns = vec!["calls, and ms in them".to_owned()];
    columns.extend(means.iter().map(|(name, _)| (*name).to_owned()));
    let mut table = Table {
        title: "What the calls are for".to_owned(),
        columns,
        rows: Vec::new(),
    };
    for wanted in KINDS {
        let cells = means.iter().map(|(_, trace)| {
            let (count, ms) = of_kind(trace, wanted);
            format!("{count:.0}: {} ms", figure(ms))
        });
        table
            .rows
            .push([wanted.to_owned()].into_iter().chain(cells).collect());
    }
    let all = means.iter().map(|(_, trace)| {
        let count: f64 = trace.values().map(|calls| calls.count).sum();
        format!("{count:.0}: {} ms", figure(work(trace)))
    });
    let head = "together, without waiting".to_owned();
    table.rows.push([head].into_iter().chain(all).collect());
    table
}

fn top(name: &str, trace: &Trace) -> Table {
    let title = format!("The calls of {name} that take longest");
    let mut table = Table::new(&title, &["call", "how many", "ms", "share"]);
    let whole = work(trace);
    let mut calls: Vec<_> = trace
        .iter()
        .filter(|(name, _)| kind(name) != KINDS[6])
        .collect();
    calls.sort_by(|a, b| b.1.ms.total_cmp(&a.1.ms));
    for (call, calls) in calls.into_iter().take(TOP) {
        let share = format!("{:.0} %", calls.ms / whole * 100.0);
        table.row(&[
            call,
            &format!("{:.0}", calls.count),
            &figure(calls.ms),
            &share,
        ]);
    }
    table
}

fn chart(means: &[(&str, Trace)]) -> Chart {
    let bar = |(name, trace): &(&str, Trace)| Bar {
        label: (*name).to_owned(),
        parts: KINDS[..6]
            .iter()
            .map(|wanted| ((*wanted).to_owned(), of_kind(trace, wanted).1))
            .collect(),
        spread: None,
    };
    Chart {
        title: "Time in system calls of one start, under strace".to_owned(),
        unit: "ms".to_owned(),
        bars: means.iter().map(bar).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::strace::parse;
    use super::*;

    #[test]
    fn shares_are_of_the_work_and_not_of_the_waiting() {
        let text = "1 1.0 mount(\"a\") = 0 <0.003>\n1 1.0 mkdir(\"a\") = 0 <0.001>\n\
            1 1.0 wait4(-1) = 0 <1.000>\n";
        let trace = parse(text);
        let table = top("x", &trace);
        assert_eq!(table.rows[0], ["mount", "1", "3.00", "75 %"]);
        assert_eq!(table.rows.len(), 2);
        let chart = chart(&[("x", trace.clone())]);
        assert!((chart.bars[0].length() - 4.0).abs() < 1e-9);
        assert_eq!(kinds(&[("x", trace)]).rows.len(), KINDS.len() + 1);
    }
}
