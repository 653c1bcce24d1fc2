//! What may vary from run to run in the transcripts of a page:
//! `book/varies/PAGE.toml`.
//!
//! ```toml
//! "step-03 pids" = [
//!     "[sleep..]     1          [..]  S      sleep 60",
//! ]
//! ```
//!
//! A key is a command of the page, as it is typed there. Its patterns are lines
//! of its output, with placeholders for the values that vary and the blanks
//! around these (so that columns may be wider or narrower):
//!
//! | placeholder | value |
//! |---|---|
//! | `[0..]` | a number |
//! | `[..]` | one word if that of the page is one, otherwise any text |
//! | `[name..]` | the same, and the same value wherever the name is used on the page |

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use regex::Regex;
use vm::CgroupLayout;

use super::Page;
use super::transcript::{self, Command};

/// The patterns of a page, by command.
#[derive(Debug, Default)]
pub struct Varies(BTreeMap<String, Vec<Pattern>>);

/// A line of an output, with placeholders for what varies.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
    names: Vec<String>,
}

/// A line as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// The pattern that the line fits, or the line itself.
    pub text: String,
    /// Of each value that varies, whether it is a single word.
    pub words: Vec<bool>,
}

impl Pattern {
    /// Parses a pattern.
    pub fn new(text: &str) -> Result<Self> {
        let placeholder = Regex::new(r"\[(0|[a-z-]*)\.\.\]").context("compile a placeholder")?;
        let (mut regex, mut names, mut end) = (String::from("^"), Vec::new(), 0);
        for found in placeholder.captures_iter(text) {
            let (Some(whole), Some(name)) = (found.get(0), found.get(1)) else {
                continue;
            };
            regex += &regex::escape(&text[end..whole.start()]);
            let (name, value) = match name.as_str() {
                "0" => ("", r"\d+(?:\.\d+)?"),
                name => (name, r"\S+?|\S.*?\S"),
            };
            regex += &format!(r"\s*({value})\s*");
            names.push(name.to_owned());
            end = whole.end();
        }
        if names.is_empty() {
            bail!("nothing varies in {text:?}");
        }
        regex += &regex::escape(&text[end..]);
        regex += "$";
        Ok(Pattern {
            text: text.to_owned(),
            regex: Regex::new(&regex).with_context(|| format!("compile {text:?}"))?,
            names,
        })
    }

    /// The values of a line with the names of their placeholders (empty for
    /// those without one), or `None` if the line does not fit.
    pub fn values<'a>(&'a self, line: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
        let found = self.regex.captures(line)?;
        let values = found.iter().skip(1).flatten().map(|v| v.as_str());
        Some(self.names.iter().map(String::as_str).zip(values).collect())
    }
}

/// The names in a line, with their values.
pub fn named<'a>(patterns: &'a [Pattern], line: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut values = patterns.iter().find_map(|pattern| pattern.values(line));
    if let Some(values) = &mut values {
        values.retain(|(name, _)| !name.is_empty());
    }
    values.unwrap_or_default()
}

/// The shape of a line: the first pattern that it fits, or `otherwise`.
pub fn shape(patterns: &[Pattern], line: &str, otherwise: String) -> Shape {
    let fitting = patterns
        .iter()
        .find_map(|pattern| Some((pattern, pattern.values(line)?)));
    match fitting {
        Some((pattern, values)) => Shape {
            text: pattern.text.clone(),
            words: values
                .iter()
                .map(|(_, value)| !value.contains(char::is_whitespace))
                .collect(),
        },
        None => Shape {
            text: otherwise,
            words: Vec::new(),
        },
    }
}

impl Varies {
    /// Reads the patterns of a page. A page without a file has none.
    pub fn of(page: &Page) -> Result<Self> {
        let path = super::dir()
            .join("varies")
            .join(format!("{}.toml", page.name()));
        if !path.exists() {
            return Ok(Varies::default());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| super::shown(&path))
    }

    /// Parses the text of such a file.
    pub fn parse(text: &str) -> Result<Self> {
        let texts: BTreeMap<String, Vec<String>> = toml::from_str(text).context("parse")?;
        let mut patterns = BTreeMap::new();
        for (command, lines) in texts {
            let lines: Result<Vec<_>> = lines.iter().map(|line| Pattern::new(line)).collect();
            patterns.insert(command, lines?);
        }
        Ok(Varies(patterns))
    }

    /// The patterns for the output of a command.
    pub fn patterns(&self, command: &Command) -> &[Pattern] {
        self.0.get(&command.text).map_or(&[], Vec::as_slice)
    }

