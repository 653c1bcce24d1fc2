//! `harness gradescope NN`: makes an autograder for Gradescope.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use course::exercise::skeleton;
use course::grade::autograder;

/// Arguments of `harness gradescope`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step
    step: String,

    /// The zip [default: autograder-NN.zip]
    #[arg(long, value_name = "FILE.zip")]
    output: Option<PathBuf>,

    /// The timeout that the assignment has in Gradescope's settings. Grading
    /// ends a minute before it and keeps the marks reached by then; at the
    /// timeout Gradescope would give none
    #[arg(long, value_name = "MINUTES", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(3..))]
    timeout: u64,
}

/// Packs everything that grading a step needs, without solutions.
pub fn gradescope(args: Args) -> Result<ExitCode> {
    let number = format!("{:0>2}", args.step);
    skeleton::step_dir(&number)?;
    let file = args
        .output
        .unwrap_or_else(|| PathBuf::from(format!("autograder-{number}.zip")));
    let limit = Duration::from_secs((args.timeout - 1) * 60);
    autograder::pack(&number, limit, &file)?;
    let size = std::fs::metadata(&file)
        .with_context(|| format!("stat {}", file.display()))?
        .len();
    println!(
        "{}: {} MiB. Upload it as the autograder of an assignment with a timeout of {} minutes \
         and 3 GB of memory",
        file.display(),
        size.div_ceil(1 << 20),
        args.timeout
    );
    Ok(ExitCode::SUCCESS)
}
