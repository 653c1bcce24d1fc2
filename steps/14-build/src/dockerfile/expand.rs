//! Variables and quotes, as the builder understands them: most of what a POSIX
//! shell does with a word, nothing of what it does with a command.
//!
//! | written | gives |
//! |---|---|
//! | `$x`, `${x}` | the value, or nothing |
//! | `${x:-y}`, `${x-y}` | y if x is empty or unset, if unset |
//! | `${x:+y}`, `${x+y}` | y unless x is empty or unset, unless unset |
//! | `${x:?y}`, `${x?y}` | an error that says y if x is empty or unset, if unset |
//! | `${x#p}`, `${x##p}` | without the shortest, longest beginning that matches p |
//! | `${x%p}`, `${x%%p}` | without the shortest, longest end that matches p |
//! | `${x/p/y}`, `${x//p/y}` | with y for the first, for every match of p |

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use anyhow::{Context, Result, bail, ensure};

use super::instruction::Heredoc;
use super::wildcard::Wildcard;

/// How large a text may become: `ENV x=$x$x` doubles with each repetition. The
/// kernel takes no longer string as a part of an environment or command
/// (MAX_ARG_STRLEN).
const LARGEST_WORD: usize = 128 << 10;

/// How large a heredoc may become.
const LARGEST_HEREDOC: usize = 16 << 20;

/// How deep `${x:-${y:-…}}` may be nested.
const DEEPEST: usize = 64;

/// The variables of one place in a Dockerfile.
///
/// A variable's value is inserted as it is: what looks like a variable in it is
/// none.
pub struct Expander<'a> {
    /// The character that takes the meaning from the next one.
    pub escape: char,
    /// The value of a variable; `None` if it is not set.
    pub get: &'a dyn Fn(&str) -> Option<String>,
    used: RefCell<BTreeSet<String>>,
    keep: Keep,
}

/// What stays as it is written.
#[derive(Clone, Copy, Default)]
struct Keep {
    /// Quotes are removed, but not these.
    quotes: bool,
    /// Quotes are ordinary characters.
    quotes_are_text: bool,
    escapes: bool,
    unset: bool,
}

fn nothing(_: &str) -> Option<String> {
    None
}

impl Expander<'static> {
    /// Splits words and changes nothing in them.
    pub(super) fn raw() -> Self {
        Self::keeping(Keep {
            quotes: true,
            escapes: true,
            unset: true,
            ..Keep::default()
        })
    }

    /// Removes quotes and escapes only.
    pub(super) fn unset() -> Self {
        Self::keeping(Keep {
            unset: true,
            ..Keep::default()
        })
    }

    /// Removes escapes only.
    pub(super) fn unset_with_quotes() -> Self {
        Self::keeping(Keep {
            quotes: true,
            unset: true,
            ..Keep::default()
        })
    }

    /// The words by which heredocs are named: their escape character is the
    /// shell's, not the file's.
    fn keeping(keep: Keep) -> Self {
        Self {
            keep,
            ..Self::new('\\', &nothing)
        }
    }
}

