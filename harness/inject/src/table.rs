//! The results of all faults, as a table and as records.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::plan::Recorded;
use super::verdict::Verdict;

/// The result of one fault.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Number of the fault in the plan.
    pub number: usize,
    /// Name of the form.
    pub form: String,
    /// The call at which it was injected.
    #[serde(flatten)]
    pub at: Recorded,
    /// What was injected.
    pub fault: String,
    /// How the launch ended.
    pub verdict: Verdict,
    /// Reason for a bad verdict; else empty.
    pub reason: String,
    /// Why the bad verdict stays, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// Duration in milliseconds.
    pub millis: u64,
}

impl Record {
    /// Whether this result fails the run.
    pub fn is_bad(&self) -> bool {
        !self.verdict.is_good() && self.exception.is_none()
    }

    /// The fault and its call in one line.
    pub fn describe(&self) -> String {
        let Recorded {
            process,
            call,
            nth,
            object,
            ..
        } = &self.at;
        format!(
            "{} · {} · {process} · {call} {nth} · {object} · {}",
            self.number, self.form, self.fault
        )
    }
}

/// A table with a row per call and fault, and the numbers of each verdict.
pub fn of(records: &[Record]) -> Table {
    let mut counts: BTreeMap<(&str, &str), BTreeMap<Verdict, usize>> = BTreeMap::new();
    let mut all: BTreeMap<Verdict, usize> = BTreeMap::new();
    for record in records {
        let of_call = counts.entry((&record.at.call, &record.fault)).or_default();
        *of_call.entry(record.verdict).or_default() += 1;
        *all.entry(record.verdict).or_default() += 1;
    }
    let columns: Vec<Verdict> = Verdict::ALL
        .into_iter()
        .filter(|verdict| verdict.is_good() || all.contains_key(verdict))
        .collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let heads = ["call", "fault", "times"].map(str::to_owned);
    table.set_header(
        heads
            .into_iter()
            .chain(columns.iter().map(Verdict::to_string)),
    );
    let row = |call: &str, fault: &str, of_call: &BTreeMap<Verdict, usize>| {
        let times: usize = of_call.values().sum();
        let counts = columns.iter().map(|verdict| match of_call.get(verdict) {
            None => String::new(),
            Some(times) => times.to_string(),
        });
        [call.to_owned(), fault.to_owned(), times.to_string()]
            .into_iter()
            .chain(counts)
            .collect::<Vec<String>>()
    };
    for ((call, fault), of_call) in &counts {
        table.add_row(row(call, fault, of_call));
    }
    table.add_row(row("all", "", &all));
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_a_call_and_fault_and_a_last_one_for_all() {
        let record = |call: &str, verdict| Record {
            number: 1,
            form: "alone".to_owned(),
            at: Recorded {
                process: "launcher".to_owned(),
                call: call.to_owned(),
                nth: 1,
                object: String::new(),
                creates: false,
            },
            fault: "EIO".to_owned(),
            verdict,
            reason: String::new(),
            exception: None,
            millis: 1,
        };
        let records = [
            record("read", Verdict::Refused),
            record("read", Verdict::Left),
            record("write", Verdict::Refused),
        ];
        let table = of(&records).to_string();
        let words: Vec<Vec<&str>> = table
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        let head = [
            "call", "fault", "times", "missed", "success", "refused", "killed", "left",
        ];
        assert_eq!(words[0], head);
        assert_eq!(words[1], ["read", "EIO", "2", "1", "1"]);
        assert_eq!(words[3], ["all", "3", "2", "1"]);
    }
}
