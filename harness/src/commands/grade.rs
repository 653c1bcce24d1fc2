//! `harness grade NN`: grades a student's crate.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use check::report::progress;
use course::grade::class::student;
use course::grade::grader::{Grader, Limits, News};
use course::grade::marks::{Format, Marks};
use course::grade::place::Place;

/// Arguments of `harness grade`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step
    step: String,

    /// A directory or zip with the student's crate
    #[arg(long, value_name = "DIR_OR_ZIP", required_unless_present = "prepare")]
    submission: Option<PathBuf>,

    /// How the marks are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// Write the marks to this file, anew after every check, instead of to
    /// standard output at the end
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Where the crate is built [default: one below target/grade]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,

    #[command(flatten)]
    limits: Limits,

    /// Only build and fetch what grading needs, for a machine that will have no
    /// network
    #[arg(long, conflicts_with_all = ["submission", "output"])]
    prepare: bool,
}

/// Takes the sources of a submission, builds them with our manifests, checks
/// them in the virtual machine, and writes marks. A submission that does not
/// compile, hangs or breaks the machine also gets marks.
pub fn grade(args: Args) -> Result<ExitCode> {
    let number = format!("{:0>2}", args.step);
    let grader = Grader::new(&number, args.limits)?;
    let place = match &args.work {
        Some(dir) => Place::at(dir)?,
        None => Place::free()?,
    };
    let Some(submission) = &args.submission else {
        return Ok(ExitCode::SUCCESS);
    };
    // For a path such as `.`, which has no name.
    let whole = fs::canonicalize(submission).unwrap_or_else(|_| submission.clone());
    let file = whole.file_name().unwrap_or_default().to_string_lossy();
    let name = student(&whole, &file).unwrap_or(&file);
    let write = |marks: &Marks| match &args.output {
        Some(file) => marks.write(args.format, name, file),
        None => Ok(()),
    };
    let marks = grader.grade(submission, &place, &mut |news| match news {
        News::Building => {
            progress("building the submission");
            Ok(())
        }
        News::Booting => {
            progress("starting the machine");
            Ok(())
        }
        News::Checked(records) => {
            if let Some(last) = records.last() {
                progress(&format!("{}: {}", last.check, last.outcome));
            }
            // The marks so far: they survive a crash of the harness.
            write(&Marks::so_far(&grader.step, records))
        }
    })?;
    match args.output {
        Some(_) => write(&marks).context("write the marks")?,
        None => println!("{}", marks.format(args.format, name)?.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}
