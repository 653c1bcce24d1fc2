//! `stats`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write, stdout};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cgroups::NamedGroup;
use cgroups::named::Usage;
use clap::Args;
use engine::cli::places::Places;
use engine::container::{Record, Records};
use nix::unistd::Pid;
use process::Exit;

use crate::cli::format::{Listing, Row};
use crate::cli::swept;
use crate::cli::words::{binary, decimal};

/// The options of `stats`.
#[derive(Args, Clone, Debug)]
pub struct StatsArgs {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Format the output by a Go template, or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Names or IDs of containers [default: all running ones]
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const LISTING: Listing = Listing {
    usual: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    heads: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};

/// How far apart two looks are, of which one shows the use of processors.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a container uses.
#[derive(Clone, Debug, Default)]
struct Sample {
    at: Option<Instant>,
    usage: Usage,
    /// Bytes received and sent.
    net: (u64, u64),
}

/// Prints what containers use, once or again and again.
pub(super) fn run(places: &Places, args: &StatsArgs) -> Result<Exit> {
    let records = swept(places)?;
    // Names that do not exist are an error before anything is printed.
    let named = args
        .containers
        .iter()
        .map(|name| Ok((name.clone(), records.find(name)?.spec.id)))
        .collect::<Result<Vec<_>>>()?;
    let mut before = looks(&wanted(&records, args, &named)?)?;
    if !args.no_stream {
        // All that is known at once: the first table comes without a wait.
        print(&records, args, &named, &before, &before)?;
    }
    loop {
        thread::sleep(INTERVAL);
        let now = looks(&wanted(&records, args, &named)?)?;
        if !print(&records, args, &named, &before, &now)? || args.no_stream {
            return Ok(Exit::Code(0));
        }
        before = now;
    }
}

/// The containers to show, each as it was called.
fn wanted(
    records: &Records,
    args: &StatsArgs,
    named: &[(String, String)],
) -> Result<Vec<(String, Record)>> {
    if !named.is_empty() {
        let mut found = Vec::new();
        for (name, id) in named {
            // It may have been removed since.
            found.extend(records.read(id)?.map(|record| (name.clone(), record)));
        }
        return Ok(found);
    }
    let all = records.all()?.into_iter();
    let wanted = all.filter(|record| args.all || record.is_running());
    Ok(wanted
        .map(|record| (record.spec.id.clone(), record))
        .collect())
}

fn looks(containers: &[(String, Record)]) -> Result<BTreeMap<String, Sample>> {
    let mut samples = BTreeMap::new();
    for (_, record) in containers {
        samples.insert(record.spec.id.clone(), look(record)?);
    }
    Ok(samples)
}

/// What a container uses now; nothing if it does not run.
fn look(record: &Record) -> Result<Sample> {
    if !record.is_running() || record.pid == 0 {
        return Ok(Sample::default());
    }
    let sample = || -> Result<Sample> {
        let group = NamedGroup::of_process(Pid::from_raw(record.pid))?;
        let usage = match group.is_empty() {
            // Its user may not make any.
            true => Usage::default(),
            false => group.usage()?,
        };
        Ok(Sample {
            at: Some(Instant::now()),
            usage,
            net: traffic(record.pid)?,
        })
    };
    let sample = sample();
    // What was read is of another process by now, or of none.
    match record.launcher.is_parent_of(record.pid) {
        true => sample,
        false => Ok(Sample::default()),
    }
}

/// Bytes received and sent in the network namespace of a process, unless that is
/// the caller's.
fn traffic(pid: i32) -> Result<(u64, u64)> {
    let of = |who: &str| {
        let path = format!("/proc/{who}/ns/net");
        fs::metadata(&path)
            .map(|stat| (stat.dev(), stat.ino()))
            .with_context(|| format!("stat {path}"))
    };
    if of(&pid.to_string())? == of("self")? {
        return Ok((0, 0));
    }
    let path = format!("/proc/{pid}/net/dev");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(sum(&text))
}

/// Sums the first and the ninth number of each line `eth0: 1 2 …` of
/// /proc/net/dev, but for the loopback device.
fn sum(text: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in text.lines() {
        let Some((name, numbers)) = line.split_once(':') else {
            continue;
        };
        if name.trim() == "lo" {
            continue;
        }
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        sums.0 += numbers.first().copied().unwrap_or_default();
        sums.1 += numbers.get(8).copied().unwrap_or_default();
    }
    sums
}

/// All the memory of the machine, in bytes.
pub(super) fn of_machine() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(number.context("no MemTotal in /proc/meminfo")? * 1024)
}

