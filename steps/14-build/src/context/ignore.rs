//! `.dockerignore`: what of a directory is no part of the context.
//!
//! The rules are those of moby's patternmatcher, not git's: a pattern begins at
//! the root of the context, a directory takes what is below it along, and the
//! last line that matches decides.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::pattern::Pattern;

/// How many patterns there may be: each file is compared with all of them.
const MOST: usize = 10_000;

/// What is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// `!`: what is not left out after all.
    exception: bool,
    /// Without wildcards at its end, for what may be below a directory.
    text: String,
    matcher: Matcher,
}

/// How a pattern is matched. The shapes that moby treats by themselves have
/// meanings of their own in places: `**a` is any path that ends in an a, but
/// `**a?` does not begin within a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Matcher {
    Exactly(String),
    /// `a/**`.
    Beginning(String),
    /// `**/a`.
    End(String),
    Pattern(Pattern),
}

impl Matcher {
    fn new(text: &str) -> Result<Self> {
        let pattern = Pattern::with_trees(text)?;
        let is_plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        if is_plain(text) {
            return Ok(Self::Exactly(text.into()));
        }
        if let Some(end) = text.strip_prefix("**").filter(|end| is_plain(end)) {
            return Ok(Self::End(end.into()));
        }
        let beginning = text.strip_suffix("**");
        if let Some(beginning) = beginning.filter(|text| is_plain(text)) {
            return Ok(Self::Beginning(beginning.into()));
        }
        Ok(Self::Pattern(pattern))
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exactly(text) => path == text,
            Self::Beginning(text) => path.starts_with(text.as_str()),
            Self::End(text) => {
                path.ends_with(text.as_str()) || text.strip_prefix('/') == Some(path)
            }
            Self::Pattern(pattern) => pattern.matches(path),
        }
    }
}

impl Ignore {
    /// Reads a `.dockerignore`.
    ///
    /// # Errors
    /// If a line is no pattern.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut ignore = Self::default();
        for (number, line) in text.lines().enumerate() {
            // A comment begins with the line.
            if line.starts_with('#') {
                continue;
            }
            ignore
                .add(line)
                .with_context(|| format!("line {} of .dockerignore: {line:?}", number + 1))?;
        }
        Ok(ignore)
    }

    /// What `--exclude` names: patterns as in a `.dockerignore`.
    ///
    /// # Errors
    /// If one is none.
    pub fn of(patterns: &[String]) -> Result<Self> {
        let mut ignore = Self::default();
        for pattern in patterns {
            ignore
                .add(pattern)
                .with_context(|| format!("{pattern:?}"))?;
        }
        Ok(ignore)
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let line = line.trim();
        let (exception, text) = match line.strip_prefix('!') {
            Some(text) => (true, text.trim()),
            None => (false, line),
        };
        let text = match text {
            "" => String::new(),
            text => clean(text),
        };
        if exception && (text.is_empty() || text == "/") {
            bail!("illegal exclusion pattern: \"!\"");
        }
        if text.is_empty() {
            return Ok(());
        }
        let text = match text.strip_prefix('/') {
            Some(rest) if !rest.is_empty() => rest,
            _ => &text,
        };
        ensure!(
            self.rules.len() < MOST,
            "there are more than {MOST} patterns"
        );
        self.rules.push(Rule {
            exception,
            matcher: Matcher::new(text)?,
            text: text.into(),
        });
        Ok(())
    }

    // ANCHOR: leaves_out
    /// Whether a file, by its path from the root of the context, is left out:
    /// by itself, or with a directory that it is in.
    ///
    /// A directory that is left out may still hold what is not:
    /// [`Ignore::may_keep_below`].
    pub fn leaves_out(&self, path: &Path, _is_directory: bool) -> bool {
        let path = path.to_string_lossy();
        let path = path.trim_matches('/');
        if path.is_empty() {
            return false;
        }
        // On the way down, a rule is asked about a path only if it could change
        // the answer, and what matched a directory matches what is in it. So an
        // exception that had no effect on a directory has none below it.
        let mut matched = vec![false; self.rules.len()];
        let mut left_out = false;
        let slashes = path.match_indices('/').map(|(at, _)| at);
        for end in slashes.chain([path.len()]) {
            left_out = false;
            for (rule, matched) in self.rules.iter().zip(&mut matched) {
                if !*matched && rule.exception == left_out {
                    *matched = rule.matcher.matches(&path[..end]);
                }
                if *matched {
                    left_out = !rule.exception;
                }
            }
        }
        left_out
    }
    // ANCHOR_END: leaves_out

    /// Whether there are lines with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.exception)
    }

    /// Whether something in a directory that is left out may not be left out.
    /// Without wildcards in the lines with `!`, this is known without a look
    /// into it.
    pub fn may_keep_below(&self, directory: &Path) -> bool {
        let directory = directory.to_string_lossy();
        let directory = directory.trim_matches('/');
        self.rules.iter().any(|rule| {
            let plain = match rule.text.find(['*', '?', '[', '\\']) {
                Some(at) => &rule.text[..at],
                None => return rule.exception && is_below(&rule.text, directory),
            };
            // Up to its first wildcard, it leads into the directory, or the
            // directory is where the wildcard may lead.
            rule.exception && (is_below(plain, directory) || directory.starts_with(plain))
        })
    }
}

