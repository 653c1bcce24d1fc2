//! The progress of a launch, which `--debug` prints: its milestones in runc's
//! words, by which people and tests search a log, and the way of the child's lines
//! into the log.
//!
//! The child cannot open the log: in its root the path leads elsewhere, and a
//! descriptor of a file could be opened again, for more, by a process of the
//! container. It writes to a pipe, up to the end of the set-up, and the launcher
//! copies that. Nobody waits for the other: lines that do not fit are lost.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::mem::forget;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::id;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};
use kit::say;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use process::{Command, Isolation};

/// Who gets the lines.
type Sink = Box<dyn Fn(&str) + Send + Sync>;

static SINK: OnceLock<(u32, Sink)> = OnceLock::new();

/// The pipe of a launch whose lines go to a sink.
static PIPE: Mutex<Option<Pipe>> = Mutex::new(None);

#[derive(Debug)]
struct Pipe {
    lines: File,
    child: Arc<OwnedFd>,
}

/// What fits into the pipe, in bytes: more than a thousand lines.
const ROOM: i32 = 1 << 17;

fn pipe() -> MutexGuard<'static, Option<Pipe>> {
    // A line that was cut off breaks nothing.
    PIPE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the progress of this process and of its child to `sink` instead of
/// standard error. Only the first call counts.
pub(crate) fn collect(sink: impl Fn(&str) + Send + Sync + 'static) {
    SINK.get_or_init(|| (id(), Box::new(sink)));
    kit::say::observe(|line| match SINK.get() {
        Some((own, sink)) if *own == id() => sink(line),
        _ => pass(line),
    });
}

/// Child: passes a line on. If it does not fit it is lost.
fn pass(line: &str) {
    if let Some(pipe) = &*pipe() {
        let line = format!("{line}\n");
        // If it is lost, there is nobody to tell.
        nix::unistd::write(&pipe.child, line.as_bytes()).ok();
    }
}

/// Gives the sink what the child has written.
pub(crate) fn flush() {
    let Some((own, sink)) = SINK.get() else {
        return;
    };
    let mut said = Vec::new();
    if *own == id()
        && let Some(pipe) = &mut *pipe()
        && let Err(error) = pipe.lines.read_to_end(&mut said)
        // It is empty, and the child may write more.
        && error.kind() != ErrorKind::WouldBlock
    {
        said.extend_from_slice(format!("read the child's progress: {error}").as_bytes());
    }
    String::from_utf8_lossy(&said).lines().for_each(sink);
}

/// Which process is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Launching {
    /// The container's first.
    First,
    /// A further one.
    Further,
}

/// The isolation that names the milestones. Add it last: when it has adjusted the
/// command, the set-up is complete.
pub(crate) struct Milestones {
    launching: Launching,
    /// The child's end of the pipe, while it needs that.
    child: Option<Arc<OwnedFd>>,
}

impl Milestones {
    pub(crate) fn of(launching: Launching) -> Self {
        Milestones {
            launching,
            child: None,
        }
    }
}

impl Isolation for Milestones {
    fn name(&self) -> &'static str {
        "progress"
    }

    fn prepare(&mut self) -> Result<()> {
        say!("nsexec container setup");
        if !kit::say::verbose() || SINK.get().is_none() {
            return Ok(());
        }
        let (lines, child) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).context("pipe2")?;
        if let Err(errno) = fcntl(&child, FcntlArg::F_SETPIPE_SZ(ROOM)) {
            say!("fcntl(F_SETPIPE_SZ): {errno}");
        }
        let child = Arc::new(child);
        self.child = Some(Arc::clone(&child));
        *pipe() = Some(Pipe {
            lines: lines.into(),
            child,
        });
        Ok(())
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        self.child.iter().map(|child| child.as_fd()).collect()
    }

    fn in_container(&mut self) -> Result<()> {
        say!("child process in init()");
        Ok(())
    }

    fn adjust(&mut self, _: &mut Command) -> Result<()> {
        match self.launching {
            Launching::First => say!("init: closing the pipe to signal completion"),
            Launching::Further => say!("setns_init: about to exec"),
        }
        // What is no longer kept is closed: dropping it would close its number
        // again.
        forget((self.child.take(), pipe().take()));
        Ok(())
    }

    fn cleanup(&mut self) -> Result<()> {
        flush();
        self.child = None;
        *pipe() = None;
        Ok(())
    }
}
