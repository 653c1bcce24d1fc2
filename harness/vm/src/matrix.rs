//! The checks of steps on many kernels: the cells of a table, and their
//! summary.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::CgroupLayout;
use check::outcome::{Outcome, Record};

/// One kernel with one layout of cgroups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Cell {
    /// Version, such as `6.12`.
    pub kernel: String,
    /// Layout of the cgroup file systems.
    pub cgroup: CgroupLayout,
}

/// The outcomes of the checks in one cell.
#[derive(Clone, Debug, Serialize)]
pub struct Outcomes {
    /// The kernel and the layout.
    #[serde(flatten)]
    pub cell: Cell,
    /// One record per check, as far as the machine came.
    pub records: Vec<Record>,
    /// Why the machine broke off; `None` if it ran all checks.
    pub trouble: Option<String>,
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kernel, self.cgroup)
    }
}

impl Outcomes {
    /// Number of checks with this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        let same = |record: &&Record| record.outcome == outcome;
        self.records.iter().filter(same).count()
    }

    /// Whether every check passed or is unsupported, and the machine ran them
    /// all.
    pub fn is_good(&self) -> bool {
        self.trouble.is_none() && !self.records.iter().any(Record::is_open)
    }

    /// A summary in one line: `208 pass, 1 fail, 9 unsupported`.
    pub fn summary(&self) -> String {
        if let Some(trouble) = &self.trouble {
            return format!("broken off: {trouble}");
        }
        let open = self.records.iter().filter(|r| r.is_open()).count();
        format!(
            "{} pass, {open} fail, {} unsupported",
            self.count(Outcome::Pass),
            self.count(Outcome::Unsupported)
        )
    }
}

/// The table: a row per kernel, a column per layout, and in each cell how many
/// checks passed, failed and are unsupported.
pub fn table(all: &[Outcomes]) -> String {
    let mut kernels: Vec<&str> = Vec::new();
    let mut layouts: Vec<CgroupLayout> = Vec::new();
    for outcomes in all {
        let Cell { kernel, cgroup } = &outcomes.cell;
        if !kernels.contains(&kernel.as_str()) {
            kernels.push(kernel);
        }
        if !layouts.contains(cgroup) {
            layouts.push(*cgroup);
        }
    }
    layouts.sort();
    let mut text = format!("{:<8}", "kernel");
    for layout in &layouts {
        let head = format!("cgroup {layout}");
        let _infallible = write!(text, "{head:>30}");
    }
    text = text.trim_end().to_owned() + "\n";
    for kernel in kernels {
        let mut row = format!("{kernel:<8}");
        for layout in &layouts {
            let found = all
                .iter()
                .find(|o| o.cell.kernel == kernel && o.cell.cgroup == *layout);
            let words = match found {
                None => "-".to_owned(),
                Some(outcomes) if outcomes.trouble.is_some() => "broken off".to_owned(),
                Some(outcomes) => outcomes.summary(),
            };
            let words = words.replace("unsupported", "unsup.");
            let _infallible = write!(row, "{words:>30}");
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}

/// The `wanted` checks by message, each message followed by the cells in which
/// it occurred.
pub fn explained(all: &[Outcomes], wanted: impl Fn(&Record) -> bool) -> String {
    let mut found: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for outcomes in all {
        for record in outcomes.records.iter().filter(|record| wanted(record)) {
            let check = format!("step {} {}", record.step, record.check);
            let mut why = record.message.clone();
            for line in &record.host {
                why += &format!("; host changed: {line}");
            }
            found
                .entry((why, check))
                .or_default()
                .push(outcomes.cell.to_string());
        }
    }
    // Print a reason once for all checks that share it.
    let mut by_reason: BTreeMap<(String, Vec<String>), Vec<String>> = BTreeMap::new();
    for ((why, check), cells) in found {
        by_reason.entry((why, cells)).or_default().push(check);
    }
    let mut text = String::new();
    for ((why, cells), checks) in by_reason {
        let cells = match cells.len() == all.len() {
            true => "everywhere".to_owned(),
            false => format!("on {}", cells.join(", ")),
        };
        text += &format!("  {why}\n    {cells}\n");
        for check in checks {
            text += &format!("      {check}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(kernel: &str, cgroup: CgroupLayout, outcome: Outcome) -> Outcomes {
        Outcomes {
            cell: Cell {
                kernel: kernel.to_owned(),
                cgroup,
            },
            records: vec![Record {
                step: "07".to_owned(),
                check: "limits_hold".to_owned(),
                variant: None,
                outcome,
                message: "the words".to_owned(),
                host: Vec::new(),
                said: Vec::new(),
                seed: 1,
                millis: 1,
            }],
            trouble: None,
        }
    }

    #[test]
    fn a_row_a_kernel_and_a_column_a_layout() {
        let all = [
            outcomes("5.10", CgroupLayout::V2, Outcome::Pass),
            outcomes("5.10", CgroupLayout::V1, Outcome::Unsupported),
            outcomes("6.12", CgroupLayout::V2, Outcome::Fail),
        ];
        let table = table(&all);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        assert!(lines[1].contains("1 pass, 0 fail"), "{table}");
        assert!(lines[2].ends_with(" -"), "{table}");
        assert!(!all[2].is_good() && all[1].is_good());
    }

    #[test]
    fn a_reason_is_said_once_with_its_cells() {
        let all = [
            outcomes("5.10", CgroupLayout::V2, Outcome::Fail),
            outcomes("6.12", CgroupLayout::V2, Outcome::Fail),
            outcomes("6.12", CgroupLayout::V1, Outcome::Pass),
        ];
        let text = explained(&all, Record::is_open);
        assert_eq!(text.matches("the words").count(), 1, "{text}");
        assert!(text.contains("on 5.10 v2, 6.12 v2"), "{text}");
    }

    #[test]
    fn a_message_stays_as_it_is_whatever_it_says() {
        let mut all = [outcomes("6.12", CgroupLayout::V2, Outcome::Fail)];
        all[0].records[0].message = "found it on everywhere".to_owned();
        let text = explained(&all, Record::is_open);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "found it on everywhere",
                "everywhere",
                "step 07 limits_hold"
            ]
        );
    }
}
