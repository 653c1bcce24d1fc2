//! `bench native`: the same work outside and inside a container, in turns.

use std::thread;

use anyhow::{Context, Result, bail};

use super::chart::{Bar, Chart};
use super::figures::Figures;
use super::network;
use super::peers::IMAGE;
use super::report::Report;
use super::session::Session;
use super::stats::{Summary, figure, spread};
use super::table::Table;
use super::tools::{need, output};
use check::workspace;

/// The storage drivers. Files are written through each.
const DRIVERS: [&str; 5] = ["overlay2", "aufs", "btrfs", "devicemapper", "vfs"];

/// One piece of work, as a command outside and a command inside.
pub struct Pair {
    /// The name in the table.
    pub name: String,
    /// The command outside.
    pub outside: Vec<String>,
    /// The command that runs it in a container.
    pub inside: Vec<String>,
}

/// Measures computing, memory, files and network. A driver that does not work
/// here becomes a row with the reason.
pub fn run(session: &Session) -> Result<Report> {
    let mut report = Report::new(
        "native",
        "The same work outside and inside, in turns, without limits. The work measures itself, \
         so the figures exclude the start of the container. More is better; the ratio is inside \
         to outside.",
    );
    let mut table = Table::new(
        "Inside against outside",
        &[
            "",
            "outside",
            "quartiles",
            "inside",
            "quartiles",
            "unit",
            "ratio",
            "",
        ],
    );
    let rounds = (session.runs / 6).clamp(1, 9);
    for pair in compute(session) {
        let (outside, inside) = turns(session, &pair, rounds)?;
        add(&mut report, &mut table, &pair.name, &outside, &inside);
    }
    let quick = session.runs < 10;
    for driver in DRIVERS {
        match files(session, driver, rounds, quick) {
            Ok((outside, inside)) => {
                add(&mut report, &mut table, driver, &outside, &inside);
            }
            Err(error) => {
                session.scratch.stop.check()?;
                let none = "–";
                table.row(&[driver, none, "", none, "", "", "", &refusal(&error)]);
            }
        }
    }
    match need("iperf3") {
        Err(error) => report.notes.push(format!("Network: {error}.")),
        Ok(program) => {
            // The thread unshares its network namespace, which ends with the
            // thread and what it started.
            let measured = thread::scope(|scope| {
                let work = || network::measure(session, &program, rounds.min(3));
                scope.spawn(work).join()
            });
            let Ok(measured) = measured else {
                bail!("the thread of the network died");
            };
            for (name, outside, inside) in measured? {
                add(&mut report, &mut table, &name, &outside, &inside);
            }
        }
    }
    let bars = table.rows.iter().filter_map(|row| {
        let ratio = row.get(6)?.trim_end_matches(" %").parse().ok()?;
        let label = row[0].split(':').next().unwrap_or_default();
        let short: String = match row[0].split_once(": ") {
            Some((_, what)) => format!("{label} {what}"),
            None => label.to_owned(),
        };
        Some(Bar {
            label: short,
            parts: vec![(String::new(), ratio)],
            spread: None,
        })
    });
    report.charts.push(Chart {
        title: "Inside against outside".to_owned(),
        unit: "% of the speed outside".to_owned(),
        bars: bars.collect(),
    });
    report.tables.push(table);
    report.notes.push(
        "Inside, files are written to the container's root, which the driver mounts; outside, to \
         a directory of the same disk. Writing ends with fsync(2). Reading is from the page \
         cache. AUFS is our server in user space, over FUSE; btrfs is on a loop device, in a \
         file of the same disk."
            .to_owned(),
    );
    Ok(report)
}

/// A piece of work of `bench-load`, with `options` for the container.
pub fn pair(session: &Session, name: &str, work: &[&str], options: &[&str]) -> Pair {
    let load = workspace::bin().join("bench-load").display().to_string();
    let work = work.iter().map(|&word| word.to_owned());
    let mut inside = session.drydock(&["run", "--rm", "--network", "none"]);
    inside.extend(["--cgroup-parent".to_owned(), session.scratch.group()]);
    inside.extend(options.iter().map(|&word| word.to_owned()));
    inside.extend([IMAGE.to_owned(), "/bin/bench-load".to_owned()]);
    inside.extend(work.clone());
    Pair {
        name: name.to_owned(),
        outside: [load].into_iter().chain(work).collect(),
        inside,
    }
}

fn compute(session: &Session) -> Vec<Pair> {
    let cpus = session.machine.cpus.to_string();
    let mut pairs = vec![
        pair(session, "compute, one core", &["lu"], &[]),
        pair(session, "memory, one core", &["triad"], &[]),
    ];
    if session.machine.cpus > 1 {
        let all = |work| [work, "--threads", &cpus];
        pairs.insert(1, pair(session, "compute, all cores", &all("lu"), &[]));
        pairs.push(pair(session, "memory, all cores", &all("triad"), &[]));
    }
    pairs
}

