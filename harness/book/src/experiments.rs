//! The table of experiments, with the pages and checks of each:
//! `book/src/experiments.md`.

use anyhow::{Context, Result, bail};

use super::Page;
use check::registry::Step;
use check::workspace;

/// The experiments that the book must have: E1 to E19, and E22 to E24.
pub fn required() -> Vec<String> {
    (1..=19).chain(22..=24).map(|n| format!("E{n}")).collect()
}

/// A row: ``| E5 | what | [section](link) | `step_03::check` |``.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// The number: `E5`.
    pub number: String,
    /// The linked pages, without their anchors.
    pub pages: Vec<String>,
    /// The checks: step and name.
    pub checks: Vec<(String, String)>,
}

/// Parses the rows of the table.
pub fn rows(text: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| E")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, _, sections, checks] = cells[..] else {
            bail!("not four columns: {line}");
        };
        let pages = sections
            .split("](")
            .skip(1)
            .filter_map(|link| Some(link.split([')', '#']).next()?.to_owned()))
            .collect();
        let checks = checks
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|check| {
                let (step, name) = check
                    .split_once("::")
                    .with_context(|| format!("{number}: {check} is not step_NN::name"))?;
                Ok((step.trim_start_matches("step_").to_owned(), name.to_owned()))
            })
            .collect::<Result<_>>()?;
        rows.push(Row {
            number: number.to_owned(),
            pages,
            checks,
        });
    }
    Ok(rows)
}

/// The faults of the table, one per line: a missing row, a row without a
/// section, one without a check, a check that does not exist.
pub fn complaints(table: &Page, pages: &[Page]) -> Result<Vec<String>> {
    let rows = rows(&table.text)?;
    let mut complaints = Vec::new();
    for number in required() {
        let Some(row) = rows.iter().find(|row| row.number == number) else {
            complaints.push(format!("{number} is missing"));
            continue;
        };
        if row.pages.is_empty() || row.checks.is_empty() {
            complaints.push(format!("{number} needs a section and a check"));
        }
        for path in &row.pages {
            if !pages.iter().any(|page| &page.path == path) {
                complaints.push(format!("{number}: there is no page {path}"));
            }
        }
        for (step, name) in &row.checks {
            let known = Step::read(&workspace::checks(), step)
                .and_then(|step| check_title(&step, name).map(drop));
            if let Err(error) = known {
                complaints.push(format!("{number}: {error:#}"));
            }
        }
    }
    Ok(complaints)
}

/// The title of a check: what holds if the check passes.
pub fn check_title(step: &Step, name: &str) -> Result<String> {
    let entry = step
        .entry(name)
        .with_context(|| format!("step {} has no check {name}", step.step))?;
    Ok(entry.title.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_sections_and_checks() {
        let text = "| # | a | b | c |\n|---|---|---|---|\n\
            | E5 | PIDs | [a](03-pid.md#x), [b](y.md) | `step_03::one`, `step_04::two` |\n";
        let rows = rows(text).unwrap();
        assert_eq!(rows[0].number, "E5");
        assert_eq!(rows[0].pages, ["03-pid.md", "y.md"]);
        assert_eq!(rows[0].checks[1], ("04".to_owned(), "two".to_owned()));
    }
}
