//! Checks of `{{#include file:anchor}}`. For a missing anchor mdBook inserts
//! nothing and reports nothing; here that is an error. So is a listing that
//! shows the solution of an exercise to readers who have not asked for it.

use std::fs;
use std::path::Path;

use super::Page;

/// The faults of the includes of a page, one per line: a missing file or
/// anchor, an anchor with nothing in it, a file with anchors that is included
/// as a whole, and a solution outside of `<details>`.
pub fn complaints(page: &Page) -> Vec<String> {
    let dir = page.file().parent().map(Path::to_owned).unwrap_or_default();
    let mut complaints = Vec::new();
    let mut folded = false;
    for (number, line) in page.text.lines().enumerate() {
        folded = (folded || line == "<details>") && line != "</details>";
        for words in line.split("{{#").skip(1) {
            let words = words.split("}}").next().unwrap_or_default();
            let Some(("include" | "rustdoc_include", link)) = words.split_once(' ') else {
                continue;
            };
            let why = match resolve(&dir, link) {
                Err(why) => why,
                Ok(true) if !folded => "a solution is shown: fold it with <details>".to_owned(),
                Ok(_) => continue,
            };
            complaints.push(format!("{}:{}: {link}: {why}", page.path, number + 1));
        }
    }
    complaints
}

/// Whether the listing shows a part of an exercise's solution.
fn resolve(dir: &Path, link: &str) -> Result<bool, String> {
    let (file, anchor) = match link.split_once(':') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (link, None),
    };
    let text = fs::read_to_string(dir.join(file)).map_err(|error| error.to_string())?;
    let Some(anchor) = anchor else {
        return match text.contains("ANCHOR: ") {
            true => Err("the file has anchors: include one of them".to_owned()),
            false => Ok(false),
        };
    };
    section(&text, anchor)
}

/// Whether the lines between `ANCHOR: name` and `ANCHOR_END: name` are, in part,
/// in the region of an exercise.
fn section(text: &str, anchor: &str) -> Result<bool, String> {
    let has = |line: &str, word: &str| {
        line.split_once(word)
            .is_some_and(|(_, name)| name.trim() == anchor)
    };
    let begins = text.lines().filter(|line| has(line, "ANCHOR: ")).count();
    let ends = text
        .lines()
        .filter(|line| has(line, "ANCHOR_END: "))
        .count();
    if (begins, ends) != (1, 1) {
        return Err(format!(
            "the anchor begins {begins} times and ends {ends} times"
        ));
    }
    let (mut within, mut in_exercise) = (false, false);
    let (mut section, mut is_solution) = (String::new(), false);
    for line in text.lines() {
        within = (within || has(line, "ANCHOR: ")) && !has(line, "ANCHOR_END: ");
        in_exercise = (in_exercise || line.contains("ANCHOR: exercise_"))
            && !line.contains("ANCHOR_END: exercise_");
        if within && !line.contains("ANCHOR") {
            section.push_str(line);
            is_solution |= in_exercise;
        }
    }
    match section.trim().is_empty() {
        true => Err("there is nothing between its ends".to_owned()),
        false => Ok(is_solution),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_has_both_its_ends_and_something_between() {
        let text = "// ANCHOR: a\nx\n// ANCHOR_END: a\n// ANCHOR: b\n// ANCHOR_END: b\n";
        assert!(!section(text, "a").unwrap());
        assert!(section(text, "b").is_err());
        assert!(section(text, "c").is_err());
        assert!(section(&text.replace("_END: a", ""), "a").is_err());
    }

    #[test]
    fn a_section_beside_an_exercise_shows_no_solution() {
        let exercise = "// ANCHOR: exercise_e\ny\n// ANCHOR_END: exercise_e\n";
        let around = format!("// ANCHOR: a\nx\n{exercise}// ANCHOR_END: a\n");
        let beside = format!("// ANCHOR: a\nx\n// ANCHOR_END: a\n{exercise}");
        let inside = exercise.replace("y\n", "// ANCHOR: a\ny\n// ANCHOR_END: a\n");
        assert!(section(&around, "a").unwrap());
        assert!(!section(&beside, "a").unwrap());
        assert!(section(&inside, "a").unwrap());
    }
}