    /// The faults of a page and its patterns, one per line: a placeholder on
    /// the page, a command or a pattern that fits nothing on it, a name with
    /// two values.
    pub fn complaints(&self, page: &Page) -> Result<Vec<String>> {
        let mut complaints = Vec::new();
        for (number, line) in page.text.lines().enumerate() {
            if Pattern::new(line).is_ok() {
                let place = format!("{}:{}", page.path, number + 1);
                complaints.push(format!("{place}: a placeholder, not a value: {line}"));
            }
        }
        let blocks = transcript::blocks(&page.text)?;
        let run: Vec<_> = blocks.iter().filter(|b| b.norun.is_none()).collect();
        let commands: Vec<&Command> = run.iter().flat_map(|block| &block.commands).collect();
        for (text, patterns) in &self.0 {
            let outputs: Vec<_> = commands.iter().filter(|c| &c.text == text).collect();
            if outputs.is_empty() {
                complaints.push(format!("{}: no command is {text:?}", page.path));
                continue;
            }
            for pattern in patterns {
                let mut lines = outputs.iter().flat_map(|c| c.expected.lines());
                if !lines.any(|line| pattern.values(line.trim_end()).is_some()) {
                    let why = "no line of its output is like";
                    complaints.push(format!("{}: {text}: {why} {:?}", page.path, pattern.text));
                }
            }
        }
        let mut known: BTreeMap<(CgroupLayout, &str), &str> = BTreeMap::new();
        for block in run {
            for command in &block.commands {
                for line in command.expected.lines() {
                    for (name, value) in named(self.patterns(command), line) {
                        let before = *known.entry((block.cgroup, name)).or_insert(value);
                        if before != value {
                            let place = format!("{}:{}", page.path, command.from);
                            complaints.push(format!("{place}: [{name}..] is {before} and {value}"));
                        }
                    }
                }
            }
        }
        Ok(complaints)
    }
}

/// The files in `book/varies` that belong to no page.
pub fn strays(pages: &[Page]) -> Result<Vec<String>> {
    let dir = super::dir().join("varies");
    let mut strays = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry
            .with_context(|| format!("list {}", dir.display()))?
            .path();
        let stem = path.file_stem().map(|stem| stem.to_string_lossy());
        if !pages.iter().any(|page| Some(page.name().into()) == stem) {
            strays.push(super::shown(&path));
        }
    }
    Ok(strays)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page {
            path: "x.md".to_owned(),
            text: format!("```console\n{text}```\n"),
        }
    }

    #[test]
    fn a_pattern_finds_the_values() {
        let pattern = Pattern::new("[[a..]] holds [..] pipe:[[..]]").unwrap();
        assert_eq!(
            pattern.values("[12] holds 3 pipe:[77]"),
            Some(vec![("a", "12"), ("", "3"), ("", "77")])
        );
        assert_eq!(pattern.values("[12] holds 3 pipe:[77]!"), None);
        assert_eq!(pattern.values("[12] holds   pipe:[77]"), None);
        let pattern = Pattern::new("[a..] [..] sleep").unwrap();
        assert_eq!(
            pattern.values("  145   140 sleep"),
            Some(vec![("a", "145"), ("", "140")])
        );
        let pattern = Pattern::new("[0..]s").unwrap();
        assert_eq!(pattern.values("1.20s"), Some(vec![("", "1.20")]));
        assert_eq!(pattern.values("x20s"), None);
        assert!(Pattern::new("nothing [sleep] ...").is_err());
    }

    #[test]
    fn what_is_stale_is_found_out() {
        let varies =
            Varies::parse("a = ['is [..]', 'was [..]']\nb = ['[..]']\nc = ['[..]']").unwrap();
        let complaints = varies
            .complaints(&page("$ a\nis 1\nhas [..]\n$ c x\n$ b\n7\n"))
            .unwrap();
        assert_eq!(
            complaints,
            [
                "x.md:4: a placeholder, not a value: has [..]",
                "x.md: a: no line of its output is like \"was [..]\"",
                "x.md: no command is \"c\"",
            ]
        );
    }

    #[test]
    fn a_name_has_one_value_on_a_page() {
        let varies = Varies::parse("a = ['is [id..]']\nb = ['[id..]']").unwrap();
        let complaints = |text: &str| varies.complaints(&page(text)).unwrap();
        assert!(complaints("$ a\nis 1\n$ b\n1\n").is_empty());
        assert_eq!(
            complaints("$ a\nis 1\n$ b\n2\n"),
            ["x.md:4: [id..] is 1 and 2"]
        );
    }
}
