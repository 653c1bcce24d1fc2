//! The wrong solutions still fit our code and the list of checks. Whether they
//! are found out is for `just test-wrong` to see.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use check::registry::{self, Step};
use check::workspace;
use course::wrong::{self, Messages};

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

#[test]
fn every_step_has_at_least_four() {
    let all = wrong::all().unwrap();
    for number in registry::numbers(&workspace::checks()).unwrap() {
        let count = all.iter().filter(|w| w.step == number).count();
        assert!(count >= 4, "step {number} has {count}");
    }
}

#[test]
fn what_the_checks_say_of_each_is_recorded_and_names_it() {
    for wrong in wrong::all().unwrap() {
        let step = Step::read(&workspace::checks(), &wrong.step).unwrap();
        let recorded = Messages::recorded(&wrong).unwrap();
        let recorded = recorded.unwrap_or_else(|| {
            panic!("{}: no record: ./just test-wrong --accept", wrong.name);
        });
        let checks: BTreeSet<String> = recorded.keys().cloned().collect();
        assert_eq!(checks, wrong.fails, "{}", wrong.name);
        let why = wrong.fails.iter().filter_map(|name| step.entry(name));
        assert!(
            recorded.values().any(|text| text.contains(&wrong.says))
                || why.into_iter().any(|entry| entry.why.contains(&wrong.says)),
            "{}: neither the record nor a reason says {:?}",
            wrong.name,
            wrong.says
        );
    }
}

#[test]
fn every_record_is_of_a_wrong_solution() {
    let names: BTreeSet<String> = wrong::all().unwrap().into_iter().map(|w| w.name).collect();
    for entry in fs::read_dir(wrong::snapshots()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "new") {
            continue; // a difference that nobody has reviewed yet
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            path.extension().is_some_and(|e| e == "snap") && names.contains(&name),
            "{}: of no wrong solution",
            path.display()
        );
    }
}
