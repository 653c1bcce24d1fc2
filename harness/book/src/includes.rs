//! Checks of `{{#include file:anchor}}`. For a missing anchor mdBook inserts
//! nothing and reports nothing; here that is an error.

use std::fs;
use std::path::Path;

use super::Page;

/// The faults of the includes of a page, one per line: a missing file or
/// anchor, an anchor with nothing in it, and a file with anchors that is
/// included as a whole.
pub fn complaints(page: &Page) -> Vec<String> {
    let dir = page.file().parent().map(Path::to_owned).unwrap_or_default();
    let mut complaints = Vec::new();
    for (number, line) in page.text.lines().enumerate() {
        for words in line.split("{{#").skip(1) {
            let words = words.split("}}").next().unwrap_or_default();
            let Some(("include" | "rustdoc_include", link)) = words.split_once(' ') else {
                continue;
            };
            if let Err(why) = resolve(&dir, link) {
                complaints.push(format!("{}:{}: {link}: {why}", page.path, number + 1));
            }
        }
    }
    complaints
}

fn resolve(dir: &Path, link: &str) -> Result<String, String> {
    let (file, anchor) = match link.split_once(':') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (link, None),
    };
    let text = fs::read_to_string(dir.join(file)).map_err(|error| error.to_string())?;
    let Some(anchor) = anchor else {
        return match text.contains("ANCHOR: ") {
            true => Err("the file has anchors: include one of them".to_owned()),
            false => Ok(text),
        };
    };
    section(&text, anchor)
}

/// The lines between `ANCHOR: name` and `ANCHOR_END: name`.
fn section(text: &str, anchor: &str) -> Result<String, String> {
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
    let section: String = text
        .lines()
        .skip_while(|line| !has(line, "ANCHOR: "))
        .skip(1)
        .take_while(|line| !has(line, "ANCHOR_END: "))
        .filter(|line| !line.contains("ANCHOR"))
        .collect();
    match section.trim().is_empty() {
        true => Err("there is nothing between its ends".to_owned()),
        false => Ok(section),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_has_both_its_ends_and_something_between() {
        let text = "// ANCHOR: a\nx\n// ANCHOR_END: a\n// ANCHOR: b\n// ANCHOR_END: b\n";
        assert_eq!(section(text, "a").unwrap(), "x");
        assert!(section(text, "b").is_err());
        assert!(section(text, "c").is_err());
        assert!(section(&text.replace("_END: a", ""), "a").is_err());
    }
}
