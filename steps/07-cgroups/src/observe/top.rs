//! `step-07 top`: the table of `stats` on a terminal, updated every second.

use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kit::sys;
use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use process::Exit;

use crate::group::processes::wait_for;
use crate::observe::stats::Stats;
use crate::observe::stats::all;
use crate::observe::table::table;

const INTERVAL: Duration = Duration::from_secs(1);

/// Shows the use of all containers until `q` or Ctrl-C, or once if standard
/// input or output is no terminal.
pub(crate) fn run() -> Result<Exit> {
    sys::signals::default_action(Signal::SIGPIPE)?;
    let mut last = Look::now()?;
    let mut stdout = stdout();
    if !stdin().is_terminal() || !stdout.is_terminal() {
        // A use in percent needs two samples.
        std::thread::sleep(INTERVAL / 4);
        let now = Look::now()?;
        stdout
            .write_all(now.since(&last).as_bytes())
            .context("write to standard output")?;
        return Ok(Exit::Code(0));
    }
    let _keys = Keys::unbuffered()?;
    let mut wait = INTERVAL / 4;
    while !quit(wait)? {
        let now = Look::now()?;
        // Clear the screen and go to the upper left corner: console_codes(4).
        write!(stdout, "\x1b[2J\x1b[H{}\nq quits\n", now.since(&last))
            .and_then(|()| stdout.flush())
            .context("write to standard output")?;
        last = now;
        wait = INTERVAL;
    }
    Ok(Exit::Code(0))
}

/// Waits for a key, for `wait` at most, and returns whether it ends the
/// program.
fn quit(wait: Duration) -> Result<bool> {
    if !wait_for(&[stdin().as_fd()], PollFlags::POLLIN, Instant::now() + wait)? {
        return Ok(false);
    }
    let mut key = [0];
    let read = stdin().read(&mut key).context("read standard input")?;
    // Ctrl-C arrives as the character 3, because signals are off; so the
    // terminal is restored on every way out.
    Ok(read == 0 || matches!(key[0], b'q' | 3 | 4))
}

/// A sample of the groups' statistics.
struct Look {
    at: Instant,
    groups: Vec<Stats>,
}

impl Look {
    fn now() -> Result<Self> {
        Ok(Look {
            at: Instant::now(),
            groups: all()?,
        })
    }

    fn since(&self, before: &Look) -> String {
        let elapsed = (self.at - before.at).as_secs_f64();
        let percent = self.groups.iter().filter_map(|now| {
            let then = before.groups.iter().find(|then| then.name == now.name)?;
            let used = now.cpu?.saturating_sub(then.cpu?).as_secs_f64();
            Some((now.name.clone(), used / elapsed * 100.0))
        });
        table(&self.groups, Some(&percent.collect()))
    }
}

/// The terminal in a mode that passes each key on at once and does not echo it
/// (termios(3)), restored on drop.
struct Keys {
    before: Termios,
}

impl Keys {
    fn unbuffered() -> Result<Self> {
        let before = tcgetattr(stdin()).context("tcgetattr")?;
        let mut now = before.clone();
        now.local_flags -= LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
        tcsetattr(stdin(), SetArg::TCSANOW, &now).context("tcsetattr")?;
        Ok(Keys { before })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Err(errno) = tcsetattr(stdin(), SetArg::TCSANOW, &self.before) {
            kit::errln!("tcsetattr: {errno}: type reset");
        }
    }
}