impl<'a> Expander<'a> {
    /// An expander of a file with an escape character.
    pub fn new(escape: char, get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            escape,
            get,
            used: RefCell::default(),
            keep: Keep::default(),
        }
    }

    /// A text with its variables, without its quotes.
    ///
    /// # Errors
    /// If a quote or brace has no end, for `${x:?message}`, and if the result is
    /// too large.
    pub fn word(&self, text: &str) -> Result<String> {
        Ok(self.expand(text, LARGEST_WORD)?.text)
    }

    /// The words of a text with its variables, also of a variable's value unless
    /// it is quoted.
    ///
    /// # Errors
    /// As [`Expander::word`].
    pub fn words(&self, text: &str) -> Result<Vec<String>> {
        Ok(self.expand(text, LARGEST_WORD)?.words)
    }

    /// A heredoc of `COPY` and `ADD`. Its quotes are a part of it, and its escape
    /// character is a backslash, whatever the file's is.
    ///
    /// # Errors
    /// As [`Expander::word`].
    pub fn heredoc(&self, heredoc: &Heredoc) -> Result<String> {
        if !heredoc.expand {
            return Ok(heredoc.content.clone());
        }
        let inner = Self {
            keep: Keep {
                quotes_are_text: true,
                ..self.keep
            },
            ..Self::new('\\', self.get)
        };
        let expanded = inner.expand(&heredoc.content, LARGEST_HEREDOC);
        self.used.borrow_mut().append(&mut inner.used.borrow_mut());
        let expanded = expanded.with_context(|| format!("in the heredoc {}", heredoc.name))?;
        Ok(expanded.text)
    }

    /// The variables that have been asked for, whether they are set or not: what
    /// a result depends on.
    pub fn used(&self) -> BTreeSet<String> {
        self.used.borrow().clone()
    }

    fn expand(&self, text: &str, largest: usize) -> Result<Expanded> {
        let mut lexer = Lexer {
            rest: text.chars().peekable(),
            expander: self,
            keep: self.keep,
            left: Cell::new(largest),
            largest,
            depth: 0,
        };
        let mut expanded = lexer
            .until(None, self.keep.escapes)
            .with_context(|| format!("failed to process {:?}", shortened(text)))?;
        expanded.end();
        Ok(expanded)
    }
}

/// The beginning of a text, for a message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into(),
    }
}

/// A text, and the words of which it consists.
#[derive(Default)]
struct Expanded {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Expanded {
    /// A character that separates words if it is a blank.
    fn push(&mut self, c: char) {
        self.text.push(c);
        self.split(c);
    }

    fn split(&mut self, c: char) {
        match c.is_whitespace() {
            true => self.end(),
            false => self.word.push(c),
        }
    }

    /// A character that belongs to the word.
    fn push_raw(&mut self, c: char) {
        self.text.push(c);
        self.word.push(c);
    }

    /// The end of a word. An empty one, such as `""`, does not count.
    fn end(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    expander: &'a Expander<'a>,
    keep: Keep,
    left: Cell<usize>,
    largest: usize,
    depth: usize,
}

impl Lexer<'_> {
    /// Takes from what the result may still grow by.
    fn spend(&self, bytes: usize) -> Result<()> {
        let left = self.left.get().checked_sub(bytes);
        let left = left.with_context(|| format!("the result has more than {} bytes", self.largest));
        self.left.set(left?);
        Ok(())
    }

    /// Reads up to a character, or the end.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<Expanded> {
        ensure!(self.depth < DEEPEST, "braces are nested too deeply");
        self.depth += 1;
        let mut expanded = Expanded::default();
        while let Some(&c) = self.rest.peek() {
            if Some(c) == stop {
                self.rest.next();
                self.depth -= 1;
                return Ok(expanded);
            }
            match c {
                '$' => {
                    let value = self.dollar(keep_escapes)?;
                    expanded.text.push_str(&value);
                    value.chars().for_each(|c| expanded.split(c));
                }
                '\'' | '"' if !self.keep.quotes_are_text => {
                    let value = match c {
                        '\'' => self.single()?,
                        _ => self.double(keep_escapes)?,
                    };
                    expanded.text.push_str(&value);
                    expanded.word.push_str(&value);
                }
                _ => {
                    self.rest.next();
                    self.spend(c.len_utf8())?;
                    if c != self.expander.escape {
                        expanded.push(c);
                        continue;
                    }
                    if keep_escapes {
                        expanded.push_raw(c);
                    }
                    let Some(next) = self.rest.next() else { break };
                    self.spend(next.len_utf8())?;
                    expanded.push_raw(next);
                }
            }
        }
        if let Some(stop) = stop {
            bail!("unexpected end of statement while looking for matching {stop}");
        }
        self.depth -= 1;
        Ok(expanded)
    }

