//! The exercises and their data agree, and every skeleton can be made.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use check::outcome::{Outcome, Record};
use check::registry::{self, Step};
use check::workspace;
use course::exercise::proof::{self, Stage};
use course::exercise::skeleton::{self, Solutions};
use course::exercise::work::Work;
use course::exercise::{Exercises, Level, region};

/// The number of files in which the exercises of a step lie, at most: with more,
/// a chapter has lost its lesson.
const MOST_FILES: usize = 4;

fn of_each_step(look: impl Fn(&str, &Exercises, &BTreeSet<String>) -> Result<()>) -> Result<()> {
    for number in registry::numbers(&workspace::checks())? {
        let exercises = skeleton::exercises(&number)?;
        let regions = skeleton::places(&skeleton::step_dir(&number)?)?
            .into_iter()
            .map(|place| place.exercise)
            .collect();
        look(&number, &exercises, &regions).with_context(|| format!("step {number}"))?;
    }
    Ok(())
}

#[test]
fn every_region_has_a_task_and_every_task_a_region() -> Result<()> {
    of_each_step(|_, exercises, regions| {
        let tasks: BTreeSet<String> = exercises.all.iter().map(|e| e.name.clone()).collect();
        ensure!(tasks.len() == exercises.all.len(), "a name occurs twice");
        ensure!(&tasks == regions, "tasks {tasks:?}, regions {regions:?}");
        Ok(())
    })
}

#[test]
fn every_step_has_several_exercises_and_the_core_comes_first() -> Result<()> {
    of_each_step(|_, exercises, _| {
        let levels: Vec<Level> = exercises.all.iter().map(|e| e.level).collect();
        ensure!(levels.len() >= 4, "{} exercises", levels.len());
        ensure!(levels[0] == Level::Core, "the first is not of the core");
        ensure!(levels.is_sorted(), "{levels:?} are not in order");
        for level in [Level::More, Level::Bonus] {
            ensure!(levels.contains(&level), "none is {level}");
        }
        Ok(())
    })
}

#[test]
fn a_steps_exercises_lie_in_at_most_four_files() -> Result<()> {
    for (number, dir) in skeleton::steps()? {
        let places = skeleton::places(&dir)?;
        let files: BTreeSet<_> = places.into_iter().map(|place| place.file).collect();
        ensure!(files.len() <= MOST_FILES, "step {number}: {files:?}");
    }
    Ok(())
}

#[test]
fn every_exercise_names_the_checks_that_it_turns_green() -> Result<()> {
    of_each_step(|number, exercises, _| {
        let step = Step::read(&workspace::checks(), number)?;
        let mut turned = BTreeSet::new();
        for exercise in &exercises.all {
            ensure!(!exercise.turns.is_empty(), "{} names none", exercise.name);
            for check in &exercise.turns {
                ensure!(step.entry(check).is_some(), "{}: {check}", exercise.name);
                ensure!(turned.insert(check), "{check} is named twice");
            }
        }
        Ok(())
    })
}

#[test]
fn a_skeleton_has_no_solution_in_it() -> Result<()> {
    let dir = tempfile::tempdir().context("tempdir")?;
    of_each_step(|number, exercises, _| {
        let ours = skeleton::step_dir(number)?;
        let to = dir.path().join(number);
        skeleton::copy(number, &to, Solutions::CutOut)?;
        for place in skeleton::places(&ours)? {
            let file = to.join(&place.file);
            let text = std::fs::read_to_string(&file).context("read the skeleton")?;
            ensure!(
                !text.contains(&place.solution),
                "{} has the solution of {}",
                file.display(),
                place.exercise
            );
            let exercise = exercises.get(&place.exercise).context("no task")?;
            ensure!(
                region::is_open(&text, exercise),
                "{} has no gap for {}",
                file.display(),
                place.exercise
            );
        }
        ensure!(!exercises.all.is_empty(), "no exercises");
        Ok(())
    })
}

#[test]
fn what_a_learner_has_begun_is_not_written_over() -> Result<()> {
    let dir = tempfile::tempdir().context("tempdir")?;
    let work = Work::at(dir.path());
    let own = work.start("01")?;
    let file = own.join("src/lib.rs");
    std::fs::write(&file, "mine").context("write")?;
    let Err(error) = work.start("01") else {
        anyhow::bail!("started once more");
    };
    ensure!(error.to_string().contains("there already"), "{error:#}");
    ensure!(
        std::fs::read_to_string(&file).context("read")? == "mine",
        "written over"
    );
    Ok(())
}