fn row(
    called: &str,
    record: &Record,
    no_trunc: bool,
    before: &Sample,
    now: &Sample,
) -> Result<Row> {
    let usage = &now.usage;
    let percent = match (
        before.at,
        now.at,
        before.usage.cpu_nanoseconds,
        usage.cpu_nanoseconds,
    ) {
        (Some(earlier), Some(at), Some(then), Some(used)) if at > earlier => {
            let elapsed = at.duration_since(earlier).as_nanos() as f64;
            used.saturating_sub(then) as f64 / elapsed * 100.0
        }
        _ => 0.0,
    };
    // The page cache that nobody has used lately is no need for memory: Docker
    // leaves it out.
    let memory = usage.memory.unwrap_or_default();
    let memory = memory.saturating_sub(usage.inactive_file.unwrap_or_default());
    let limit = match (now.at, usage.memory) {
        (Some(_), Some(_)) => {
            let machine = of_machine()?;
            usage
                .memory_limit
                .map_or(machine, |limit| limit.min(machine))
        }
        _ => 0,
    };
    let share = match limit {
        0 => 0.0,
        limit => memory as f64 / limit as f64 * 100.0,
    };
    let pair = |(first, second): (u64, u64)| {
        format!(
            "{} / {}",
            decimal(first as f64, 3),
            decimal(second as f64, 3)
        )
    };
    let io = (
        usage.read.unwrap_or_default(),
        usage.written.unwrap_or_default(),
    );
    let id = match no_trunc {
        true => record.spec.id.clone(),
        false => record.short_id().to_owned(),
    };
    Ok(Row {
        cells: BTreeMap::from([
            ("Container", called.to_owned()),
            ("ID", id),
            ("Name", record.spec.name.clone()),
            ("CPUPerc", format!("{percent:.2}%")),
            (
                "MemUsage",
                format!("{} / {}", binary(memory as f64), binary(limit as f64)),
            ),
            ("MemPerc", format!("{share:.2}%")),
            ("NetIO", pair(now.net)),
            ("BlockIO", pair(io)),
            ("PIDs", usage.processes.unwrap_or_default().to_string()),
        ]),
        labels: record.spec.labels.clone(),
    })
}

/// Prints a table. Returns `false` if nobody reads.
fn print(
    records: &Records,
    args: &StatsArgs,
    named: &[(String, String)],
    before: &BTreeMap<String, Sample>,
    now: &BTreeMap<String, Sample>,
) -> Result<bool> {
    let none = Sample::default();
    let mut rows = Vec::new();
    for (called, record) in wanted(records, args, named)? {
        let before = before.get(&record.spec.id).unwrap_or(&none);
        let now = now.get(&record.spec.id).unwrap_or(&none);
        rows.push(row(&called, &record, args.no_trunc, before, now)?);
    }
    let mut text = LISTING.print(args.format.as_deref(), &rows)?;
    if !args.no_stream {
        // The cursor home, and everything below it erased.
        text = format!("\x1b[H\x1b[J{text}");
    }
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_that_of_all_but_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n    \
                    lo:     100       1    0    0    0     0          0         0      100       1\n  \
                    eth0:    1054      13    0    0    0     0          0         0      42       2\n";
        assert_eq!(sum(text), (1054, 42));
    }
}