    /// `'…'`: nothing in it has a meaning.
    fn single(&mut self) -> Result<String> {
        let mut text = String::new();
        let quote = self.rest.next().filter(|_| self.keep.quotes);
        text.extend(quote);
        loop {
            match self.rest.next() {
                None => {
                    bail!("unexpected end of statement while looking for matching single-quote")
                }
                Some('\'') => {
                    text.extend(quote);
                    return Ok(text);
                }
                Some(c) => {
                    self.spend(c.len_utf8())?;
                    text.push(c);
                }
            }
        }
    }

    /// `"…"`: variables have a meaning, and the escape character before what
    /// else would have one.
    fn double(&mut self, keep_escapes: bool) -> Result<String> {
        let mut text = String::new();
        let quote = self.rest.next().filter(|_| self.keep.quotes);
        text.extend(quote);
        loop {
            let Some(&c) = self.rest.peek() else {
                bail!("unexpected end of statement while looking for matching double-quote");
            };
            if c == '$' {
                text.push_str(&self.dollar(keep_escapes)?);
                continue;
            }
            self.rest.next();
            if c == '"' {
                text.extend(quote);
                return Ok(text);
            }
            self.spend(c.len_utf8())?;
            if c != self.expander.escape {
                text.push(c);
                continue;
            }
            if keep_escapes {
                text.push(c);
            }
            let special = |&next: &char| next == '"' || next == '$' || next == c;
            match self.rest.next_if(special) {
                Some(next) => text.push(next),
                None if self.rest.peek().is_some() => text.push(c),
                None => {}
            }
        }
    }

