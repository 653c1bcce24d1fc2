//! The words of an instruction: its name, options, lists in JSON, pairs.

use serde_json::Value;

/// What separates words, but for line ends, of which a logical line has none.
const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// The beginning of an instruction.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    /// In small letters.
    pub(crate) name: String,
    /// As it is written.
    pub(crate) written: &'a str,
    /// `--NAME[=VALUE]`, without quotes and the dashes, in their order.
    pub(crate) options: Vec<(String, Option<String>)>,
    /// What follows the options.
    pub(crate) rest: &'a str,
}

impl<'a> Head<'a> {
    /// Splits an instruction.
    pub(crate) fn of(text: &'a str) -> Self {
        let (written, rest) = split(text.trim());
        let (options, rest) = options(rest);
        Self {
            name: written.to_lowercase(),
            written,
            options,
            rest: rest.trim(),
        }
    }
}

/// The first word, and what follows it.
pub(super) fn split(text: &str) -> (&str, &str) {
    match text.split_once(BLANKS) {
        Some((word, rest)) => (word, rest.trim_start_matches(BLANKS)),
        None => (text, ""),
    }
}

/// The words between blanks. Quotes are a part of them.
pub(crate) fn list(text: &str) -> Vec<String> {
    let words = text.split(BLANKS).filter(|word| !word.is_empty());
    words.map(String::from).collect()
}

/// The options at the beginning of a line. A backslash escapes a character in
/// them whatever `# escape=` says, as in BuildKit. `--` ends them.
fn options(line: &str) -> (Vec<(String, Option<String>)>, &str) {
    let mut found = Vec::new();
    let mut rest = line.trim_start();
    while rest.starts_with("--") {
        let (word, tail) = option(rest);
        rest = tail;
        if word == "--" {
            break;
        }
        let word = word.strip_prefix("--").unwrap_or(&word);
        found.push(match word.split_once('=') {
            Some((name, value)) => (name.into(), Some(value.into())),
            None => (word.into(), None),
        });
        rest = rest.trim_start();
    }
    (found, rest)
}

/// A word without its quotes, and what follows it.
fn option(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            ('\\', _) => word.extend(chars.next().map(|(_, c)| c)),
            (_, Some(open)) if c == open => quote = None,
            (_, Some(_)) => word.push(c),
            ('\'' | '"', None) => quote = Some(c),
            (_, None) if c.is_whitespace() => return (word, &text[at..]),
            (_, None) => word.push(c),
        }
    }
    (word, "")
}

/// The form of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A list in JSON, of strings only.
    Json(Vec<String>),
    /// Anything else, also what resembles a list but is none, such as one with
    /// single quotes.
    Text,
}

/// Tells a list in JSON from a line for the shell.
pub(super) fn form(text: &str) -> Result<Form, String> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(Form::Text);
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(text) else {
        return Ok(Form::Text);
    };
    let words = values.into_iter().map(|value| match value {
        Value::String(word) => Ok(word),
        _ => Err("when using JSON array syntax, arrays must be comprised of strings only".into()),
    });
    words.collect::<Result<_, _>>().map(Form::Json)
}

/// Words with their quotes and escapes: what is quoted does not end one.
pub(crate) fn quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // At the end it escapes nothing, and is dropped.
            let Some(next) = chars.next() else { break };
            word.push(c);
            word.push(next);
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `NAME=VALUE…`, or the old form `NAME VALUE` with one pair, whose value is the
/// rest of the line.
pub(super) fn pairs(text: &str, name: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = quoted(text, escape);
    let Some(first) = words.first() else {
        return Err(format!("{name} requires at least one argument"));
    };
    if !first.contains('=') {
        return match split(text) {
            (_, "") => Err(format!("{name} must have two arguments")),
            (key, value) => Ok(vec![(key.into(), value.into())]),
        };
    }
    let pairs = words.iter().map(|word| match word.split_once('=') {
        Some(("", _)) => Err(format!("{name} names can not be blank")),
        Some((key, value)) => Ok((key.into(), value.into())),
        None => Err(format!(
            "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
        )),
    });
    pairs.collect()
}

/// Docker's words for a name that is almost one of those that exist.
pub(crate) fn did_you_mean(name: &str, known: &[&str]) -> String {
    match similar(name, known) {
        Some(known) => format!(" (did you mean {known}?)"),
        None => String::new(),
    }
}

/// The name among those that exist that is almost `name`.
pub(crate) fn similar<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    // A name that is much longer is not worth the product of the lengths.
    let similar = known
        .iter()
        .filter(|known| known.len().abs_diff(name.len()) < 3);
    let distances = similar.map(|known| {
        let distance = strsim::damerau_levenshtein(&name, &known.to_lowercase());
        (distance, *known)
    });
    match distances.min_by_key(|(distance, _)| *distance) {
        Some((1..=2, known)) => Some(known),
        _ => None,
    }
}
