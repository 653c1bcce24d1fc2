//! `bench start`: from the start of the launcher to its end, around a command
//! that does nothing.

use anyhow::Result;

use super::chart::{Bar, Chart};
use super::contenders::{Contender, Standing, all};
use super::hyperfine::{Timed, rounds};
use super::inside::{self, Inside};
use super::report::Report;
use super::session::Session;
use super::stats::{Summary, figure, ratio, spread};
use super::table::Table;

/// Measures all contenders, and tabulates what each isolates.
pub fn run(session: &Session) -> Result<Report> {
    let mut report = Report::new(
        "start",
        "From the start of the launcher to its end, around /bin/true of the same busybox. \
         Measured by hyperfine in short rounds, in one order and then in the other.",
    );
    let standings = all(session)?;
    let ready: Vec<&Contender> = standings
        .iter()
        .filter_map(|standing| match standing {
            Standing::Ready(contender) => Some(contender),
            Standing::Absent(..) => None,
        })
        .collect();
    report.tables.push(isolation(session, &standings)?);
    let timed = ready
        .iter()
        .map(|contender| {
            Ok(Timed {
                name: contender.name.to_owned(),
                argv: contender.argv(session, "start", "/bin/true")?,
                prepare: String::new(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let dir = session.scratch.make("hyperfine")?;
    let times = rounds(&timed, session.runs, &dir, &session.scratch.stop)?;
    for (contender, times) in ready.iter().zip(&times) {
        if let Some(summary) = Summary::of(times) {
            report.measured(contender.name, "ms", summary.scaled(1000.0));
        }
    }
    let remarks: Vec<(&str, String)> = standings
        .iter()
        .map(|standing| match standing {
            Standing::Ready(contender) => (contender.name, contender.remark.to_owned()),
            Standing::Absent(name, why) => (*name, why.clone()),
        })
        .collect();
    present(&mut report, &remarks);
    if let Some(words) = &session.hidden {
        report.notes.push(format!(
            "This host has cgroups of version 1, and beside them version 2 with the remaining \
             controllers. crun refuses that: \"{words}\". So version 2 is unmounted in the mount \
             namespace of the bench, for all contenders."
        ));
    }
    Ok(report)
}

/// Adds the table of times and the chart, computed from the measures.
fn present(report: &mut Report, remarks: &[(&str, String)]) {
    let median = |name: &str| {
        let found = report.measures.iter().find(|m| m.name == name);
        found.map(|measure| measure.summary.median)
    };
    let (ours, floor) = (median("drydock"), median("floor"));
    let mut table = Table::new(
        "Start to exit",
        &["", "median, ms", "quartiles", "× drydock", "× floor", ""],
    );
    let mut chart = Chart {
        title: "Start to exit of /bin/true".to_owned(),
        unit: "ms".to_owned(),
        ..Chart::default()
    };
    for (name, remark) in remarks {
        let Some(measure) = report.measures.iter().find(|m| m.name == *name) else {
            table.row(&[name, "–", "", "", "", remark]);
            continue;
        };
        let summary = &measure.summary;
        let against =
            |other: Option<f64>| other.map_or(String::new(), |o| ratio(summary.median / o));
        table.row(&[
            name,
            &figure(summary.median),
            &spread(summary),
            &against(ours),
            &against(floor),
            remark,
        ]);
        chart.bars.push(Bar::of(name, summary));
    }
    report.tables.push(table);
    report.charts.push(chart);
}

fn isolation(session: &Session, standings: &[Standing]) -> Result<Table> {
    let mut table = Table::new(
        "What each start isolates, seen from inside and in its cgroups",
        &[
            "",
            "own namespaces",
            "limits",
            "root on",
            "capabilities, bounding set",
            "no new privileges",
            "seccomp",
            "masked",
        ],
    );
    for standing in standings {
        let Standing::Ready(contender) = standing else {
            continue;
        };
        if contender.name == "no container" {
            continue;
        }
        session.scratch.stop.check()?;
        let inside = inside::look(session, contender)?;
        let yes = |flag| if flag { "yes" } else { "no" };
        let Inside {
            namespaces,
            limits,
            root,
            ..
        } = &inside;
        table.row(&[
            contender.name,
            &namespaces.join(" "),
            &match limits.is_empty() {
                true => "none".to_owned(),
                false => limits.join(" "),
            },
            root,
            &inside.capabilities.map(|n| n.to_string()).join(", "),
            yes(inside.no_new_privs),
            yes(inside.seccomp),
            &inside.masked.to_string(),
        ]);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_contenders_are_rows() {
        let mut report = Report::new("start", "");
        for (name, ms) in [("floor", 2.0), ("drydock", 4.0), ("runc", 20.0)] {
            report.measured(name, "ms", Summary::of(&[ms, ms]).unwrap());
        }
        let remarks = [
            ("floor", String::new()),
            ("drydock", String::new()),
            ("runc", String::new()),
            ("youki", "missing".to_owned()),
        ];
        present(&mut report, &remarks);
        let rows = &report.tables[0].rows;
        assert_eq!(rows[2][..4], ["runc", "20.0", "20.0 … 20.0", "5.00×"]);
        assert_eq!(rows[3], ["youki", "–", "", "", "", "missing"]);
        assert_eq!(report.charts[0].bars.len(), 3);
        assert!(report.notes.is_empty());
    }
}
