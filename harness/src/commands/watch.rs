//! `harness watch NN`: checks a learner's step whenever a file is saved.

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use notify::{EventKind, RecursiveMode, Watcher};

use super::check;
use course::exercise::work::Work;
use vm::checking::{Reader, Where};

/// Pause that ends a change: editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(200);

/// Arguments of `harness watch`.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the step
    step: String,

    #[command(flatten)]
    place: Where,

    /// Run only the checks whose name or title holds this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Checks now and after each change, until it is interrupted.
pub fn watch(args: Args) -> Result<ExitCode> {
    let number = format!("{:0>2}", args.step);
    let dir = Work::here().started(&number)?.join("src");
    let (sender, events) = channel();
    let mut watcher = notify::recommended_watcher(sender).context("inotify_init")?;
    watcher
        .watch(&dir, RecursiveMode::Recursive)
        .with_context(|| format!("inotify_add_watch {}", dir.display()))?;
    loop {
        // Watch on after an error: the step may not compile yet.
        if let Err(error) = check::run(
            &number,
            &args.place,
            args.filter.as_deref(),
            Reader::Learner,
        ) {
            eprintln!("harness: {error:#}");
        }
        println!("Waiting for a change in {} …", dir.display());
        changed(&events)?;
    }
}

/// Waits for a change to begin and to end.
fn changed(events: &Receiver<notify::Result<notify::Event>>) -> Result<()> {
    loop {
        let event = events.recv().context("the watcher ended")?;
        let event = event.context("read an event of inotify")?;
        if matches!(event.kind, EventKind::Access(_)) {
            continue;
        }
        while events.recv_timeout(QUIET).is_ok() {}
        return Ok(());
    }
}
