//! `harness grade NN`: marks for a student's crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::checking;
use crate::exercise::skeleton;
use crate::exercise::work::Work;
use crate::grade::limited;
use crate::grade::marks::{Format, Marks};
use crate::grade::submission::Submission;
use crate::guest::{self, Machine};
use crate::outcome::Record;
use crate::registry::Step;
use crate::report::progress;
use crate::runner::{Batch, Plan};
use crate::{build, workspace};

/// Longest time for the compiler: a step takes it a minute when all is new.
const COMPILER: Duration = Duration::from_secs(600);

/// Arguments of `harness grade`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step
    step: String,

    /// A directory or zip with the student's crate
    #[arg(long, value_name = "DIR_OR_ZIP")]
    submission: PathBuf,

    /// How the marks are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// Write the marks to this file, anew after every check, instead of to
    /// standard output at the end
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Where the crate is built [default: target/grade]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
}

/// Takes the sources of a submission, builds them with our manifests, checks
/// them in the virtual machine, and writes marks. A submission that does not
/// compile, hangs or breaks the machine has marks too.
///
/// # Errors
/// The harness's own, and a submission in which there is no crate.
pub fn grade(args: Args) -> Result<ExitCode> {
    let number = format!("{:0>2}", args.step);
    let step = Step::read(&workspace::checks(), &number)?;
    let to = Output {
        step: &step,
        format: args.format,
        file: args.output.as_deref(),
    };
    let marks = match marks(&number, &step, &args, &to) {
        Ok(marks) => marks,
        Err(error) => match error.downcast::<Refused>() {
            Ok(Refused(why)) => Marks::of(&step, &[], Some(why)),
            Err(error) => return Err(error),
        },
    };
    to.end(&marks)?;
    Ok(ExitCode::SUCCESS)
}

/// The submission's own fault: it has marks, and they are none.
#[derive(Debug)]
struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn marks(number: &str, step: &Step, args: &Args, to: &Output<'_>) -> Result<Marks> {
    if !args.submission.exists() {
        bail!("{}: there is no such file", args.submission.display());
    }
    let submission = Submission::read(&args.submission, number)
        .map_err(|error| Refused(format!("{error:#}")))?;
    progress("building");
    build::programs(&[])?;
    workspace::need_rootfs("busybox")?;
    let tests = build::tests(&[number.to_owned()])?;
    let dir = match &args.work {
        Some(dir) => dir.clone(),
        None => workspace::root().join("target/grade"),
    };
    let program = compile(number, &submission, &dir)?;
    let plan = Plan {
        batches: vec![Batch {
            variant: None,
            program: Some(program),
            tests: tests
                .get(number)
                .with_context(|| format!("tests/step_{number}.rs was not built"))?
                .clone(),
            step: step.clone(),
        }],
        seed: checking::any_seed(),
        untrusted: true,
    };
    let mut records: Vec<Record> = Vec::new();
    let ended = guest::run(&plan, &Machine::default(), &mut |record, _| {
        progress(&format!("{}: {}", record.check, record.outcome));
        records.push(record);
        to.so_far(&records)
    });
    let trouble = ended
        .err()
        .map(|error| format!("the machine did not come to the end of the checks: {error:#}"));
    Ok(Marks::of(step, &records, trouble))
}

/// Builds the student's sources in a workspace of ours and returns the program.
fn compile(number: &str, submission: &Submission, dir: &Path) -> Result<PathBuf> {
    let work = Work::at(dir);
    let own = work.step(number)?;
    if own.exists() {
        fs::remove_dir_all(&own).with_context(|| format!("remove {}", own.display()))?;
    }
    // The manifest is ours; of the sources nothing is.
    skeleton::copy_manifest(number, &own)?;
    submission.write(&own)?;
    work.lay_out(number, false)?;
    let name = workspace::program(number);
    let target = workspace::root().join("target/work");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(dir)
        // The settings are ours too, wherever the directory is.
        .arg("--config")
        .arg(workspace::root().join(".cargo/config.toml"))
        .args(["build", "--quiet", "--offline", "--profile", "wrong"])
        .args(["--package", &format!("step-{number}"), "--bin", &name])
        .arg("--target-dir")
        .arg(&target)
        .args(["--message-format", "short"]);
    let ended = limited::run(&mut command, COMPILER)
        .map_err(|error| Refused(format!("the compiler {error:#}")))?;
    if !ended.status.success() {
        return Err(Refused(format!("it does not compile:\n{}", ended.output)).into());
    }
    // Another submission is built at the same place.
    let built = build::host_dir(&target).join("wrong").join(&name);
    let program = dir.join(&name);
    build::replace(&built, &program)?;
    Ok(program)
}

/// Where marks go.
struct Output<'a> {
    step: &'a Step,
    format: Format,
    file: Option<&'a Path>,
}

impl Output<'_> {
    /// Writes what is known already, so that a crash of ours leaves it.
    fn so_far(&self, records: &[Record]) -> Result<()> {
        match self.file {
            Some(_) => {
                let unfinished = Some("the checks were broken off here".to_owned());
                self.write(&Marks::of(self.step, records, unfinished))
            }
            None => Ok(()),
        }
    }

    fn end(&self, marks: &Marks) -> Result<()> {
        self.write(marks)
    }

    fn write(&self, marks: &Marks) -> Result<()> {
        let text = marks.format(self.format)?;
        let Some(file) = self.file else {
            println!("{}", text.trim_end());
            return Ok(());
        };
        let new = file.with_extension("new");
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, file).with_context(|| format!("rename to {}", file.display()))
    }
}
