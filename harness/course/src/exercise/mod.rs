//! Exercises: parts of our solution that a learner writes instead.
//!
//! An exercise is a task in `harness/exercises/NN.toml` and a region of
//! `steps/*/src` between two comments. They are spelt as mdBook's anchors are,
//! so that the book omits them:
//!
//! ```text
//! // ANCHOR: exercise_write_maps
//! …our solution…
//! // ANCHOR_END: exercise_write_maps
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`region`] | finds the regions of a file, and cuts them out |
//! | [`skeleton`] | a step's crate without its solution |
//! | [`proof`] | what the checks must say of an unfinished step |
//! | [`work`] | the learner's directory, `work/` |
//! | [`progress`] | the learner's progress, kept there |

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub mod progress;
pub mod proof;
pub mod region;
pub mod skeleton;
pub mod work;

/// The importance of an exercise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The step cannot do its main task without it.
    Core,
    /// It completes the step.
    More,
    /// An extra for the curious.
    Bonus,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Core => "core",
            Level::More => "more",
            Level::Bonus => "bonus",
        })
    }
}

/// The task of one exercise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exercise {
    /// The name in the comments around its regions, without `exercise_`.
    pub name: String,
    /// Its importance.
    pub level: Level,
    /// The task in a few words: an imperative.
    pub title: String,
    /// The task, with the calls to use and the man pages to read.
    pub task: String,
    /// The checks that this exercise turns green, if those before it are done.
    pub turns: Vec<String>,
    /// The code that stands in its place until it is done, and does nothing.
    /// Without it the program ends there with a `todo!`: good for the first
    /// exercise of a step, and for code that only some options reach.
    pub instead: Option<String>,
}

/// The exercises of one step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exercises {
    /// The exercises, in the order in which they are best done.
    #[serde(rename = "exercise", default)]
    pub all: Vec<Exercise>,
}

impl Exercises {
    /// Reads the exercises of step `number` from the directory `dir`.
    pub fn read(dir: &Path, number: &str) -> Result<Self> {
        let file = dir.join(format!("{number}.toml"));
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        toml::from_str(&text).with_context(|| format!("parse {}", file.display()))
    }

    /// The exercise of this name.
    pub fn get(&self, name: &str) -> Option<&Exercise> {
        self.all.iter().find(|exercise| exercise.name == name)
    }

    /// The numbers of exercises that are done where a level ends: none, the
    /// core's, and so on.
    pub fn level_ends(&self) -> [usize; 4] {
        let [core, more, bonus] = [Level::Core, Level::More, Level::Bonus];
        [0, self.up_to(core), self.up_to(more), self.up_to(bonus)]
    }

    /// The number of exercises of this level and of those before it.
    pub fn up_to(&self, level: Level) -> usize {
        self.all.iter().filter(|e| e.level <= level).count()
    }
}
