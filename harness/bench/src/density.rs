//! `bench density`: many containers at once, and what each of them takes.

use anyhow::Result;

use super::chart::{Bar, Chart};
use super::herd::{By, Weight, herd, too_many};
use super::report::Report;
use super::session::Session;
use super::stats::{Summary, figure, spread};
use super::table::Table;
use super::tools::named;

/// Measures herds of these sizes. If a container does not start, its herd ends
/// and becomes a row with the reason.
pub fn run(session: &Session, counts: &[usize]) -> Result<Report> {
    let mut report = Report::new(
        "density",
        "Sleeping containers of the same busybox, each with its own namespaces, cgroup, root and \
         limits, started one after another. A container counts as started at its first output.",
    );
    let mut times = Table::new(
        "Start and end",
        &[
            "",
            "containers",
            "start, ms: median",
            "quartiles",
            "95 %",
            "all, s",
            "end of all, s",
            "",
        ],
    );
    let mut memory = Table::new(
        "Memory and disk of each, in KiB",
        &[
            "",
            "containers",
            "launcher (PSS)",
            "inside (PSS)",
            "kernel",
            "together",
            "available fell by",
            "cgroup",
            "disk",
        ],
    );
    let mut chart = Chart {
        title: "Memory for each container".to_owned(),
        unit: "KiB".to_owned(),
        ..Chart::default()
    };
    let mut by = vec![By::Drydock];
    match named("runc")?.find() {
        Some(_) => by.push(By::Runc),
        None => report
            .notes
            .push(format!("runc {}", named("runc")?.missing())),
    }
    for &count in counts {
        for by in &by {
            let name = by.name();
            let weight = match too_many(count) {
                Some(why) => Err(why),
                None => herd(session, *by, count).map_err(|error| format!("{error:#}")),
            };
            session.scratch.stop.check()?;
            match weight {
                Ok(weight) => {
                    rows(name, &weight, &mut times, &mut memory);
                    chart.bars.push(bar(name, &weight));
                    keep(&mut report, name, &weight);
                }
                Err(why) => {
                    times.row(&[name, &count.to_string(), "–", "", "", "", "", &why]);
                }
            }
        }
    }
    report.tables.extend([times, memory]);
    report.charts.push(chart);
    report.notes.push(
        "PSS divides a shared page among the processes that share it. \"Kernel\" is the growth \
         of slabs, kernel stacks, page tables and per-CPU data of the whole machine. It includes \
         the activity of other programs, and so does the fall of the available memory. \
         \"cgroup\" is the memory charged to the cgroup, \"disk\" the growth of the state \
         directory."
            .to_owned(),
    );
    report.notes.push(
        "drydock has a launcher for each container, which waits for it. runc --detach leaves \
         none: its users have a monitor (conmon, containerd-shim), which is not counted here. \
         Its containers share one overlay; each of drydock's has its own."
            .to_owned(),
    );
    Ok(report)
}

fn rows(name: &str, weight: &Weight, times: &mut Table, memory: &mut Table) {
    let count = weight.count.to_string();
    let start = &weight.start;
    times.row(&[
        name,
        &count,
        &figure(start.median),
        &spread(start),
        &figure(start.p95),
        &figure(weight.all),
        &figure(weight.end),
    ]);
    let together = weight.launcher + weight.inside + weight.kernel;
    memory.row(&[
        name,
        &count,
        &figure(weight.launcher),
        &figure(weight.inside),
        &figure(weight.kernel),
        &figure(together),
        &figure(weight.available),
        &figure(weight.charged),
        &figure(weight.disk),
    ]);
}

fn bar(name: &str, weight: &Weight) -> Bar {
    let part = |name: &str, value| (name.to_owned(), value);
    Bar {
        label: format!("{} {}", weight.count, name.trim_end_matches(" --detach")),
        parts: vec![
            part("launcher", weight.launcher),
            part("inside", weight.inside),
            part("kernel", weight.kernel),
        ],
        spread: None,
    }
}

fn keep(report: &mut Report, name: &str, weight: &Weight) {
    let name = format!("{name} {}", weight.count);
    report.measured(&format!("{name} start"), "ms", weight.start);
    for (what, unit, value) in [
        ("launcher", "KiB", weight.launcher),
        ("inside", "KiB", weight.inside),
        ("kernel", "KiB", weight.kernel),
        ("available", "KiB", weight.available),
        ("charged", "KiB", weight.charged),
        ("disk", "KiB", weight.disk),
        ("start of all", "s", weight.all),
        ("end of all", "s", weight.end),
    ] {
        if let Some(summary) = Summary::of(&[value]) {
            report.measured(&format!("{name} {what}"), unit, summary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn together_is_the_sum_of_its_parts() {
        let weight = Weight {
            count: 10,
            start: Summary::of(&[1.0]).unwrap(),
            all: 1.0,
            launcher: 100.0,
            inside: 50.0,
            kernel: 250.0,
            charged: 0.0,
            available: 400.0,
            disk: 12.0,
            end: 0.5,
        };
        let mut times = Table::new("", &[""; 8]);
        let mut memory = Table::new("", &[""; 9]);
        rows("x", &weight, &mut times, &mut memory);
        assert_eq!(memory.rows[0][5], "400");
        assert_eq!(times.rows[0][6], "0.500");
        assert_eq!(bar("runc --detach", &weight).label, "10 runc");
        assert_eq!(bar("x", &weight).length(), 400.0);
    }
}