    /// The name of a variable: letters, digits and `_`, a number, or one of the
    /// shell's special ones, which are never set here.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.rest.next_if(char::is_ascii_digit) {
                    name.push(c);
                }
                return name;
            }
            Some(&c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.rest.next();
                return c.into();
            }
            _ => {}
        }
        while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    fn value(&self, name: &str) -> Result<Option<String>> {
        self.expander.used.borrow_mut().insert(name.into());
        let value = (self.expander.get)(name);
        self.spend(value.as_ref().map_or(0, String::len))?;
        Ok(value)
    }

    // ANCHOR: dollar
    /// `$x` and `${x…}`.
    fn dollar(&mut self, keep_escapes: bool) -> Result<String> {
        self.rest.next();
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.value(&name)? {
                None if self.keep.unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        match self.rest.peek() {
            None => bail!("syntax error: missing '}}'"),
            Some('{' | '}' | ':') => bail!("syntax error: bad substitution"),
            Some(_) => {}
        }
        let name = self.name();
        let mut modifier = String::new();
        let mut kind = self.rest.next();
        modifier.extend(kind);
        let empty_counts = kind == Some(':');
        if empty_counts {
            kind = self.rest.next();
            modifier.extend(kind);
        }
        match kind {
            Some('}') if !empty_counts => Ok(match self.value(&name)? {
                None if self.keep.unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some('/') if !empty_counts => self.replaced(&name),
            Some(kind @ ('+' | '-' | '?' | '#' | '%')) => {
                let pattern = kind == '#' || kind == '%';
                let word = self.part('}', pattern || keep_escapes)?;
                let value = self.value(&name)?;
                if value.is_none() && self.keep.unset {
                    return Ok(format!("${{{name}{modifier}{word}}}"));
                }
                let usable = value.as_ref().filter(|x| !(empty_counts && x.is_empty()));
                match (kind, usable) {
                    ('-', None) => Ok(word),
                    ('+', Some(_)) => Ok(word),
                    ('+', None) => Ok(String::new()),
                    ('?', None) => {
                        let state = if value.is_none() { "unset" } else { "empty" };
                        let message = format!("is not allowed to be {state}");
                        bail!("{name}: {}", if word.is_empty() { message } else { word })
                    }
                    ('#' | '%', _) => trimmed(&value.unwrap_or_default(), kind, &word),
                    _ => Ok(value.unwrap_or_default()),
                }
            }
            None => bail!("syntax error: missing '}}'"),
            Some(_) => bail!("unsupported modifier ({modifier}) in substitution"),
        }
    }
    // ANCHOR_END: dollar

    /// What stands up to a character within braces.
    fn part(&mut self, stop: char, keep_escapes: bool) -> Result<String> {
        match self.until(Some(stop), keep_escapes) {
            Ok(expanded) => Ok(expanded.text),
            Err(_) if self.rest.peek().is_none() && stop == '}' => {
                bail!("syntax error: missing '}}'")
            }
            Err(_) if self.rest.peek().is_none() => {
                bail!("syntax error: missing '{stop}' in ${{}}")
            }
            Err(error) => Err(error),
        }
    }

    /// `${x/p/y}` and `${x//p/y}`, after the first slash.
    fn replaced(&mut self, name: &str) -> Result<String> {
        let all = self.rest.next_if_eq(&'/').is_some();
        let pattern = self.part('/', true)?;
        let replacement = self.part('}', true)?;
        let value = self.value(name)?;
        if value.is_none() && self.keep.unset {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        let wildcard = Wildcard::parse(&pattern)?;
        let mut result = String::new();
        let mut at = 0;
        while at <= value.len() {
            let Some(found) = wildcard.find(&value[at..]) else {
                break;
            };
            self.spend(replacement.len())?;
            let end = at + found.end;
            result.push_str(&value[at..at + found.start]);
            result.push_str(&replacement);
            at = end;
            if !all {
                break;
            }
            if found.is_empty() {
                // An empty match is followed by a character that stays.
                let Some(c) = value[at..].chars().next() else {
                    break;
                };
                result.push(c);
                at += c.len_utf8();
            } else if at == value.len() {
                break;
            }
        }
        result.push_str(&value[at..]);
        Ok(result)
    }
}

/// `${x#p}`, `${x##p}`, `${x%p}`, `${x%%p}`.
fn trimmed(value: &str, kind: char, word: &str) -> Result<String> {
    let (pattern, longest) = match word.strip_prefix(kind) {
        Some(pattern) => (pattern, true),
        None => (word, false),
    };
    let wildcard = Wildcard::parse(pattern)?;
    Ok(match kind {
        '#' => {
            let end = wildcard.prefix(value, longest);
            value[end.unwrap_or(0)..].into()
        }
        _ => {
            let start = wildcard.suffix(value, longest);
            value[..start.unwrap_or(value.len())].into()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::instruction::Heredoc;
    use super::Expander;

    fn get(name: &str) -> Option<String> {
        let value = match name {
            "A" => "a.b/a.b.tar.gz",
            "B" => "b c",
            "E" => "",
            "D" => "$A",
            _ => return None,
        };
        Some(value.into())
    }

    fn word(text: &str) -> String {
        match Expander::new('\\', &get).word(text) {
            Ok(word) => word,
            Err(error) => format!("error: {:#}", error.root_cause()),
        }
    }

    #[test]
    fn variables_are_those_of_a_shell() {
        for (text, expected) in [
            ("$E|${B}|$U|$A_|$D", "|b c|||$A"),
            ("${E:-x}|${E-x}|${U:-x}|${U-x}|${B:-x}", "x||x|x|b c"),
            ("${E:+x}|${E+x}|${U:+x}|${U+x}|${B:+x}", "|x|||x"),
            ("${U:-${E:-\"$B\"}}|${U:-}", "b c|"),
            ("${B?no}|${E?no}", "b c|"),
            ("${U?}", "error: U: is not allowed to be unset"),
            ("${E:?}", "error: E: is not allowed to be empty"),
            ("${U:?it has $B}", "error: U: it has b c"),
            (
                "${A#*.}|${A##*.}|${A%.*}|${A%%.*}",
                "b/a.b.tar.gz|gz|a.b/a.b.tar|a",
            ),
            (
                "${A#a?b}|${A#\\*}|${A%x}|${A##*}|${A%%*}",
                "/a.b.tar.gz|a.b/a.b.tar.gz|a.b/a.b.tar.gz||",
            ),
            (
                "${A/a/X}|${A//a/X}|${A//./}",
                "X.b/a.b.tar.gz|X.b/X.b.tXr.gz|ab/abtargz",
            ),
            (
                "${A/a*a/X}|${A//?/X}|${A/\\//:}|${A/q/}",
                "Xr.gz|XXXXXXXXXXXXXX|a.b:a.b.tar.gz|a.b/a.b.tar.gz",
            ),
            ("${U#a}|${U/a/b}|${E//*/x}", "||x"),
            ("$|$ |$$|$1|$-x|${@}", "$|$ |||x|"),
            (
                "a\\$B|\\\\|'$B'|\"$B\"|\"\\$B\\x\"|\\a",
                "a$B|\\|$B|b c|$B\\x|a",
            ),
            ("${B", "error: syntax error: missing '}'"),
            ("${B:x}", "error: unsupported modifier (:x) in substitution"),
            ("${B:-", "error: syntax error: missing '}'"),
            ("${B/a}", "error: syntax error: missing '/' in ${}"),
            ("${}", "error: syntax error: bad substitution"),
            ("${", "error: syntax error: missing '}'"),
            (
                "'a",
                "error: unexpected end of statement while looking for matching single-quote",
            ),
            (
                "\"a",
                "error: unexpected end of statement while looking for matching double-quote",
            ),
        ] {
            assert_eq!(word(text), expected, "{text}");
        }
    }

    #[test]
    fn a_value_is_split_unless_it_is_quoted() {
        let expander = Expander::new('\\', &get);
        let words = |text| expander.words(text).unwrap();
        assert_eq!(
            words("a $B \"$B\" '' \"\" x\\ y"),
            ["a", "b", "c", "b c", "x y"]
        );
        assert_eq!(words("${U:-1 2}"), ["1", "2"]);
        assert!(words(" $E ").is_empty());
    }

    #[test]
    fn it_remembers_what_it_was_asked_for() {
        let expander = Expander::new('\\', &get);
        expander.word("$A '$B' \\$C ${U:-$E}").unwrap();
        expander
            .heredoc(&Heredoc {
                name: "EOF".into(),
                content: "$H \\$I".into(),
                expand: true,
            })
            .unwrap();
        let names = ["A", "E", "H", "U"].map(String::from);
        assert_eq!(expander.used(), BTreeSet::from(names));
    }

    #[test]
    fn a_heredoc_keeps_its_quotes() {
        let expander = Expander::new('`', &get);
        let heredoc = |content: &str, expand| {
            let name = "EOF".into();
            let content = content.into();
            expander.heredoc(&Heredoc {
                name,
                content,
                expand,
            })
        };
        let text = "a\\nb \"q\" '$B' \\$B `$B` \\\\\n";
        assert_eq!(
            heredoc(text, true).unwrap(),
            "anb \"q\" 'b c' $B `b c` \\\n"
        );
        assert_eq!(heredoc(text, false).unwrap(), text);
        assert!(heredoc("it's \"open\n", true).is_ok());
        assert!(heredoc("${B", true).is_err());
    }

    #[test]
    fn results_are_bounded() {
        let large = "x".repeat(100 << 10);
        let get = |_: &str| Some(large.clone());
        let expander = Expander::new('\\', &get);
        assert!(expander.word("$x").is_ok());
        assert!(expander.word("$x$x").is_err());
        assert!(expander.word(&"${x:-".repeat(100_000)).is_err());
        assert!(expander.word("${x//x/yyyyyyyyyyyyyyyyyyyy}").is_err());
        assert!(
            expander
                .word(&format!("${{x#{}}}", "?".repeat(2000)))
                .is_err()
        );
        assert_eq!(expander.word("${x%%x*}").unwrap(), "");
    }
}
