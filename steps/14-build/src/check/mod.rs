//! Checks of a Dockerfile: what is allowed, and probably not meant.
//!
//! The rules, their names and their words are BuildKit's, so that a file that is
//! silent there is silent here. `# check=skip=RULE,RULE;error=true` at the top of
//! a file, or the argument BUILDKIT_DOCKERFILE_CHECK, says which count, and
//! whether a violation is an error.
//!
//! | module | what |
//! |---|---|
//! | this | what a check finds, and what it is asked |
//! | [`rules`] | the rules |
//! | [`text`] | those about how something is written |
//! | [`values`] | those about variables, platforms and files: a fold without an image |

pub mod rules;
mod text;
mod values;

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::{Context, Result, bail};

use crate::build::options::Options;
use crate::context::ignore::Ignore;
use crate::dockerfile::Dockerfile;
use rules::Rule;

/// The argument that has more weight than the Dockerfile's own directive.
const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// A violation of a rule.
#[derive(Clone, Debug)]
pub struct Warning {
    /// The rule.
    pub rule: &'static Rule,
    /// What is wrong here.
    pub detail: String,
    /// The lines of the Dockerfile, the last one excluded.
    pub lines: Range<usize>,
}

impl Warning {
    /// On one line.
    pub fn short(&self) -> String {
        format!(
            "{}: {} (line {})",
            self.rule.name, self.detail, self.lines.start
        )
    }
}

/// What a check has found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The violations, in the order of the lines.
    pub warnings: Vec<Warning>,
    /// Whether they are errors.
    pub is_error: bool,
}

impl Found {
    /// The error that the violations are, if they are one.
    pub fn error(&self) -> Option<String> {
        let rules: BTreeSet<&str> = self.warnings.iter().map(|one| one.rule.name).collect();
        let rules: Vec<&str> = rules.into_iter().collect();
        (self.is_error && !rules.is_empty())
            .then(|| format!("lint violation found for rules: {}", rules.join(", ")))
    }
}

/// What an image brings along.
#[derive(Clone, Debug, Default)]
pub struct Base {
    /// Its variables.
    pub env: Vec<(String, String)>,
    /// Whether it names a shell.
    pub has_shell: bool,
}

/// What a check knows besides the Dockerfile.
pub struct Facts<'a> {
    /// What the build is asked to do.
    pub options: &'a Options,
    /// What is left out of the context.
    pub ignore: Option<&'a Ignore>,
    /// An image; `None` if it is not here.
    pub base: &'a dyn Fn(&str) -> Option<Base>,
}

/// Checks a Dockerfile.
///
/// # Errors
/// If `# check=` says something unknown.
pub fn check(dockerfile: &Dockerfile, facts: &Facts<'_>) -> Result<Found> {
    let given = facts.options.build_args.get(ARGUMENT);
    let wanted = Wanted::parse(given.or(dockerfile.remarks.check.as_ref()))?;
    if wanted.skip.all {
        return Ok(Found::default());
    }
    let mut warnings = text::check(dockerfile);
    warnings.extend(values::check(dockerfile, facts));
    warnings.retain(|warning| wanted.counts(warning.rule));
    warnings.sort_by_key(|warning| warning.lines.start);
    Ok(Found {
        warnings,
        is_error: wanted.error,
    })
}

/// Which rules.
#[derive(Clone, Debug, Default)]
struct Names {
    all: bool,
    names: BTreeSet<String>,
}

impl Names {
    fn parse(text: &str) -> Self {
        match text {
            "all" => Names {
                all: true,
                names: BTreeSet::new(),
            },
            _ => Names {
                all: false,
                names: text.split(',').map(|name| name.trim().to_owned()).collect(),
            },
        }
    }

    fn has(&self, rule: &Rule) -> bool {
        self.all || self.names.contains(rule.name)
    }
}

/// What `# check=` says.
#[derive(Clone, Debug, Default)]
struct Wanted {
    skip: Names,
    /// Rules that do not count unless they are named.
    experimental: Names,
    error: bool,
}

impl Wanted {
    fn parse(text: Option<&String>) -> Result<Self> {
        let mut wanted = Wanted::default();
        let text = text.map_or("", |text| text.trim());
        for part in text.splitn(3, ';').filter(|_| !text.is_empty()) {
            let (name, value) = part
                .split_once('=')
                .with_context(|| format!("invalid check option {part:?}"))?;
            let value = value.trim();
            match name.trim() {
                "skip" => wanted.skip = Names::parse(value),
                "experimental" => wanted.experimental = Names::parse(value),
                "error" => {
                    wanted.error = match value {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        _ => bail!("failed to parse check option {part:?}"),
                    }
                }
                name => bail!("invalid check option {name:?}"),
            }
        }
        Ok(wanted)
    }

    fn counts(&self, rule: &Rule) -> bool {
        !self.skip.has(rule) && (!rule.experimental || self.experimental.has(rule))
    }
}
