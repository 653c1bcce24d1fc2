//! Whatever comes of a submission, its marks are as the services read them. The
//! types below describe that. A service ignores a field that it does not know;
//! they refuse it.

use anyhow::{Context, Result, ensure};
use check::outcome::{Outcome, Record};
use check::registry::Step;
use check::workspace;
use course::grade::marks::{Format, Marks};
use serde::Deserialize;
use serde_json::{Map, Value};

/// `results.json` of an autograder: "Autograder Specifications" and
/// "Leaderboards" in Gradescope's documentation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read, to see that they are what they should be")]
struct Gradescope {
    score: Option<f64>,
    execution_time: Option<f64>,
    output: Option<String>,
    output_format: Option<Form>,
    test_output_format: Option<Form>,
    test_name_format: Option<Form>,
    visibility: Option<Visibility>,
    stdout_visibility: Option<Visibility>,
    extra_data: Option<Map<String, Value>>,
    #[serde(default)]
    tests: Vec<GradescopeTest>,
    #[serde(default)]
    leaderboard: Vec<Place>,
}

/// With neither score nor status it only informs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read, to see that they are what they should be")]
struct GradescopeTest {
    score: Option<f64>,
    max_score: Option<f64>,
    status: Option<Passed>,
    name: Option<String>,
    name_format: Option<Form>,
    number: Option<String>,
    output: Option<String>,
    output_format: Option<Form>,
    #[serde(default)]
    tags: Vec<String>,
    visibility: Option<Visibility>,
    extra_data: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Visibility {
    Hidden,
    AfterDueDate,
    AfterPublished,
    Visible,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    Text,
    Html,
    SimpleFormat,
    Md,
    Ansi,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Passed {
    Passed,
    Failed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read, to see that they are what they should be")]
struct Place {
    name: String,
    value: NumberOrText,
    order: Option<Order>,
}

#[derive(Deserialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "read, to see that they are what they should be")]
enum NumberOrText {
    Number(f64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Asc,
    Desc,
}

/// What the action `autograding-grading-reporter` of GitHub Classroom reads of
/// one runner. There is no published schema.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read, to see that they are what they should be")]
struct Classroom {
    version: u32,
    status: Status,
    max_score: f64,
    tests: Vec<ClassroomTest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read, to see that they are what they should be")]
struct ClassroomTest {
    name: String,
    status: Status,
    score: f64,
    max_score: Option<f64>,
    message: Option<String>,
    test_code: Option<String>,
    filename: Option<String>,
    line_no: Option<u64>,
    execution_time: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Pass,
    Fail,
    Error,
}

/// What Gradescope would complain of, or pass over in silence.
fn read_by_gradescope(value: &Value) -> Result<()> {
    let read = Gradescope::deserialize(value)?;
    ensure!(
        read.score.is_some() || read.tests.iter().any(|test| test.score.is_some()),
        "no score"
    );
    ensure!(read.execution_time.is_none_or(|time| time >= 0.0));
    for test in read.tests {
        // Who reaches the largest score has passed: of 0 everybody does.
        let possible = test
            .max_score
            .is_none_or(|most| most > 0.0 && test.score.is_some());
        ensure!(possible, "max_score without a score, or of 0");
    }
    Ok(())
}

/// What GitHub Classroom's reporter would complain of.
fn read_by_classroom(value: &Value) -> Result<()> {
    let read = Classroom::deserialize(value)?;
    ensure!(read.version == 1 && read.max_score >= 0.0 && !read.tests.is_empty());
    for test in read.tests {
        ensure!(test.score >= 0.0 && test.max_score.is_none_or(|most| most >= 0.0));
        let time = test.execution_time.unwrap_or_else(|| "0ms".to_owned());
        let digits = time.strip_suffix("ms").context("a time in ms")?;
        digits.parse::<u64>().context("a time in ms")?;
    }
    Ok(())
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
    for (name, marks, points, of) in submissions(&step()?) {
        let value = written(&marks, Format::Gradescope)?;
        read_by_gradescope(&value).context(name)?;
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
    for (name, marks, points, of) in submissions(&step()?) {
        let value = written(&marks, Format::Classroom)?;
        read_by_classroom(&value).context(name)?;
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
fn what_is_wrong_is_refused() -> Result<()> {
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
        ensure!(read_by_gradescope(&value).is_err(), "{wrong}");
    }
    for right in [
        r#"{"score": 44.0, "execution_time": 136}"#,
        r#"{"tests": [{"name": "a", "status": "passed"}, {"score": 5, "max_score": 10}]}"#,
        r#"{"score": 1, "leaderboard": [{"name": "Time", "value": 15.1, "order": "asc"}]}"#,
    ] {
        let value = serde_json::from_str(right)?;
        read_by_gradescope(&value).context(right)?;
    }
    Ok(())
}
