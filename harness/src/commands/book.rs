//! `harness book`: builds the book, runs its transcripts, checks its pages.

use std::fs;
use std::io::{stdin, stdout};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Subcommand;

use book::session::Rewrite;
use book::shell::Session;
use book::{self, look, pages, preprocess, session, shell};

/// What `harness book` can do.
#[derive(Subcommand)]
pub enum Args {
    /// Build the pages and serve them, again after each change
    Serve {
        /// Arguments of `mdbook serve`, such as --port
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the pages, check every link, and look at every page in a browser
    Look {
        /// Write a screenshot of every view to this directory
        #[arg(long, value_name = "DIR")]
        shots: Option<PathBuf>,
    },
    /// Run the transcripts in the virtual machine and compare their output
    Test {
        /// Pages, by the beginning of their names; all of them by default
        pages: Vec<String>,
        /// Write the output into the pages, for review
        #[arg(long)]
        accept: bool,
        /// Write the values of this run into the pages, where book/varies lets
        /// them vary
        #[arg(long)]
        record: bool,
    },
    /// Run sessions; used inside the virtual machine
    #[command(hide = true)]
    Run {
        /// Sessions as JSON
        plan: PathBuf,
    },
    /// Insert what mdBook cannot; called by mdBook
    #[command(hide = true)]
    Preprocess {
        /// `supports RENDERER`: every one is
        words: Vec<String>,
    },
}

/// Runs the subcommand. Faults of the book are printed, and the exit status is
/// then 1.
pub fn book(args: Args) -> Result<ExitCode> {
    match args {
        Args::Serve { args } => {
            let error = Command::new(book::mdbook()?)
                .arg("serve")
                .arg(book::dir())
                .arg("--dest-dir")
                .arg(book::built())
                .args(args)
                .exec();
            Err(error).context("run mdbook")
        }
        Args::Look { shots } => look_at_it(shots.as_deref()),
        Args::Test {
            pages,
            accept,
            record,
        } => {
            let rewrite = Rewrite {
                differences: accept,
                values: record,
            };
            let tally = session::run(&pages, rewrite)?;
            let run = tally.passed + tally.failed;
            println!(
                "{} passed, {} failed: {run} of {} console blocks were run",
                tally.passed,
                tally.failed,
                run + tally.not_run
            );
            Ok(ExitCode::from(u8::from(!tally.good())))
        }
        Args::Run { plan } => run(&plan),
        Args::Preprocess { words } => {
            if words.is_empty() {
                preprocess::run(&mut stdin().lock(), &mut stdout().lock())?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn look_at_it(shots: Option<&Path>) -> Result<ExitCode> {
    let built = book::build()?;
    let mut complaints = pages::complaints(&built)?;
    if let Some(dir) = shots {
        fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
    }
    let all = book::pages()?;
    let views = match look::look(&built, &all, shots)? {
        Some(look) => {
            complaints.extend(look.complaints);
            format!("{} views of {} pages", look.views, all.len())
        }
        None => "no browser: apt-get install chromium shows every page as well".to_owned(),
    };
    for complaint in &complaints {
        println!("  {complaint}");
    }
    let good = complaints.is_empty();
    println!(
        "{} passed, {} failed: {views}",
        u8::from(good),
        complaints.len()
    );
    Ok(ExitCode::from(u8::from(!good)))
}

fn run(plan: &Path) -> Result<ExitCode> {
    let text = fs::read(plan).with_context(|| format!("read {}", plan.display()))?;
    let sessions: Vec<Session> =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", plan.display()))?;
    for session in &sessions {
        let ran = shell::fresh_rootfs().and_then(|()| {
            shell::run(session, &mut |output| {
                let line = serde_json::to_string(&output).context("write an output as JSON")?;
                println!("{line}");
                Ok(())
            })
        });
        if let Err(error) = ran {
            println!("{error:#}"); // the other sessions go on
        }
    }
    Ok(ExitCode::SUCCESS)
}
