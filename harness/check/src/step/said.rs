//! Standard error of the programs under test, for the report of a failed check.

use std::collections::VecDeque;
use std::mem;
use std::sync::Mutex;

/// Number of calls kept: the last ones.
const CALLS: usize = 8;

/// Number of lines kept of each call: the last ones.
const LINES: usize = 20;

/// Number of characters kept of each line.
const WIDTH: usize = 300;

/// The calls of the current check: a process runs its checks one by one.
static SAID: Mutex<VecDeque<Vec<String>>> = Mutex::new(VecDeque::new());

/// Keeps the call of a program and the last lines of its standard error.
pub(super) fn keep(call: &str, stderr: &str) {
    let lines: Vec<&str> = stderr.lines().collect();
    if lines.is_empty() {
        return;
    }
    let mut kept = vec![format!("`{call}` said:")];
    let first = lines.len().saturating_sub(LINES);
    if first > 0 {
        kept.push(format!("  ({first} lines before)"));
    }
    kept.extend(lines[first..].iter().map(|line| {
        // The text goes to a terminal, and may contain any bytes.
        let text: String = line.chars().take(WIDTH).collect();
        format!("  {}", text.replace(char::is_control, "·"))
    }));
    let Ok(mut said) = SAID.lock() else { return };
    said.push_back(kept);
    if said.len() > CALLS {
        said.pop_front();
    }
}

/// Takes everything that was kept: the lines of the calls, in order.
pub fn take() -> Vec<String> {
    match SAID.lock() {
        Ok(mut said) => mem::take(&mut *said).into_iter().flatten().collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_nothing_of_who_is_silent() {
        take();
        keep("a", "");
        let many: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        keep("b", &many.join("\n"));
        keep("c", "a \"word\" and \x1b[31mred");
        let said = take();
        assert_eq!(said[..3], ["`b` said:", "  (10 lines before)", "  10"]);
        assert_eq!(said[22..], ["`c` said:", "  a \"word\" and ·[31mred"]);
        assert!(take().is_empty());
    }
}
