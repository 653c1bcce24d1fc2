//! The same commands to docker and to drydock, and what they answer.
//!
//! The commands are in `alike.txt`. Standard errors are not compared: the words
//! are ours, and name calls of the kernel.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use check::workspace;
use regex::Regex;
use serial_test::serial;

use crate::place::{Ended, Place};

const COMMANDS: &str = include_str!("alike.txt");

/// How much of a command's answer is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    All,
    Status,
    Nothing,
}

/// The commands, each with what is compared.
fn commands() -> Vec<(Compared, &'static str)> {
    let lines = COMMANDS.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match line.split_once(' ') {
            Some(("status", rest)) => (Compared::Status, rest),
            Some(("differs", rest)) => {
                let (_, command) = rest.split_once(": ").unwrap_or((rest, ""));
                (Compared::Nothing, command)
            }
            _ => (Compared::All, line),
        })
        .collect()
}

/// What differs from run to run, with the words that stand for it.
fn redacted(text: &str) -> Result<String> {
    let mut text = text.to_owned();
    for (pattern, word) in [
        (r"sha256:[0-9a-f]{64}", "DIGEST"),
        (r"\b[0-9a-f]{64}\b", "ID"),
        (r"\b[0-9a-f]{12}\b", "SHORT"),
        (r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)", "TIME"),
        (
            r"(Less than a second|About a minute|\d+ (second|minute)s?)",
            "AGE",
        ),
        (r" +(\n|$)", "$1"),
    ] {
        let pattern = Regex::new(pattern).context("a pattern")?;
        text = pattern.replace_all(&text, word).into_owned();
    }
    Ok(text)
}

/// The lines of a log, without their times.
fn log(path: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let time = Regex::new(r#","time":"[^"]*""#).context("a pattern")?;
    Ok(text
        .lines()
        .map(|line| time.replace(line, "").into_owned())
        .collect())
}

struct Side<'a> {
    place: &'a Place,
    client: String,
}

impl Side<'_> {
    fn run(&self, command: &str) -> Result<Ended> {
        let script = format!("D='{}'\n{command}", self.client);
        self.place.run(&["sh", "-c", &script])
    }

    /// The bytes of a log that both write.
    fn log_of(&self, script: &str) -> Result<Vec<String>> {
        let script = script.replace('\'', "'\\''");
        self.run(&format!(
            "$D run -d --network none --name log box sh -c '{script}'; $D wait log"
        ))?
        .status(0)?;
        let path = self
            .run("$D inspect -f '{{.LogPath}}' log")?
            .status(0)?
            .stdout;
        let lines = log(&path);
        self.run("$D rm log")?.status(0)?;
        lines
    }
}

#[test]
#[serial]
fn docker_and_drydock_answer_alike() -> Result<()> {
    let mut place = Place::new(&[("dockerd", "docker.io"), ("docker", "docker.io")])?;
    let host = place.dockerd()?;
    let (root, net) = (place.path("root"), place.path("net"));
    let archive = place.rootfs()?;
    let program = workspace::bin().join("step-12");
    ensure!(
        program.exists(),
        "{program:?} is missing: run ./just build first"
    );
    let docker = Side {
        client: format!("docker --host {host}"),
        place: &place,
    };
    let ours = Side {
        client: format!(
            "env DRYDOCK_STATE={} {} --root {}",
            net,
            program.display(),
            root
        ),
        place: &place,
    };
    let mut differences = Vec::new();
    let mut counts: BTreeMap<bool, usize> = BTreeMap::new();
    for side in [&docker, &ours] {
        side.run(&format!("$D import {archive} box:latest"))?
            .status(0)?;
    }
    // Each side has its own state, and docker takes most of the time.
    let all = |side: &Side<'_>| -> Result<Vec<Ended>> {
        let commands = commands().into_iter();
        commands.map(|(_, command)| side.run(command)).collect()
    };
    let (theirs, own) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| all(&docker));
        let own = all(&ours);
        (theirs.join(), own)
    });
    let theirs = theirs.map_err(|_| anyhow::Error::msg("a thread has panicked"))??;
    for (((compared, command), theirs), own) in commands().into_iter().zip(theirs).zip(own?) {
        let outputs = (redacted(&theirs.stdout)?, redacted(&own.stdout)?);
        let same_status = compared == Compared::Nothing || theirs.status == own.status;
        let same_output = compared != Compared::All || outputs.0 == outputs.1;
        *counts.entry(same_status && same_output).or_default() += 1;
        if !same_status {
            differences.push(format!(
                "{command}\n  docker: status {} {}\n  drydock: status {} {}",
                theirs.status, theirs.stderr, own.status, own.stderr
            ));
        }
        if !same_output {
            differences.push(format!(
                "{command}\n  docker:  {:?}\n  drydock: {:?}",
                outputs.0, outputs.1
            ));
        }
    }
    for script in [
        "echo one; sleep 0.1; echo two >&2; sleep 0.1; printf no-newline",
        "head -c 40000 /dev/zero | tr '\\0' x; echo; echo after",
        "printf 'tab\\tquote\"backslash\\\\ <&> \\303\\244 \\342\\200\\250 \\001\\177\\n'",
        "printf 'not utf-8: \\377\\376\\n'",
    ] {
        let (theirs, own) = (docker.log_of(script)?, ours.log_of(script)?);
        *counts.entry(theirs == own).or_default() += 1;
        if theirs != own {
            differences.push(format!(
                "the log of {script}\n  docker:  {theirs:?}\n  drydock: {own:?}"
            ));
        }
    }
    let alike = counts.get(&true).copied().unwrap_or(0);
    println!(
        "{alike} of {} answers are alike",
        counts.values().sum::<usize>()
    );
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    place.end()
}
