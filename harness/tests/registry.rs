//! The checks and the data beside them agree.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use check::registry::{Step, numbers};
use check::{requirement, workspace};

/// The names of the test functions in `step_NN.rs` and in the files of
/// `step_NN/`, its modules.
fn functions(number: &str) -> BTreeSet<String> {
    let file = workspace::checks().join(format!("step_{number}.rs"));
    let mut files = vec![(String::new(), file.clone())];
    for entry in fs::read_dir(file.with_extension("")).into_iter().flatten() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_string_lossy().into_owned();
        files.push((format!("{module}::"), path));
    }
    let mut names = BTreeSet::new();
    for (module, file) in files {
        let mut is_test = false;
        for line in fs::read_to_string(file).unwrap().lines() {
            if line.trim() == "#[test]" {
                is_test = true;
            } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
                names.insert(format!("{module}{}", rest.split('(').next().unwrap()));
                is_test = false;
            }
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
        let listed: Vec<String> = step.checks.iter().map(|check| check.path()).collect();
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
