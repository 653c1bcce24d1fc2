//! A preprocessor for mdBook, with insertions that mdBook lacks:
//!
//! | in a page | becomes |
//! |---|---|
//! | `{{#figure NAME}}` | the diagram `book/figures/NAME.svg`, inline, so that it takes the theme's colours |
//! | `{{#main-diff NN}}` | `main.rs` of step NN as a difference to that of the step before |
//! | `{{#bench NAME}}` | the tables, charts and notes of the bench NAME in the recorded run (`book/bench.json`); `machine` is the machine; a number after NAME takes only that table |
//! | `{{#wrong NN-name}}` | a wrong solution of the harness: its title, its edit, and the checks that find it |
//!
//! It also removes the words after `console`, which are for
//! [`transcript`](super::transcript), and the common indentation of listings,
//! which mdBook has cut out of functions. So it must run after mdBook's own
//! `links`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::experiments::check_title;
use bench::report::Results;
use check::registry::Step;
use check::workspace;
use check::wrap::wrap;
use course::wrong::{self, Messages, Wrong};

/// Reads mdBook's context and book from `input`, and writes the book with the
/// insertions to `output`.
pub fn run(input: &mut dyn Read, output: &mut dyn Write) -> Result<()> {
    let mut text = String::new();
    input.read_to_string(&mut text).context("read the book")?;
    let (_, mut book): (Value, Value) = serde_json::from_str(&text).context("parse the book")?;
    // `items` since mdBook 0.5.
    chapters(book.get_mut("items").context("a book without items")?)?;
    serde_json::to_writer(output, &book).context("write the book")
}

fn chapters(items: &mut Value) -> Result<()> {
    for item in items.as_array_mut().into_iter().flatten() {
        let Some(chapter) = item.get_mut("Chapter") else {
            continue;
        };
        let path = chapter["path"].as_str().unwrap_or("a draft").to_owned();
        if let Some(content) = chapter["content"].as_str() {
            chapter["content"] = page(content).with_context(|| path)?.into();
        }
        chapters(&mut chapter["sub_items"])?;
    }
    Ok(())
}

/// The text of a page with its insertions.
pub fn page(text: &str) -> Result<String> {
    let mut out = String::new();
    for line in text.lines() {
        match line.strip_prefix("{{#").and_then(|l| l.strip_suffix("}}")) {
            Some(words) => match words.split_once(' ') {
                Some(("figure", name)) => out += &figure(name)?,
                Some(("main-diff", step)) => out += &main_diff(step)?,
                Some(("bench", words)) => out += &measured(words)?,
                Some(("wrong", name)) => out += &wrong_solution(name)?,
                _ => out += line, // mdBook's own
            },
            None if line.starts_with("```console,") => out += "```console",
            None => out += line,
        }
        out.push('\n');
    }
    Ok(to_the_left(&out))
}

/// Removes the indentation that all lines of a listing share.
fn to_the_left(text: &str) -> String {
    let mut out = String::new();
    let mut listing: Option<Vec<&str>> = None;
    for line in text.lines() {
        match &mut listing {
            None => {
                if line == "```rust" {
                    listing = Some(Vec::new());
                }
                out += line;
                out.push('\n');
            }
            Some(lines) if line == "```" => {
                let blanks = |line: &&str| line.len() - line.trim_start().len();
                let indent = lines
                    .iter()
                    .filter(|l| !l.trim().is_empty())
                    .map(blanks)
                    .min();
                for line in lines {
                    out += line.get(indent.unwrap_or_default()..).unwrap_or_default();
                    out.push('\n');
                }
                out += "```\n";
                listing = None;
            }
            Some(lines) => lines.push(line),
        }
    }
    out
}

fn figure(name: &str) -> Result<String> {
    let path = super::dir().join("figures").join(format!("{name}.svg"));
    let svg = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(format!(
        "<figure class=\"figure\">\n{}\n</figure>\n",
        svg.trim()
    ))
}

/// The results of the recorded run.
fn measured(words: &str) -> Result<String> {
    let results = Results::read(&bench::recorded())?;
    let (name, table) = match words.split_once(' ') {
        None => (words, None),
        Some((name, number)) => {
            let number = number.parse();
            (
                name,
                Some(number.with_context(|| format!("{words} is not a table"))?),
            )
        }
    };
    if name == "machine" {
        return Ok(format!("{}\n", results.machine.table().markdown()));
    }
    let report = results.reports.iter().find(|report| report.name == name);
    report
        .with_context(|| format!("nothing was recorded of {name}"))?
        .page(table)
}