/// Measures files through one driver, whose state has a directory of its own in
/// the scratch place.
fn files(session: &Session, driver: &str, rounds: u32, quick: bool) -> Result<(Figures, Figures)> {
    let state = format!("lib-{driver}");
    let option = ["--storage-driver", driver];
    session.import(&state, &option)?;
    let outside = session.scratch.make("outside")?.display().to_string();
    let mib = if quick { "8" } else { "64" };
    let count = if quick { "50" } else { "500" };
    let work = |dir: &str| {
        ["files", dir, "--mib", mib, "--count", count]
            .map(str::to_owned)
            .to_vec()
    };
    let words = work("/root");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut pair = pair(session, driver, &words, &option);
    // The value of --root: the driver's own state.
    pair.inside[2] = session.scratch.word(&state);
    pair.outside.truncate(1);
    pair.outside.extend(work(&outside));
    turns(session, &pair, rounds)
}

/// The reason why a driver does not take part, shortened.
fn refusal(error: &anyhow::Error) -> String {
    let words = format!("{error:#}");
    let reason = words.split_once("does not work here: ").map(|(_, why)| why);
    let reason = reason.unwrap_or(&words);
    reason
        .split([';', '('])
        .next()
        .unwrap_or(reason)
        .trim()
        .to_owned()
}

/// Runs the work outside and inside in turns, and returns the figures of both.
pub fn turns(session: &Session, pair: &Pair, rounds: u32) -> Result<(Figures, Figures)> {
    let (mut outside, mut inside) = (Figures::new(), Figures::new());
    for round in 0..rounds {
        session.scratch.stop.check()?;
        let one = |argv: &[String], into: &mut Figures| -> Result<()> {
            for (name, value, unit) in printed(argv)? {
                into.entry((name, unit)).or_default().push(value);
            }
            Ok(())
        };
        if round % 2 == 0 {
            one(&pair.outside, &mut outside)?;
            one(&pair.inside, &mut inside)?;
        } else {
            one(&pair.inside, &mut inside)?;
            one(&pair.outside, &mut outside)?;
        }
    }
    Ok((outside, inside))
}

/// Runs a command of `bench-load` and parses the figures that it prints.
pub fn printed(argv: &[String]) -> Result<Vec<(String, f64, String)>> {
    let printed = output(argv)?;
    let text = String::from_utf8_lossy(&printed);
    text.lines().map(line).collect()
}

/// Parses a line of bench-load, `lu 3.2 Gflop/s`, into name, value and unit.
pub fn line(line: &str) -> Result<(String, f64, String)> {
    let words: Vec<&str> = line.split(' ').collect();
    let [name, value, unit] = words[..] else {
        bail!("not a figure: {line:?}");
    };
    let number = value
        .parse()
        .with_context(|| format!("not a figure: {line:?}"))?;
    Ok((name.to_owned(), number, unit.to_owned()))
}

fn add(report: &mut Report, table: &mut Table, name: &str, outside: &Figures, inside: &Figures) {
    for ((what, unit), sample) in outside {
        let other = inside.get(&(what.clone(), unit.clone()));
        let (Some(outside), Some(inside)) = (
            Summary::of(sample),
            Summary::of(other.map_or(&[], Vec::as_slice)),
        ) else {
            continue;
        };
        // Work with a single figure needs no second name.
        let full = match ["lu", "triad", "throughput"].contains(&what.as_str()) {
            true => name.to_owned(),
            false => format!("{name}: {what}"),
        };
        table.row(&[
            &full,
            &figure(outside.median),
            &spread(&outside),
            &figure(inside.median),
            &spread(&inside),
            unit,
            &format!("{:.1} %", inside.median / outside.median * 100.0),
        ]);
        report.measured(&format!("{full}, outside"), unit, outside);
        report.measured(&format!("{full}, inside"), unit, inside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_compared() {
        assert_eq!(line("lu 3.2 Gflop/s").unwrap().1, 3.2);
        assert!(line("lu fast").is_err());
        let refused = anyhow::anyhow!("drydock: the driver x does not work here: no x (X; y); see");
        assert_eq!(refusal(&refused), "no x");
        let figures = |value| {
            let key = ("write".to_owned(), "MB/s".to_owned());
            Figures::from([(key, vec![value])])
        };
        let mut report = Report::default();
        let mut table = Table::new("", &[""; 8]);
        add(
            &mut report,
            &mut table,
            "vfs",
            &figures(200.0),
            &figures(150.0),
        );
        assert_eq!(table.rows[0][0], "vfs: write");
        assert_eq!(table.rows[0][6], "75.0 %");
        assert_eq!(report.measures.len(), 2);
    }
}
