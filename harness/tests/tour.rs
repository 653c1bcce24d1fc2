//! The tour and its page in the book hold together. Whether the experiments
//! show what they must is for `./just tour --test` to see.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::{Command, Output};

use book::transcript;
use check::registry;
use check::workspace;
use course::tour;

fn harness(args: &[&str]) -> Output {
    let work = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_harness"))
        .arg("tour")
        .args(args)
        .env("DRYDOCK_WORK", work.path())
        .output()
        .unwrap()
}

#[test]
fn twelve_experiments_go_through_the_steps() {
    let experiments = tour::experiments().unwrap();
    assert_eq!(experiments.len(), 12);
    let steps: BTreeSet<String> = experiments.iter().map(|e| e.step.clone()).collect();
    let known: BTreeSet<String> = registry::numbers(&workspace::checks())
        .unwrap()
        .into_iter()
        .collect();
    assert!(steps.is_subset(&known), "{steps:?}");
    assert!(steps.len() >= 10, "{steps:?}");
    assert!(experiments.is_sorted_by_key(|experiment| experiment.step.clone()));
}

/// A page without the output of its commands.
fn without_output(page: &str) -> String {
    let mut lines: Vec<&str> = page.lines().collect();
    for block in transcript::blocks(page).unwrap().into_iter().rev() {
        for command in block.commands.into_iter().rev() {
            lines.drain(command.from..command.to);
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_page_shows_the_same_experiments() {
    let pages = book::pages().unwrap();
    let page = pages.iter().find(|page| page.name() == "tour").unwrap();
    let wanted = tour::page(&tour::experiments().unwrap());
    assert!(
        without_output(&page.text) == wanted,
        "book/src/tour.md is not that of harness/tour.toml: tools/harness tour --page"
    );
}

#[test]
fn the_output_on_the_page_is_the_answer() {
    let pages = book::pages().unwrap();
    let page = pages.iter().find(|page| page.name() == "tour").unwrap();
    let blocks = transcript::blocks(&page.text).unwrap();
    // The first block makes the directory.
    for (experiment, block) in tour::experiments().unwrap().iter().zip(&blocks[1..]) {
        let outputs: Vec<String> = block.commands.iter().map(|c| c.expected.clone()).collect();
        experiment.judge(&outputs).unwrap();
    }
}

#[test]
fn every_experiment_continues_in_a_section_of_its_step() {
    let pages = book::pages().unwrap();
    for experiment in tour::experiments().unwrap() {
        let (file, section) = experiment.continues();
        assert!(file.starts_with(&experiment.step), "{file}");
        let page = pages.iter().find(|page| page.path.ends_with(file)).unwrap();
        let slug = |heading: &str| -> String {
            let words = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = words
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        };
        let mut headings = page.text.lines().filter(|line| line.starts_with('#'));
        assert!(
            headings.any(|heading| slug(heading) == section),
            "{file}#{section}"
        );
    }
}

#[test]
fn the_list_is_plain_and_a_number_that_is_too_high_is_refused() {
    let listed = harness(&["--list"]);
    let text = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(text.lines().count(), 12);
    assert!(!text.contains('\u{1b}'), "{text}");
    let refused = harness(&["--from", "13"]);
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("1 to 12"), "{said}");
}
