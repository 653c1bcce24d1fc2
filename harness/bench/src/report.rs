//! The results of a bench: tables for people, measures for programs, charts.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

use super::chart::{self, Chart};
use super::machine::Machine;
use super::stats::Summary;
use super::table::Table;

/// Everything that one session measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The machine that ran the benches.
    pub machine: Machine,
    /// The reports, in the order of the measurements.
    pub reports: Vec<Report>,
}

impl Results {
    /// Reads results from a file.
    pub fn read(file: &Path) -> Result<Results> {
        let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("parse {}", file.display()))
    }

    /// Writes the results as JSON.
    pub fn write(&self, file: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self).context("write the results as JSON")?;
        json.push(b'\n');
        fs::write(file, json).with_context(|| format!("write {}", file.display()))
    }
}

/// The results of one bench.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The name of the bench: `start`.
    pub name: String,
    /// What was measured, and how, in a sentence or two.
    pub about: String,
    /// The tables, made from the measures.
    pub tables: Vec<Table>,
    /// The charts, made from the measures.
    pub charts: Vec<Chart>,
    /// Notes that a reader of the tables needs.
    pub notes: Vec<String>,
    /// The figures, for programs.
    pub measures: Vec<Measure>,
}

impl Report {
    /// An empty report.
    pub fn new(name: &str, about: &str) -> Self {
        Report {
            name: name.to_owned(),
            about: about.to_owned(),
            ..Report::default()
        }
    }

    /// Adds a measure.
    pub fn measured(&mut self, name: &str, unit: &str, summary: Summary) {
        self.measures.push(Measure {
            name: name.to_owned(),
            unit: unit.to_owned(),
            summary,
        });
    }

    /// The report for a page of the book, or only its table of this number,
    /// counted from 1.
    pub fn page(&self, table: Option<usize>) -> Result<String> {
        if let Some(number) = table {
            let at = number.checked_sub(1).and_then(|at| self.tables.get(at));
            let table = at.with_context(|| format!("{} has no table {number}", self.name))?;
            return Ok(framed(table));
        }
        let mut out = format!("*{}*\n\n", self.about);
        for table in &self.tables {
            out += &format!("**{}**\n\n{}\n", table.title, framed(table));
        }
        for drawing in &self.charts {
            let svg = chart::inline(drawing);
            out += &format!("<figure class=\"figure\">\n{svg}\n</figure>\n\n");
        }
        for note in &self.notes {
            out += &format!("- {note}\n");
        }
        Ok(out)
    }

    /// The report as text for a terminal.
    pub fn text(&self) -> String {
        let mut out = format!("== {}\n{}\n", self.name, self.about);
        for table in &self.tables {
            out += &format!("\n{}\n\n{}\n", table.title, table.text());
        }
        for note in &self.notes {
            out += &format!("\n· {note}");
        }
        out.push('\n');
        out
    }
}

/// A table in a page, in the `div` that the style sheet sets in narrow columns.
fn framed(table: &Table) -> String {
    format!(
        "<div class=\"measured\">\n\n{}\n\n</div>\n",
        table.markdown()
    )
}

/// A measured quantity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// What was measured: `drydock`.
    pub name: String,
    /// The unit: `ms`, `KiB`, `MB/s`…
    pub unit: String,
    /// The statistics of the sample.
    pub summary: Summary,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_text_and_markdown() {
        let mut table = Table::new("t", &["what", "ms"]);
        table.row(&["a|b", "1"]);
        table.row(&["c"]);
        let lines: Vec<String> = table.markdown().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("|---"), "{lines:?}");
        assert!(lines[2].contains("a\\|b"), "{lines:?}");
        assert!(table.text().contains("a|b"));
    }

    #[test]
    fn a_page_has_tables_charts_and_notes_or_one_table() {
        let mut report = Report::new("start", "about");
        report.tables.push(Table::new("times", &["ms"]));
        report.charts.push(Chart::default());
        report.notes.push("note".to_owned());
        let page = report.page(None).unwrap();
        for word in ["*about*", "**times**", "| ms |", "<svg", "- note"] {
            assert!(page.contains(word), "{word}: {page}");
        }
        assert!(report.page(Some(1)).unwrap().contains("| ms |"));
        assert!(report.page(Some(2)).is_err());
        assert!(report.page(Some(0)).is_err());
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let mut report = Report::new("start", "about");
        report.measured("x", "ms", Summary::of(&[1.0, 2.0]).unwrap());
        let results = Results {
            machine: Machine::default(),
            reports: vec![report],
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        results.write(file.path()).unwrap();
        let again = Results::read(file.path()).unwrap();
        assert_eq!(again.reports, results.reports);
    }
}
