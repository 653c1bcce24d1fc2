//! Whatever comes of a submission, its marks are as the services read them.

use anyhow::{Context, Result, ensure};
use harness::grade::marks::{Format, Marks};
use harness::outcome::{Outcome, Record};
use harness::registry::Step;
use harness::workspace;
use jsonschema::Validator;
use serde_json::Value;

const GRADESCOPE: &str = include_str!("../gradescope.schema.json");
const CLASSROOM: &str = include_str!("../classroom.schema.json");

fn schema(text: &str) -> Result<Validator> {
    let schema = serde_json::from_str(text).context("parse the schema")?;
    jsonschema::draft202012::new(&schema).context("compile the schema")
}

fn complaints(schema: &Validator, value: &Value) -> Vec<String> {
    let complaint =
        |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    schema.iter_errors(value).map(complaint).collect()
}

fn step() -> Result<Step> {
    Step::read(&workspace::checks(), "01")
}

fn record(check: &str, outcome: Outcome) -> Record {
    Record {
        step: "01".to_owned(),
        check: check.to_owned(),
        variant: None,
        outcome,
        message: match outcome {
            Outcome::Pass => String::new(),
            _ => "expected <b>, found \u{1b}[31mred\u{1b}[0m \"\u{0}\"".to_owned(),
        },
        host: Vec::new(),
        said: Vec::new(),
        seed: 1,
        millis: 12,
    }
}

/// What can come of a submission: name, records, trouble, points of how many.
fn submissions(step: &Step) -> Vec<(&'static str, Marks, u32, u32)> {
    let all = |outcome| -> Vec<Record> {
        let names = step.checks.iter().map(|check| &check.name);
        names.map(|name| record(name, outcome)).collect()
    };
    let passed = all(Outcome::Pass);
    let mut mixed = passed.clone();
    mixed[0].outcome = Outcome::Fail;
    mixed[1].outcome = Outcome::Blocked;
    mixed[2].outcome = Outcome::Error;
    let lost: u32 = step.checks[..3].iter().map(|check| check.points).sum();
    let mut without = passed.clone();
    without[3] = record(&step.checks[3].name, Outcome::Unsupported);
    let rest = 100 - step.checks[3].points;
    let four: u32 = step.checks[..4].iter().map(|check| check.points).sum();
    let words = |text: &str| Some(text.to_owned());
    vec![
        ("full", Marks::of(step, &passed, None), 100, 100),
        (
            "failing",
            Marks::of(step, &all(Outcome::Fail), None),
            0,
            100,
        ),
        ("mixed", Marks::of(step, &mixed, None), 100 - lost, 100),
        ("unsupported", Marks::of(step, &without, None), rest, rest),
        (
            "not compiling",
            Marks::of(
                step,
                &[],
                words("it does not compile:\nerror: Vec<u8>\u{7}"),
            ),
            0,
            100,
        ),
        (
            "broken off",
            Marks::of(step, &passed[..4], words("broken off: took more than 9 s")),
            four,
            100,
        ),
        ("unfinished", Marks::so_far(step, &passed[..4]), four, 100),
    ]
}

fn written(marks: &Marks, format: Format) -> Result<Value> {
    serde_json::from_str(&marks.format(format, "ada")?).context("parse the marks")
}

#[test]
fn gradescope_gets_what_it_reads() -> Result<()> {
    let schema = schema(GRADESCOPE)?;
    for (name, marks, points, of) in submissions(&step()?) {
        let value = written(&marks, Format::Gradescope)?;
        let complaints = complaints(&schema, &value);
        ensure!(complaints.is_empty(), "{name}: {complaints:#?}");
        ensure!(value["score"] == points, "{name}: {}", value["score"]);
        let tests = value["tests"].as_array().context("tests")?;
        let sum = |field: &str| {
            tests
                .iter()
                .filter_map(|test| test[field].as_u64())
                .sum::<u64>()
        };
        ensure!(
            sum("score") == u64::from(points),
            "{name}: the sum of the scores"
        );
        ensure!(
            sum("max_score") == u64::from(of),
            "{name}: what could be had"
        );
        ensure!(!value.to_string().contains("\\u001b"), "{name}: an escape");
    }
    Ok(())
}

#[test]
fn what_cannot_be_shown_is_neither_passed_nor_failed() -> Result<()> {
    for (name, marks, ..) in submissions(&step()?) {
        if name == "unsupported" {
            let value = written(&marks, Format::Gradescope)?;
            let test = value["tests"][3].as_object().context("the fourth test")?;
            ensure!(!test.contains_key("status") && !test.contains_key("max_score"));
            ensure!(
                test["output"]
                    .as_str()
                    .is_some_and(|o| o.starts_with("not counted"))
            );
        }
    }
    Ok(())
}

#[test]
fn classroom_gets_what_it_reads() -> Result<()> {
    let schema = schema(CLASSROOM)?;
    for (name, marks, points, of) in submissions(&step()?) {
        let value = written(&marks, Format::Classroom)?;
        let complaints = complaints(&schema, &value);
        ensure!(complaints.is_empty(), "{name}: {complaints:#?}");
        let tests = value["tests"].as_array().context("tests")?;
        let sum: u64 = tests.iter().filter_map(|test| test["score"].as_u64()).sum();
        ensure!(sum == u64::from(points), "{name}: {sum}");
        ensure!(value["max_score"] == of, "{name}: {}", value["max_score"]);
        let passes = points == of;
        ensure!(
            (value["status"] == "pass") == passes,
            "{name}: {}",
            value["status"]
        );
    }
    Ok(())
}

#[test]
fn the_schemas_refuse_what_is_wrong() -> Result<()> {
    let schema = schema(GRADESCOPE)?;
    for wrong in [
        r#"{}"#,
        r#"{"tests": []}"#,
        r#"{"score": "100"}"#,
        r#"{"score": 1, "stdout": "x"}"#,
        r#"{"score": 1, "visibility": "always"}"#,
        r#"{"score": 1, "tests": [{"status": "pass"}]}"#,
        r#"{"score": 1, "tests": [{"score": 0, "max_score": 0}]}"#,
        r#"{"score": 1, "tests": [{"number": 1}]}"#,
    ] {
        let value = serde_json::from_str(wrong)?;
        ensure!(!complaints(&schema, &value).is_empty(), "{wrong}");
    }
    for right in [
        r#"{"score": 44.0, "execution_time": 136}"#,
        r#"{"tests": [{"name": "a", "status": "passed"}, {"score": 5, "max_score": 10}]}"#,
        r#"{"score": 1, "leaderboard": [{"name": "Time", "value": 15.1, "order": "asc"}]}"#,
    ] {
        let value = serde_json::from_str(right)?;
        let complaints = complaints(&schema, &value);
        ensure!(complaints.is_empty(), "{right}: {complaints:#?}");
    }
    Ok(())
}
