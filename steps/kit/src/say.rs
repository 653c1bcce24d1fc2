//! What a program says: results on standard output, on standard error progress
//! with `-v`, warnings and errors always.
//!
//! `println!` and `eprintln!` panic if nobody reads, as in `drydock ps | head -1`.
//! A launcher that panics leaves its container behind.

use std::fmt;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Error, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Who gets the warnings instead of standard error.
type Listener = Box<dyn Fn(&str) + Send + Sync>;

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Gives the warnings of this process and of its forks to `listener` instead of
/// standard error, which may be a container's. Only the first call counts.
pub fn listen(listener: impl Fn(&str) + Send + Sync + 'static) {
    LISTENER.get_or_init(|| Box::new(listener));
}

/// Who gets the progress instead of standard error.
static OBSERVER: OnceLock<Listener> = OnceLock::new();

/// Gives the progress of this process and of its forks to `observer` instead of
/// standard error, if it is printed at all. Only the first call counts.
pub fn observe(observer: impl Fn(&str) + Send + Sync + 'static) {
    OBSERVER.get_or_init(|| Box::new(observer));
}

/// What [`say!`](crate::say!) does with its words.
pub fn progress(words: fmt::Arguments<'_>) {
    let line = format!("[{}] {words}", std::process::id());
    match OBSERVER.get() {
        Some(observer) => observer(&line),
        None => on_stderr(format_args!("{line}\n")),
    }
}

/// What [`warn!`](crate::warn!) does with its words.
pub fn warn(words: &str) {
    let words = printable(words);
    match LISTENER.get() {
        Some(listener) => listener(&words),
        None => on_stderr(format_args!("warning: {words}\n")),
    }
}

static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Turns [`say!`](crate::say!) on or off.
pub fn set_verbose(verbose: bool) {
    VERBOSE.store(verbose, Ordering::Relaxed);
}

/// Whether `-v` was given.
pub fn verbose() -> bool {
    VERBOSE.load(Ordering::Relaxed)
}

/// Writes on standard output.
///
/// # Errors
/// [`is_unread`] if its other end is closed, or why else it fails.
pub fn on_stdout(words: fmt::Arguments<'_>) -> Result<()> {
    stdout()
        .write_fmt(words)
        .context("write to standard output")
}

/// Whether this error says that nobody reads standard output any more. A program
/// then ends without a word, as SIGPIPE ends others.
pub fn is_unread(error: &Error) -> bool {
    let is_broken = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
    };
    let out = stdout();
    let mut asked = [PollFd::new(out.as_fd(), PollFlags::empty())];
    error.chain().any(is_broken)
        && poll(&mut asked, PollTimeout::ZERO).is_ok()
        && asked[0].any().unwrap_or(false)
}

/// Writes on standard error. If that fails, nobody can be told.
pub fn on_stderr(words: fmt::Arguments<'_>) {
    drop(stderr().write_fmt(words));
}

/// Prints a line on standard output, as `println!` does, and returns a `Result`.
#[macro_export]
macro_rules! outln {
    () => { $crate::say::on_stdout(format_args!("\n")) };
    ($($words:tt)*) => {
        $crate::say::on_stdout(format_args!("{}\n", format_args!($($words)*)))
    };
}

/// Prints on standard output, as `print!` does, and returns a `Result`.
#[macro_export]
macro_rules! out {
    ($($words:tt)*) => { $crate::say::on_stdout(format_args!($($words)*)) };
}

/// Prints a line on standard error, as `eprintln!` does, and never panics.
#[macro_export]
macro_rules! errln {
    ($($words:tt)*) => {
        $crate::say::on_stderr(format_args!("{}\n", format_args!($($words)*)))
    };
}

/// Prints a line on standard error if `-v` was given, with the PID of the
/// process that prints it: the protocol of the launch.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => {
        if $crate::say::verbose() {
            $crate::say::progress(format_args!($($words)*));
        }
    };
}

/// Prints a warning on standard error, with or without `-v`: something that the
/// user did not request is missing, or weaker than it should be, and the work
/// continues.
#[macro_export]
macro_rules! warn {
    ($($words:tt)*) => {
        $crate::say::warn(&format!($($words)*))
    };
}

/// Escapes, as in a Rust string, the characters that a terminal obeys or that
/// hide other text: control characters, including those above ASCII, and
/// characters that are invisible or change the direction of writing.
pub fn printable(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match obeyed(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(
            printable("a\u{1b}[2Jb\r\n\u{9b}"),
            "a\\u{1b}[2Jb\\r\\n\\u{9b}"
        );
        assert_eq!(printable("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(printable("größe \"q\" \\"), "größe \"q\" \\");
    }
}
