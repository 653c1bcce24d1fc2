//! The first hour: experiments with a question before each, from
//! `harness/tour.toml`. `./just tour` runs them, and the page `tour.md` of the
//! book shows them.

mod state;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use regex::Regex;
use serde::Deserialize;

use check::workspace;

pub use state::State;

/// The number of choices of a question.
pub const CHOICES: usize = 3;

/// An experiment.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Its name, by which the reader's state knows it.
    pub name: String,
    /// The step whose program it runs.
    pub step: String,
    /// Its heading.
    pub title: String,
    /// What the reader guesses before it runs.
    pub question: String,
    /// The possible answers.
    pub choices: [String; CHOICES],
    /// The number of the right one, from 1.
    pub answer: usize,
    /// What runs.
    #[serde(rename = "run")]
    pub runs: Vec<Run>,
    /// Why the answer is what it is.
    pub why: String,
    /// The section of the book that continues: `03-pid.md#experiments`.
    pub chapter: String,
}

/// A command, and what its output must show.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The command, as it is typed.
    pub command: String,
    /// Regular expressions, each of which fits a whole line of the output.
    #[serde(default)]
    pub shows: Vec<String>,
    /// Whether it must print nothing.
    #[serde(default)]
    pub silent: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tour {
    experiment: Vec<Experiment>,
}

/// The experiments, in order.
pub fn experiments() -> Result<Vec<Experiment>> {
    let file = file();
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    parse(&text).with_context(|| file.display().to_string())
}

/// The file of the experiments.
pub fn file() -> PathBuf {
    workspace::root().join("harness/tour.toml")
}

fn parse(text: &str) -> Result<Vec<Experiment>> {
    let tour: Tour = toml::from_str(text).context("parse")?;
    for (place, experiment) in tour.experiment.iter().enumerate() {
        let name = &experiment.name;
        let before = &tour.experiment[..place];
        ensure!(
            before.iter().all(|e| e.name != *name),
            "{name} is there twice"
        );
        ensure!(
            (1..=CHOICES).contains(&experiment.answer),
            "{name}: answer = {}, of {CHOICES}",
            experiment.answer
        );
        for run in &experiment.runs {
            let command = &run.command;
            ensure!(!command.contains('\n'), "{name}: {command:?} has two lines");
            ensure!(
                !run.silent || run.shows.is_empty(),
                "{name}: {command:?} is silent and shows something"
            );
            for line in &run.shows {
                whole_line(line).with_context(|| format!("{name}: {line:?}"))?;
            }
        }
        let shown = experiment.runs.iter().any(|run| !run.shows.is_empty());
        ensure!(shown, "{name} shows nothing");
    }
    Ok(tour.experiment)
}

fn whole_line(pattern: &str) -> Result<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).context("not a regular expression")
}

impl Run {
    /// Compares an output of the command with what it must show.
    ///
    /// # Errors
    /// Names the line that is missing or too many.
    pub fn judge(&self, output: &str) -> Result<()> {
        let found = || match output.trim() {
            "" => "nothing".to_owned(),
            some => format!("{some:?}"),
        };
        if self.silent && !output.trim().is_empty() {
            bail!("{}: expected no output, found {}", self.command, found());
        }
        for line in &self.shows {
            let pattern = whole_line(line)?;
            if !output.lines().any(|line| pattern.is_match(line)) {
                bail!(
                    "{}: expected a line {line:?}, found {}",
                    self.command,
                    found()
                );
            }
        }
        Ok(())
    }
}

impl Experiment {
    /// Compares the outputs of its commands, in order, with what they must
    /// show.
    ///
    /// # Errors
    /// Names the first command that does not show it, or has not run.
    pub fn judge(&self, outputs: &[String]) -> Result<()> {
        for (place, run) in self.runs.iter().enumerate() {
            match outputs.get(place) {
                Some(output) => run.judge(output)?,
                None => bail!("{}: it did not run to its end", run.command),
            }
        }
        Ok(())
    }