/// The rows of a chapter's table of exercises, with the header first.
fn table(chapter: &str) -> Vec<Vec<String>> {
    chapter
        .lines()
        .skip_while(|line| !line.starts_with("| exercise |"))
        .take_while(|line| line.starts_with('|'))
        .filter(|line| !line.starts_with("|---"))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// Exercise, level, files, and the first of the checks that it turns green.
#[test]
fn every_chapter_has_the_table_of_its_exercises() -> Result<()> {
    let pages = book::pages()?;
    of_each_step(|number, exercises, _| {
        let chapter = pages.iter().find(|page| page.name().starts_with(number));
        let Some(chapter) = chapter else {
            return Ok(());
        };
        let checks = registry::Step::read(&workspace::checks(), number)?.checks;
        let places = skeleton::places(&skeleton::step_dir(number)?)?;
        let rows = table(&chapter.text);
        let rows = rows.get(1..).context("the chapter has no table")?;
        let title = |name: &String| {
            let entry = checks.iter().find(|entry| entry.name == *name);
            entry.map(|entry| entry.title.as_str()).unwrap_or_default()
        };
        for (place, exercise) in exercises.all.iter().enumerate() {
            let mut files: Vec<String> = places
                .iter()
                .filter(|place| place.exercise == exercise.name)
                .filter_map(|place| place.file.strip_prefix("src").ok())
                .map(|file| format!("`{}`", file.display()))
                .collect();
            files.sort();
            files.dedup();
            let turned = match &exercise.turns[..] {
                [only] => title(only).to_owned(),
                [first, more @ ..] => format!("{} (and {} more)", title(first), more.len()),
                [] => anyhow::bail!("{} turns no check", exercise.name),
            };
            let wanted = [
                format!("`{}`", exercise.name),
                exercise.level.to_string(),
                files.join(", "),
                turned,
            ];
            let found = rows.get(place).map_or(&[][..], |row| &row[..]);
            ensure!(
                found == wanted,
                "row {place}: {found:?} stands where {wanted:?} should"
            );
        }
        ensure!(rows.len() == exercises.all.len(), "{} rows", rows.len());
        Ok(())
    })
}

/// The stage of step 01 with `done` exercises done, in which these checks pass.
fn stage(done: usize, passed: &[&str]) -> Result<Stage> {
    let step = Step::read(&workspace::checks(), "01")?;
    let records: Vec<Record> = step
        .checks
        .iter()
        .map(|check| Record {
            outcome: match passed.contains(&check.name.as_str()) {
                true => Outcome::Pass,
                false => Outcome::Fail,
            },
            ..Record::new("01", &check.name, 0)
        })
        .collect();
    Ok(Stage::new(&step, done, &records))
}

#[test]
fn a_level_that_gains_too_little_is_named() -> Result<()> {
    let exercises = skeleton::exercises("01")?;
    let [none, core, ..] = exercises.level_ends();
    let first = "the_uts_namespace_and_no_other_is_new";
    let stages = [stage(none, &[first])?, stage(core, &[first])?];
    let complaints = proof::complaints(&exercises, &stages);
    ensure!(complaints.len() == 2, "{complaints:?}");
    ensure!(complaints[0].contains("the skeleton passes the_uts_namespace"));
    ensure!(complaints[1].contains("up to core gain 10 points of 100"));
    Ok(())
}

#[test]
fn an_exercise_must_turn_green_what_it_names() -> Result<()> {
    let exercises = skeleton::exercises("01")?;
    let turns: Vec<&str> = exercises.all[0].turns.iter().map(String::as_str).collect();
    let nothing = stage(0, &[])?;
    let good = proof::complaints(&exercises, &[nothing.clone(), stage(1, &turns)?]);
    ensure!(good.is_empty(), "{good:?}");
    let bad = proof::complaints(&exercises, &[nothing, stage(1, &turns[1..])?]);
    ensure!(bad.len() == 1, "{bad:?}");
    ensure!(bad[0].contains(&format!("does not turn {} green", turns[0])));
    let lost = [
        stage(1, &turns)?,
        stage(
            2,
            &exercises.all[1]
                .turns
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        )?,
    ];
    let lost = proof::complaints(&exercises, &lost);
    ensure!(lost.len() == 1 && lost[0].contains("turns red"), "{lost:?}");
    Ok(())
}
