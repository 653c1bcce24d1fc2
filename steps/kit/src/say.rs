//! Messages on standard error: progress with `-v`, warnings always.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who gets the warnings instead of standard error.
type Listener = Box<dyn Fn(&str) + Send + Sync>;

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Gives the warnings of this process and of its forks to `listener` instead of
/// standard error, which may be a container's. Only the first call counts.
pub fn listen(listener: impl Fn(&str) + Send + Sync + 'static) {
    LISTENER.get_or_init(|| Box::new(listener));
}

/// What [`warn!`](crate::warn!) does with its words.
pub fn warn(words: &str) {
    let words = printable(words);
    match LISTENER.get() {
        Some(listener) => listener(&words),
        None => eprintln!("warning: {words}"),
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

/// Prints a line on standard error if `-v` was given, with the PID of the
/// process that prints it: the protocol of the launch.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => {
        if $crate::say::verbose() {
            eprintln!("[{}] {}", std::process::id(), format_args!($($words)*));
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
