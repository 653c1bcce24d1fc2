//! The output of `step-07 stats` and `top`.

use std::collections::BTreeMap;

use crate::limits::units::Bytes;
use crate::observe::freeze::GroupState;
use crate::observe::stats::{Stats, Used};

/// CPU use by the name of the group, in percent of one CPU.
pub(crate) type Percent = BTreeMap<String, f64>;

/// A table with one line per group. `percent` is the CPU use since the previous
/// sample, if there is one.
pub(crate) fn table(all: &[Stats], percent: Option<&Percent>) -> String {
    let line = |name: &str, rest: [String; 8]| {
        let [state, pids, cpu, throttled, memory, limit, oom, io] = rest;
        format!(
            "{name:<26}{state:<8}{pids:>6}{cpu:>10}{throttled:>11}{memory:>10}{limit:>8}{oom:>5}  {io}\n"
        )
    };
    let cpu = if percent.is_some() { "CPU %" } else { "CPU s" };
    let header = [
        "STATE",
        "PIDS",
        cpu,
        "THROTTLED",
        "MEMORY",
        "LIMIT",
        "OOM",
        "READ/WRITTEN",
    ];
    let mut text = line("GROUP", header.map(String::from));
    for stats in all {
        let cpu = match percent {
            Some(percent) => percent.get(&stats.name).map(|p| format!("{p:.1}")),
            None => stats.cpu.map(|cpu| format!("{:.2}", cpu.as_secs_f64())),
        };
        text += &line(
            &stats.name,
            [
                state(stats).to_owned(),
                stats.processes.to_string(),
                or_dash(cpu),
                or_dash(
                    stats
                        .throttled
                        .map(|t| format!("{}/{}", t.throttled, t.periods)),
                ),
                or_dash(stats.memory.map(|memory| size(memory.now.0))),
                or_dash(
                    stats
                        .memory
                        .and_then(|m| m.limit)
                        .map(|limit| size(limit.0)),
                ),
                or_dash(stats.oom_kills),
                or_dash(
                    stats
                        .io
                        .map(|(r, w)| format!("{}/{}", size(r.0), size(w.0))),
                ),
            ],
        );
    }
    text
}

/// All statistics of one group, one per line. Values that this host does not
/// account for are omitted.
pub(crate) fn details(stats: &Stats) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!("{what:<18}{value}\n");
        }
    };
    line("group", Some(stats.name.clone()));
    line("state", Some(state(stats).to_owned()));
    line("processes", Some(stats.processes.to_string()));
    line("pids", stats.pids.map(|pids| used(pids, |n| n.to_string())));
    line("forks refused", stats.forks_refused.map(|n| n.to_string()));
    line(
        "cpu",
        stats.cpu.map(|cpu| format!("{:.3} s", cpu.as_secs_f64())),
    );
    line(
        "throttled",
        stats.throttled.map(|t| {
            let (throttled, periods, time) = (t.throttled, t.periods, t.time.as_secs_f64());
            format!("in {throttled} of {periods} periods, for {time:.3} s")
        }),
    );
    let bytes = |bytes: Bytes| bytes.0.to_string();
    line("memory", stats.memory.map(|memory| used(memory, bytes)));
    line("memory peak", stats.memory_peak.map(bytes));
    line("swap", stats.swap.map(|swap| used(swap, bytes)));
    line("oom kills", stats.oom_kills.map(|n| n.to_string()));
    line("read", stats.io.map(|(read, _)| bytes(read)));
    line("written", stats.io.map(|(_, written)| bytes(written)));
    for (what, average) in &stats.pressure {
        line(&format!("{what} pressure"), Some(format!("{average:.2} %")));
    }
    text
}

fn state(stats: &Stats) -> &'static str {
    match stats.state {
        Some(GroupState::Frozen) => "paused",
        _ if stats.processes == 0 => "empty",
        _ => "runs",
    }
}

fn used<T>(used: Used<T>, show: impl Fn(T) -> String) -> String {
    match used.limit {
        Some(limit) => format!("{} of {}", show(used.now), show(limit)),
        None => show(used.now),
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

/// A number of bytes in about four characters.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["", "k", "m", "g"] {
        if value < 1024.0 {
            let digits = usize::from(value < 10.0 && !unit.is_empty());
            return format!("{value:.digits$}{unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.0}t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1536, "1.5k"),
            (128 << 20, "128m"),
            (3 << 40, "3t"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_table_has_a_line_a_group() {
        let stats = Stats {
            name: "drydock-1-2".to_owned(),
            ..Stats::default()
        };
        let text = table(&[stats], None);
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().nth(1).unwrap().contains("empty"));
    }
}