fn main_diff(step: &str) -> Result<String> {
    let number: u32 = step
        .parse()
        .with_context(|| format!("{step} is not a step"))?;
    let before = number
        .checked_sub(1)
        .context("step 00 has none before it")?;
    let (old, new) = (main_rs(before)?, main_rs(number)?);
    let diff = similar::TextDiff::from_lines(&old, &new);
    let text = diff.unified_diff().context_radius(2).to_string();
    Ok(format!("```diff\n{}```\n", text))
}

fn main_rs(step: u32) -> Result<String> {
    let steps = workspace::root().join("steps");
    let prefix = format!("{step:02}-");
    for entry in fs::read_dir(&steps).context("list steps")? {
        let entry = entry.context("list steps")?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let path = entry.path().join("src/main.rs");
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            return Ok(composition(&text));
        }
    }
    bail!("there is no step {step:02}")
}

/// `main.rs` without the texts of `--help`: doc comments and constants.
fn composition(text: &str) -> String {
    let mut out = String::new();
    let mut in_constant = false;
    for line in text.lines() {
        in_constant |= line.starts_with("const ");
        let ends = in_constant && line.ends_with(';');
        let blank_again = line.is_empty() && out.ends_with("\n\n");
        if !in_constant && !line.trim_start().starts_with("//") && !blank_again {
            out += line;
            out.push('\n');
        }
        in_constant &= !ends;
    }
    out.trim_start().to_owned()
}

/// The checks whose messages the book quotes, by the names of the wrong
/// solutions that fail more than one check: `book/messages.toml`.
pub fn quoted_checks() -> Result<BTreeMap<String, String>> {
    let path = super::dir().join("messages.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("parse {}", path.display()))
}

/// The check that the book quotes for a wrong solution, and its recorded
/// message.
fn message(wrong: &Wrong) -> Result<(String, String)> {
    let recorded = Messages::recorded(wrong)?
        .with_context(|| format!("nothing is recorded of {}", wrong.name))?;
    let check = match quoted_checks()?.remove(&wrong.name) {
        Some(check) => check,
        None => wrong.fails.first().cloned().unwrap_or_default(),
    };
    let text = recorded
        .get(&check)
        .with_context(|| format!("nothing is recorded of {}: {check}", wrong.name))?;
    Ok((check, broken(text)))
}

/// Wraps a text to the width of the page.
fn broken(text: &str) -> String {
    const WIDTH: usize = 88;
    let lines = text.lines().flat_map(|line| wrap(line, WIDTH));
    lines.map(|line| line + "\n").collect()
}

fn wrong_solution(name: &str) -> Result<String> {
    let all = wrong::all()?;
    let Some(wrong) = all.iter().find(|w| w.name == name) else {
        bail!("there is no wrong solution {name}");
    };
    wrong.files()?; // fails if an edit no longer fits
    let mut out = format!("**Belief: {}.**\n\n```diff\n", wrong.title);
    for edit in &wrong.edits {
        let file = edit.file.trim_start_matches("steps/");
        out += &format!("--- {file}\n");
        let (from, to) = (closed(&edit.from), closed(&edit.to));
        let diff = similar::TextDiff::from_lines(&from, &to);
        for change in diff.iter_all_changes() {
            out += &format!("{}{}", change.tag(), change.value());
        }
    }
    out += "```\n\nFound by:\n\n";
    let step = Step::read(&workspace::checks(), &wrong.step)?;
    for check in &wrong.fails {
        out += &format!("- {}\n", check_title(&step, check)?);
    }
    let (check, message) = message(wrong)?;
    let title = check_title(&step, &check)?;
    out += &format!("\nThe check “{title}” reports:\n\n```text\n{message}```\n");
    Ok(out)
}

fn closed(text: &str) -> String {
    format!("{}\n", text.trim_matches('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insertions_are_made() {
        let text = page("a\n{{#main-diff 02}}\n{{#wrong 04-no-ms-private}}\n```console,norun=x\n")
            .unwrap();
        assert!(text.contains("+            .with(Ipc::new(args.ipc))"));
        assert!(text.contains("-_ => change(\"/\", MsFlags::MS_PRIVATE),"));
        assert!(!text.contains("EXAMPLES: &str"));
        assert!(text.ends_with("```console\n"));
        let listing = "```rust\n    a {\n        b\n\n    }\n```\n";
        assert_eq!(page(listing).unwrap(), "```rust\na {\n    b\n\n}\n```\n");
        assert!(page("{{#figure 04}}").unwrap().contains("<svg"));
        assert!(page("{{#wrong 04-nothing}}").is_err());
        assert!(page("{{#bench start}}").unwrap().contains("<svg"));
        assert!(page("{{#bench nothing}}").is_err());
        assert!(page("{{#main-diff 00}}").is_err());
    }
}
