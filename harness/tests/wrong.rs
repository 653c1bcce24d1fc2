//! The wrong solutions still fit our code and the list of checks. Whether they
//! are found out is for `just test-wrong` to see.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use harness::registry::{self, Step};
use harness::{workspace, wrong};

#[test]
fn every_edit_fits_and_names_checks_that_exist() {
    for wrong in wrong::all().unwrap() {
        wrong.files().unwrap();
        let step = Step::read(&workspace::checks(), &wrong.step).unwrap();
        for name in &wrong.fails {
            assert!(
                step.entry(name).is_some(),
                "{}: no check {name}",
                wrong.name
            );
        }
    }
}

#[test]
fn every_check_has_a_wrong_solution() {
    let all = wrong::all().unwrap();
    let failed: BTreeSet<(String, String)> = all
        .iter()
        .flat_map(|w| w.fails.iter().map(|check| (w.step.clone(), check.clone())))
        .collect();
    let dir = workspace::checks();
    let mut without = Vec::new();
    for number in registry::numbers(&dir).unwrap() {
        for check in Step::read(&dir, &number).unwrap().checks {
            if !failed.contains(&(number.clone(), check.name.clone())) {
                without.push(format!("step {number}: {}", check.name));
            }
        }
    }
    assert!(
        without.is_empty(),
        "nothing shows that these can fail: {without:#?}"
    );
}
