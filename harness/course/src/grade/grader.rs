//! Builds a submission, checks it in the virtual machine, and marks it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::jail::Jail;
use super::kit::Kit;
use super::limited::TooLong;
use super::marks::Marks;
use super::place::Place;
use super::submission::Submission;
use check::outcome::Record;
use check::plan::{Batch, Plan, Until};
use check::registry::Step;
use check::report::progress;
use check::{build, workspace};
use vm::checking;
use vm::guest::{self, Machine};
use vm::{BrokenOff, Vm};

/// The time limit of the compiler, which takes seconds for a step.
const COMPILER: Duration = Duration::from_secs(600);

/// What one submission may cost.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time for one submission, building and checking together. What
    /// was checked by then has its marks
    #[arg(long, value_name = "SECONDS", default_value_t = 2700,
          value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,

    /// Longest time for one check; 90 if none is given
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    check_limit: Option<u64>,
}

impl Limits {
    /// The time limits of a submission and of one check, in seconds.
    pub fn of(limit: u64, check_limit: Option<u64>) -> Self {
        Limits { limit, check_limit }
    }

    fn all(self) -> Duration {
        Duration::from_secs(self.limit)
    }
}

/// A stage of grading a submission.
pub enum News<'a> {
    /// The compiler is running.
    Building,
    /// The machine is being started.
    Booting,
    /// Another check has ended; these are the records so far.
    Checked(&'a [Record]),
}

/// Marks submissions of one step.
pub struct Grader {
    /// The step and its checks.
    pub step: Step,
    /// The program with the checks.
    pub tests: PathBuf,
    limits: Limits,
    kit: Arc<Kit>,
    jail: Jail,
}

impl Grader {
    /// Builds and fetches everything that is not the student's.
    pub fn new(number: &str, limits: Limits) -> Result<Grader> {
        let step = Step::read(&workspace::checks(), number)?;
        let jail = Jail::find()?;
        progress("building the checks");
        build::programs(&[])?;
        let tests = build::tests(&[number.to_owned()])?
            .remove(number)
            .with_context(|| format!("tests/step_{number}.rs was not built"))?;
        progress("building what the step needs");
        let kit = Arc::new(Place::prepare(number)?);
        workspace::need_rootfs("busybox")?;
        Vm::default().machine_description()?;
        Ok(Grader {
            step,
            tests,
            limits,
            kit,
            jail,
        })
    }

    /// The same grader with other limits.
    pub fn within(&self, limits: Limits) -> Grader {
        Grader {
            step: self.step.clone(),
            tests: self.tests.clone(),
            limits,
            kit: Arc::clone(&self.kit),
            jail: self.jail,
        }
    }

    /// Marks the submission in `path`, which is built in `place`. A submission
    /// that does not compile, hangs or breaks the machine also has marks. An
    /// error is a fault of the harness, and says nothing about the submission.
    pub fn grade(
        &self,
        path: &Path,
        place: &Place,
        news: &mut dyn FnMut(News<'_>) -> Result<()>,
    ) -> Result<Marks> {
        let begun = Instant::now();
        let mut marks = match self.judge(path, place, begun, news) {
            Ok(marks) => marks,
            Err(error) => match error.downcast::<Refused>() {
                Ok(Refused(why)) => Marks::of(&self.step, &[], Some(why)),
                Err(error) => return Err(error),
            },
        };
        marks.seconds = begun.elapsed().as_secs();
        Ok(marks)
    }

    fn judge(
        &self,
        path: &Path,
        place: &Place,
        begun: Instant,
        news: &mut dyn FnMut(News<'_>) -> Result<()>,
    ) -> Result<Marks> {
        if !path.exists() {
            bail!("{}: there is no such file", path.display());
        }
        let number = &self.step.step;
        let submission =
            Submission::read(path, number).map_err(|error| Refused(format!("{error:#}")))?;
        news(News::Building)?;
        let limit = COMPILER.min(self.left(begun));
        let ended = place
            .build(&self.kit, self.jail, &submission, limit)
            .map_err(blamed)?;
        if !ended.status.success() {
            return Err(Refused(format!("it does not compile:\n{}", ended.output)).into());
        }
        place
            .read_own_only(&self.kit, &submission)
            .map_err(|error| Refused(format!("{error:#}")))?;
        news(News::Booting)?;
        let plan = Plan {
            batches: vec![Batch {
                seed: None,
                variant: None,
                program: Some(place.program(&self.kit, number)?),
                tests: self.tests.clone(),
                step: self.step.clone(),
            }],
            seed: checking::any_seed(),
            untrusted: true,
            until: Until::End,
        };
        let machine = Machine {
            time_limit: Some(self.left(begun)),
            check_limit: self.limits.check_limit.map(Duration::from_secs),
            ..Machine::default()
        };
        let mut records: Vec<Record> = Vec::new();
        let ended = guest::run(&plan, &machine, &mut |record, _| {
            records.push(record);
            news(News::Checked(&records))
        });
        let trouble = match ended {
            Ok(_) => None,
            // A machine that breaks off is the submission's fault. A machine
            // that does not start is the harness's.
            Err(error) if error.is::<BrokenOff>() => Some(format!("broken off: {error:#}")),
            Err(_) if self.left(begun).is_zero() => {
                Some("broken off: no time was left to boot the machine".to_owned())
            }
            Err(error) => return Err(error),
        };
        Ok(Marks::of(&self.step, &records, trouble))
    }

    fn left(&self, begun: Instant) -> Duration {
        self.limits.all().saturating_sub(begun.elapsed())
    }
}

/// An error of building a submission: its own fault if the compiler took too
/// long, the harness's otherwise.
fn blamed(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<TooLong>() {
        Ok(late) => Refused(format!("the compiler {late}")).into(),
        Err(error) => error.context("build the submission"),
    }
}

/// A fault of the submission as a whole. It has marks, with no points.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grade::limited;
    use std::process::Command;

    #[test]
    fn a_compiler_that_cannot_be_started_is_no_fault_of_the_submission() {
        let build = |program: &str, limit| -> anyhow::Error {
            let ended = limited::run(Command::new(program).arg("20"), limit);
            blamed(ended.map(drop).unwrap_err())
        };
        let late = build("sleep", Duration::from_millis(50));
        assert!(late.is::<Refused>(), "{late:#}");
        assert!(late.to_string().starts_with("the compiler took more than"));
        let missing = build("/no/such/compiler", Duration::from_secs(20));
        assert!(!missing.is::<Refused>(), "{missing:#}");
    }
}