/// Whether a path is in a directory.
fn is_below(path: &str, directory: &str) -> bool {
    let rest = path.strip_prefix(directory);
    directory.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
}

/// Go's `filepath.Clean`: without `.`, `..` and repeated slashes, as far as
/// that is possible by the text alone.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                None if rooted => {}
                _ => parts.push(part),
            },
            part => parts.push(part),
        }
    }
    let cleaned = parts.join("/");
    match (rooted, cleaned.is_empty()) {
        (true, _) => format!("/{cleaned}"),
        (false, true) => ".".into(),
        (false, false) => cleaned,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Ignore, clean};

    fn kept(ignore: &str, paths: &[&'static str]) -> Vec<&'static str> {
        let ignore = Ignore::parse(ignore).unwrap();
        let paths = paths.iter().copied();
        paths
            .filter(|path| !ignore.leaves_out(Path::new(path), false))
            .collect()
    }

    #[test]
    fn the_last_line_decides() {
        let paths = ["a", "a/b", "a/b/c", "d.md", "README.md", "x/d.md"];
        assert_eq!(kept("", &paths), paths);
        assert_eq!(kept("a\n", &paths), ["d.md", "README.md", "x/d.md"]);
        assert_eq!(
            kept("*.md\n!README.md", &paths),
            ["a", "a/b", "a/b/c", "README.md", "x/d.md"]
        );
        assert_eq!(
            kept("!README.md\n*.md", &paths),
            ["a", "a/b", "a/b/c", "x/d.md"],
            "an exception before the rule has no effect"
        );
        assert_eq!(kept("*\n!a/b", &paths), ["a/b", "a/b/c"]);
        assert_eq!(kept("**/*.md", &paths), ["a", "a/b", "a/b/c"]);
        assert_eq!(kept("*/b", &paths), ["a", "d.md", "README.md", "x/d.md"]);
        assert_eq!(kept("b", &paths), paths, "a pattern begins at the root");
    }

    #[test]
    fn lines_are_cleaned() {
        let paths = ["a", "b", "#c", " d"];
        for line in ["/a", "./a/", "  a  ", "x/../a", "a//", "\u{feff}a", "a\r"] {
            assert_eq!(kept(line, &paths), ["b", "#c", " d"], "{line:?}");
        }
        assert_eq!(kept("# a\n\n#c", &paths), paths, "comments");
        assert_eq!(kept(" #c", &paths), ["a", "b", " d"], "no comment");
        assert_eq!(kept("*\n!  /b", &paths), ["b"]);
        assert_eq!(kept("..\n../a\n.", &paths), paths);
        for wrong in ["!", "a\n[", "a\\"] {
            assert!(Ignore::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(clean("/../a/./b//c/.."), "/a/b");
        assert_eq!(clean("a/../.."), "..");
        assert_eq!(clean("a/.."), ".");
    }

    #[test]
    fn what_may_be_below_is_known_by_the_text() {
        let below = |ignore: &str, directory: &str| {
            let ignore = Ignore::parse(ignore).unwrap();
            ignore.may_keep_below(Path::new(directory))
        };
        assert!(!below("*", "a"));
        assert!(below("*\n!a/b", "a"));
        assert!(!below("*\n!a/b", "ab"));
        assert!(!below("*\n!ab/c", "a"));
        assert!(below("*\n!**/c", "a/b"));
        assert!(below("*\n!a/b*/c", "a/bc"));
        assert!(below("*\n!a/b*/c", "a"));
        assert!(!below("*\n!a/b*/c", "a/c"));
        assert!(below("*\n!a/**", "a"));
    }
}
