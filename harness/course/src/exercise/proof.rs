//! What the checks must say of a step of which only some exercises are done.
//!
//! A syllabus may stop at the core's exercises, so the gaps of the others must
//! not be in its way. And whoever has done an exercise wants to see it: it turns
//! the checks green that it names.

use std::collections::BTreeSet;

use check::outcome::{Outcome, Record};
use check::registry::Step;

use super::{Exercises, Level};

/// The least points, of a hundred, when all exercises up to a level are done.
const LEAST: [(Level, u32); 3] = [(Level::Core, 50), (Level::More, 80), (Level::Bonus, 100)];

/// The checks of a step with the first `done` exercises done.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// The number of exercises that are done.
    pub done: usize,
    /// The checks that were run.
    ran: BTreeSet<String>,
    /// The checks that passed.
    passed: BTreeSet<String>,
    /// The checks that this machine cannot run.
    unsupported: BTreeSet<String>,
    /// The checks in which the harness failed.
    errors: BTreeSet<String>,
    /// The points of the checks that passed.
    pub points: u32,
    /// The points that were available on this machine.
    pub of: u32,
}

impl Stage {
    /// The stage that the records of a run show.
    pub fn new(step: &Step, done: usize, records: &[Record]) -> Self {
        let named = |wanted: Outcome| -> BTreeSet<String> {
            let records = records.iter().filter(|record| record.outcome == wanted);
            records.map(|record| record.check.clone()).collect()
        };
        let (passed, unsupported) = (named(Outcome::Pass), named(Outcome::Unsupported));
        let points = |chosen: &dyn Fn(&String) -> bool| -> u32 {
            let checks = step.checks.iter().filter(|check| chosen(&check.name));
            checks.map(|check| check.points).sum()
        };
        Stage {
            done,
            points: points(&|name| passed.contains(name)),
            of: points(&|name| !unsupported.contains(name)),
            ran: step.checks.iter().map(|c| c.name.clone()).collect(),
            passed,
            unsupported,
            errors: named(Outcome::Error),
        }
    }
}

/// What is wrong with the exercises of `step`, by its stages in ascending order.
/// Where two stages follow one another, what the exercise between them turns
/// green is compared with what it names.
pub fn complaints(exercises: &Exercises, stages: &[Stage]) -> Vec<String> {
    let mut complaints = Vec::new();
    for stage in stages {
        if stage.done == 0 && stage.points > 0 {
            let passed: Vec<&str> = stage.passed.iter().map(String::as_str).collect();
            complaints.push(format!("the skeleton passes {}", passed.join(", ")));
        }
        for (level, least) in LEAST {
            // Of what this machine can show.
            let enough = stage.points * 100 >= least * stage.of;
            if stage.done == exercises.up_to(level) && !enough {
                let Stage { points, of, .. } = stage;
                complaints.push(format!(
                    "all exercises up to {level} gain {points} points of {of}, and should gain \
                     {least} of a hundred"
                ));
            }
        }
        if !stage.errors.is_empty() {
            let errors: Vec<&str> = stage.errors.iter().map(String::as_str).collect();
            complaints.push(format!(
                "with {} done: errors in {}",
                stage.done,
                errors.join(", ")
            ));
        }
    }
    for pair in stages.windows(2) {
        let [before, after] = pair else { continue };
        if after.done == before.done + 1 {
            complaints.extend(of_exercise(exercises, before, after));
        }
    }
    complaints
}

/// What is wrong with the exercise between two stages.
fn of_exercise(exercises: &Exercises, before: &Stage, after: &Stage) -> Option<String> {
    let exercise = &exercises.all[before.done];
    let turned: BTreeSet<&String> = after.passed.difference(&before.passed).collect();
    let wrong: Vec<&str> = exercise
        .turns
        .iter()
        .filter(|check| !turned.contains(check) && !after.unsupported.contains(*check))
        .map(String::as_str)
        .collect();
    let lost = before.passed.difference(&after.passed);
    let lost: Vec<&str> = lost
        .filter(|check| after.ran.contains(*check))
        .map(String::as_str)
        .collect();
    let turned: Vec<&str> = turned.into_iter().map(String::as_str).collect();
    match (wrong.is_empty(), lost.is_empty()) {
        (true, true) => None,
        (_, false) => Some(format!("{} turns red: {}", exercise.name, lost.join(", "))),
        (false, _) => Some(format!(
            "{} does not turn {} green, but: {}",
            exercise.name,
            wrong.join(", "),
            turned.join(", ")
        )),
    }
}
