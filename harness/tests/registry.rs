//! The checks and the data beside them agree.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use harness::registry::{Step, numbers};
use harness::{requirement, workspace};

/// The names of the test functions in `step_NN.rs`.
fn functions(number: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(workspace::checks().join(format!("step_{number}.rs"))).unwrap();
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines() {
        if line.trim() == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
            names.insert(rest.split('(').next().unwrap().to_owned());
            is_test = false;
        }
    }
    names
}

fn steps() -> Vec<Step> {
    let dir = workspace::checks();
    let steps: Vec<Step> = numbers(&dir)
        .unwrap()
        .iter()
        .map(|n| Step::read(&dir, n).unwrap())
        .collect();
    assert!(!steps.is_empty());
    steps
}

#[test]
fn every_check_has_its_data_and_all_data_has_its_check() {
    for step in steps() {
        let listed: Vec<String> = step.checks.iter().map(|check| check.name.clone()).collect();
        let unique: BTreeSet<String> = listed.iter().cloned().collect();
        assert_eq!(
            listed.len(),
            unique.len(),
            "step {}: a check is listed twice",
            step.step
        );
        assert_eq!(unique, functions(&step.step), "step {}", step.step);
    }
}

#[test]
fn a_step_is_worth_100_points() {
    for step in steps() {
        let sum: u32 = step.checks.iter().map(|check| check.points).sum();
        assert_eq!(sum, 100, "step {}", step.step);
    }
}

#[test]
fn every_requirement_is_known_and_every_text_is_there() {
    for step in steps() {
        for check in &step.checks {
            for name in &check.requires {
                assert!(
                    requirement::is_known(name),
                    "step {}: {}: {name}",
                    step.step,
                    check.name
                );
            }
            for text in [&check.title, &check.why, &check.hint] {
                assert!(
                    !text.trim().is_empty(),
                    "step {}: {}",
                    step.step,
                    check.name
                );
            }
        }
    }
}
