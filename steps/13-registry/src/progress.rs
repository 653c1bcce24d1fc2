//! Progress: a line for each layer, as people know it from docker(1). On a
//! terminal the lines change in place; elsewhere each change of state is a line,
//! and there are no escape codes.

use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

/// How often the numbers on a terminal change.
const PAUSE: Duration = Duration::from_millis(100);
/// The width of the bar.
const BAR: usize = 50;

/// Where progress goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Quiet,
    Lines,
    Terminal,
}

/// The progress of a pull or push.
#[derive(Debug)]
pub struct Progress {
    how: How,
    to_stderr: bool,
    lines: Mutex<Vec<Line>>,
}

#[derive(Debug)]
struct Line {
    key: String,
    text: String,
    changed: Instant,
}

impl Progress {
    /// Progress on standard output, or none at all.
    pub fn new(quiet: bool) -> Self {
        Self::on(false, quiet)
    }

    /// Progress on standard error: standard output is the container's.
    pub fn on_stderr(quiet: bool) -> Self {
        Self::on(true, quiet)
    }

    fn on(to_stderr: bool, quiet: bool) -> Self {
        let is_terminal = match to_stderr {
            true => stderr().is_terminal(),
            false => stdout().is_terminal(),
        };
        let obeys = std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty());
        Progress {
            how: match (quiet, is_terminal && obeys) {
                (true, _) => How::Quiet,
                (false, true) => How::Terminal,
                (false, false) => How::Lines,
            },
            to_stderr,
            lines: Mutex::new(Vec::new()),
        }
    }

    /// A line of its own. On a terminal, those of the layers stay above it.
    pub fn say(&self, text: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clear();
        if self.how != How::Quiet {
            self.put(&format!("{text}\n"));
        }
    }

    /// The state of one layer.
    pub fn state(&self, key: &str, state: &str) {
        self.set(key, state, true);
    }

    /// How much of a layer has arrived. Shown on a terminal only.
    pub fn amount(&self, key: &str, what: &str, done: u64, all: u64) {
        if self.how != How::Terminal {
            return;
        }
        let full = (done.min(all) as u128 * BAR as u128 / u128::from(all.max(1))) as usize;
        let bar = format!(
            "{}>{}",
            "=".repeat(full.min(BAR - 1)),
            " ".repeat(BAR - 1 - full.min(BAR - 1))
        );
        self.set(
            key,
            &format!("{what} [{bar}] {}/{}", bytes(done), bytes(all)),
            false,
        );
    }

    fn set(&self, key: &str, text: &str, important: bool) {
        if self.how == How::Quiet {
            return;
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("{key}: {text}");
        let now = Instant::now();
        let known = lines.iter().position(|line| line.key == key);
        let Some(at) = known else {
            self.put(&format!("{}\n", self.cut(&text)));
            lines.push(Line {
                key: key.to_owned(),
                text,
                changed: now,
            });
            return;
        };
        let is_soon = now - lines[at].changed < PAUSE;
        if lines[at].text == text || !important && is_soon {
            return;
        }
        let shown = self.cut(&text);
        match self.how {
            How::Terminal => {
                // Up to the line, clear it, write it, and down again.
                let up = lines.len() - at;
                self.put(&format!("\x1b[{up}A\r\x1b[2K{shown}\x1b[{up}B\r"));
            }
            _ => self.put(&format!("{shown}\n")),
        }
        lines[at].text = text;
        lines[at].changed = now;
    }

    /// Writes. Nobody may read it any more, and the work goes on.
    fn put(&self, text: &str) {
        let written = match self.to_stderr {
            true => write(&mut stderr().lock(), text),
            false => write(&mut stdout().lock(), text),
        };
        if let Err(error) = written {
            kit::say!("progress: {error}");
        }
    }

    /// The text as far as it fits on one line of the terminal.
    fn cut(&self, text: &str) -> String {
        let width = match self.how {
            How::Terminal if self.to_stderr => {
                tcgetwinsize(stderr()).map_or(80, |size| usize::from(size.ws_col))
            }
            How::Terminal => tcgetwinsize(stdout()).map_or(80, |size| usize::from(size.ws_col)),
            _ => 0,
        };
        match width {
            0 => text.to_owned(),
            width => text.chars().take(width.saturating_sub(1)).collect(),
        }
    }
}

fn write(to: &mut dyn Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

/// A number of bytes as Docker writes it.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    // Four digits, as Docker's units.HumanSize has them with "%.4g", or three.
    let digits = match value {
        _ if unit == "B" => 0,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_three_digits() {
        let sizes = [
            0,
            999,
            1000,
            1234,
            12_345,
            4_261_550,
            123_456_789,
            20_000_000_000,
        ];
        let words = sizes.map(bytes);
        assert_eq!(
            words,
            [
                "0B", "999B", "1kB", "1.23kB", "12.3kB", "4.26MB", "123MB", "20GB"
            ]
        );
    }
}
