//! The data of the checks: points, requirements, texts.
#![allow(clippy::unwrap_used)]

use check::registry::{Step, numbers};
use check::{requirement, workspace};

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