    /// The page of the book that continues, and its section.
    pub fn continues(&self) -> (&str, &str) {
        self.chapter.split_once('#').unwrap_or((&self.chapter, ""))
    }
}

/// The page of the book that shows the experiments, without any output.
pub fn page(experiments: &[Experiment]) -> String {
    let mut page = String::from(HEAD);
    for (place, experiment) in experiments.iter().enumerate() {
        page += &format!("\n## {}. {}\n\n", place + 1, experiment.title);
        page += &format!("{}\n\n", experiment.question);
        for (number, choice) in experiment.choices.iter().enumerate() {
            page += &format!("{}. {choice}\n", number + 1);
        }
        page += "\n<details>\n<summary>Run it</summary>\n\n```console\n";
        for run in &experiment.runs {
            page += &format!("$ {}\n", run.command);
        }
        let choice = &experiment.choices[experiment.answer - 1];
        page += &format!(
            "```\n\n**{}: {choice}.** {}\n\n",
            experiment.answer, experiment.why
        );
        page += &format!(
            "[Step {}]({}) continues here.\n\n</details>\n",
            experiment.step, experiment.chapter
        );
    }
    page
}

const HEAD: &str = "# A first hour

Twelve short experiments across the steps, each with a question before it. Guess first: a wrong guess is remembered longer than a right sentence.

`./just tour` asks them in the terminal and runs the commands on your machine: as root on this host, otherwise in the virtual machine. It needs only the keyboard, remembers where you are, and leaves nothing behind. `./just tour --list` lists the experiments, `--from 5` begins with the fifth, and `--again` with the first.

The transcripts below are of the virtual machine. Each experiment begins in an empty directory:

```console
$ mkdir /srv/tour; cd /srv/tour
```
";

#[cfg(test)]
mod tests {
    use super::*;

    fn one(changes: &[(&str, &str)]) -> String {
        let mut text = String::from(
            "[[experiment]]\nname = 'a'\nstep = '00'\ntitle = 't'\nquestion = 'q'\n\
             choices = ['x', 'y', 'z']\nanswer = 2\nwhy = 'w'\nchapter = '00.md#s'\n\
             [[experiment.run]]\ncommand = 'step-00 x'\nshows = ['a+']\n",
        );
        for (from, to) in changes {
            assert!(text.contains(from));
            text = text.replace(from, to);
        }
        text
    }

    #[test]
    fn an_experiment_is_read_and_a_faulty_one_is_named() {
        let experiments = parse(&one(&[])).unwrap();
        assert_eq!(experiments[0].continues(), ("00.md", "s"));
        for (changes, word) in [
            ([("answer = 2", "answer = 4")], "answer = 4"),
            ([("'z'", "'z', 'zz'")], "parse"),
            ([("['a+']", "['(']")], "regular"),
            ([("['a+']", "[]")], "shows nothing"),
            ([("shows", "shown")], "parse"),
        ] {
            let error = parse(&one(&changes)).unwrap_err();
            assert!(format!("{error:#}").contains(word), "{error:#}");
        }
        let twice = one(&[]) + &one(&[]);
        assert!(parse(&twice).is_err());
    }

    #[test]
    fn an_answer_that_does_not_show_is_found_out() {
        let experiment = parse(&one(&[])).unwrap().remove(0);
        let judge = |outputs: &[&str]| {
            let outputs: Vec<String> = outputs.iter().map(|&o| o.to_owned()).collect();
            experiment.judge(&outputs)
        };
        judge(&["b\naaa\n"]).unwrap();
        assert!(judge(&["aab\n"]).is_err(), "a whole line");
        assert!(judge(&[]).is_err(), "it did not run");
        let silent = Run {
            command: "x".to_owned(),
            shows: Vec::new(),
            silent: true,
        };
        silent.judge("").unwrap();
        assert!(silent.judge("x: error\n").is_err());
    }
}
