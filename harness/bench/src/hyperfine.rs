//! hyperfine(1), which measures: its command line and its JSON.
//!
//! Commands run in short rounds, in one order and then in the other, so that a
//! drift in the machine's speed affects all of them alike.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::scratch::Stop;
use super::tools;

/// A command to measure. It runs without a shell.
#[derive(Clone, Debug)]
pub struct Timed {
    /// The name in the results.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The shell command that runs before each measurement; empty for none.
    pub prepare: String,
}

/// The most measurements of a command in one round.
const PER_ROUND: u32 = 5;

#[derive(Deserialize)]
struct Exported {
    results: Vec<Measured>,
}

#[derive(Deserialize)]
struct Measured {
    command: String,
    times: Vec<f64>,
}

/// Measures each command `runs` times, at least twice, and returns the seconds
/// of each run. Each round begins with one more run of each command, which is
/// not counted.
pub fn rounds(commands: &[Timed], runs: u32, dir: &Path, stop: &Stop) -> Result<Vec<Vec<f64>>> {
    let program = tools::need("hyperfine")?;
    let mut times = vec![Vec::new(); commands.len()];
    for (number, count) in split(runs).into_iter().enumerate() {
        stop.check()?;
        let mut order: Vec<usize> = (0..commands.len()).collect();
        if number % 2 == 1 {
            order.reverse();
        }
        let export = dir.join("hyperfine.json");
        let mut words = vec![program.display().to_string()];
        let mut add = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
        add(&["--style", "none", "-N", "--warmup", "1", "--export-json"]);
        add(&[&export.display().to_string(), "--runs", &count.to_string()]);
        for &at in &order {
            let timed = &commands[at];
            // hyperfine takes a --prepare for every command, or none at all.
            if commands.iter().any(|c| !c.prepare.is_empty()) {
                let prepare = match timed.prepare.as_str() {
                    "" => "true",
                    words => words,
                };
                add(&["--prepare", &format!("sh -c {}", quoted(prepare))]);
            }
            add(&["-n", &timed.name, &line(&timed.argv)]);
        }
        let complaint = tools::complaint(&words)?;
        stop.check()?;
        if let Some(words) = complaint {
            bail!("hyperfine: {words}");
        }
        let text = std::fs::read(&export).with_context(|| format!("read {}", export.display()))?;
        for (name, more) in parse(&text)? {
            let at = commands.iter().position(|c| c.name == name);
            times[at.with_context(|| format!("hyperfine measured {name}"))?].extend(more);
        }
    }
    Ok(times)
}

/// The sizes of the rounds for `runs` measurements.
fn split(runs: u32) -> Vec<u32> {
    let rounds = runs.div_ceil(PER_ROUND).max(1);
    (0..rounds)
        .map(|round| (runs * (round + 1) / rounds - runs * round / rounds).max(2))
        .collect()
}

/// The name of each command, and the seconds of each of its runs.
fn parse(json: &[u8]) -> Result<Vec<(String, Vec<f64>)>> {
    let exported: Exported =
        serde_json::from_slice(json).context("parse the results of hyperfine")?;
    let pair = |measured: Measured| (measured.command, measured.times);
    Ok(exported.results.into_iter().map(pair).collect())
}

/// The command line of a shell that runs a command.
pub fn line(argv: &[String]) -> String {
    let words: Vec<String> = argv.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_json_is_read() {
        let json = br#"{"results": [{"command": "a", "mean": 1.0, "stddev": null,
            "times": [0.001, 0.002], "exit_codes": [0, 0]}]}"#;
        assert_eq!(parse(json).unwrap(), [("a".to_owned(), vec![0.001, 0.002])]);
        assert!(parse(b"{}").is_err());
    }

    #[test]
    fn runs_are_split_into_rounds_of_two_at_least() {
        assert_eq!(split(3), [3]);
        assert_eq!(split(12), [4, 4, 4]);
        assert_eq!(split(1), [2]);
        assert_eq!(split(100).iter().sum::<u32>(), 100);
    }

    #[test]
    fn words_keep_their_blanks() {
        let argv = ["sh", "-c", "echo 'a b'", ""].map(str::to_owned);
        assert_eq!(line(&argv), r"sh -c 'echo '\''a b'\''' ''");
    }
}
