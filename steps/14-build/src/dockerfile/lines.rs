//! A text becomes logical lines: one for each instruction, continued lines
//! joined, comments removed, heredocs taken out.
//!
//! The rules are those of BuildKit's parser, which differ from what the
//! documents say in places: whitespace at the beginning of a continued line
//! stays, a comment or an empty line inside of a continued one is removed, and a
//! comment does not continue.

use std::ops::Range;

use super::expand::Expander;
use super::instruction::Heredoc;
use super::words::{self, Form, Head};
use super::wrong::Wrong;

/// A Dockerfile's size. The largest one that people are known to use has some
/// hundred KiB.
const LARGEST: usize = 4 << 20;

/// The length of a line, as BuildKit has it.
const LONGEST: usize = 65535;

/// An instruction as it stands in the file.
#[derive(Debug)]
pub(super) struct Line {
    /// From 1, the last one excluded, with its heredocs.
    pub(super) lines: Range<usize>,
    /// On one line.
    pub(super) text: String,
    /// What the line's `<<NAME`s name, in their order.
    pub(super) heredocs: Vec<Document>,
    /// The comment on the line before.
    pub(super) comment: Option<String>,
    /// The last of its lines before the heredocs, if one of them is empty.
    pub(super) empty: Option<usize>,
}

/// A text, line by line.
#[derive(Debug)]
pub(super) struct Text {
    /// Its instructions; at least one.
    pub(super) lines: Vec<Line>,
    /// `# escape=`.
    pub(super) escape: char,
    /// `# check=`.
    pub(super) check: Option<String>,
}

/// A heredoc as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Document {
    /// The word after the `<<`, without quotes.
    pub(super) name: String,
    /// `<<-`: the tabs at the beginning of its lines do not count.
    pub(super) chomp: bool,
    /// Whether its word has no quotes.
    pub(super) expand: bool,
    /// Its lines as they are.
    pub(super) content: String,
}

impl Document {
    /// The heredoc as an instruction holds it.
    pub(super) fn heredoc(&self) -> Heredoc {
        let content = if self.chomp {
            let lines = self.content.split_inclusive('\n');
            lines.map(|line| line.trim_start_matches('\t')).collect()
        } else {
            self.content.clone()
        };
        Heredoc {
            name: self.name.clone(),
            content,
            expand: self.expand,
        }
    }
}

/// What the comments at the beginning of a file say to its reader.
struct Directives {
    escape: char,
    check: Option<String>,
    seen: Vec<String>,
    done: bool,
}

impl Directives {
    /// Reads a line at the beginning of the file. The first one that is no
    /// directive ends them.
    fn read(&mut self, line: &str) -> Result<(), String> {
        if self.done {
            return Ok(());
        }
        let directive = line.strip_prefix('#').and_then(|line| line.split_once('='));
        let (name, value) = directive.unwrap_or_default();
        let name = name.trim().to_ascii_lowercase();
        let value = value.trim();
        if value.is_empty() || !["check", "escape", "syntax"].contains(&name.as_str()) {
            self.done = true;
            return Ok(());
        }
        if self.seen.contains(&name) {
            return Err(format!("only one {name} parser directive can be used"));
        }
        match name.as_str() {
            "escape" => {
                self.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => {
                        return Err(format!(
                            "invalid escape token '{value}' does not match ` or \\"
                        ));
                    }
                }
            }
            "syntax" => frontend(value)?,
            _ => self.check = Some(value.into()),
        }
        self.seen.push(name);
        Ok(())
    }
}

/// `# syntax=` names the image of a program that reads the Dockerfile. Docker's
/// own one reads what is read here; another language cannot be read.
fn frontend(image: &str) -> Result<(), String> {
    let image = image.split_ascii_whitespace().next().unwrap_or_default();
    let (name, _) = image.split_once('@').unwrap_or((image, ""));
    let path = name.strip_prefix("docker.io/").unwrap_or(name);
    let repository = match path.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => path,
    };
    match repository {
        "docker/dockerfile" | "docker/dockerfile-upstream" => Ok(()),
        _ => Err(format!(
            "syntax={image} is not supported: only docker/dockerfile is"
        )),
    }
}

/// The lines of a text with their ends, one after the other.
struct Reader<'a> {
    rest: &'a str,
    /// How many have been read: the number of the last one.
    number: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<&'a str>, Wrong> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.number += 1;
        if line.len() > LONGEST {
            return Err(Wrong::syntax(
                self.number..self.number + 1,
                format!("dockerfile line greater than max allowed size of {LONGEST}"),
            ));
        }
        Ok(Some(line))
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// A line without its continuation, if it has one.
fn continued(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        // An escaped one is the end of a name of Windows, C:\\.
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

/// The instructions of a text.
pub(super) fn read(text: &str) -> Result<Text, Wrong> {
    if text.len() > LARGEST {
        return Err(Wrong::syntax(
            1..2,
            format!("the Dockerfile is larger than {} MiB", LARGEST >> 20),
        ));
    }
    let mut reader = Reader {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        number: 0,
    };
    let mut directives = Directives {
        escape: '\\',
        check: None,
        seen: Vec::new(),
        done: false,
    };
    let mut instructions = Vec::new();
    let mut comment = None;
    while let Some(line) = reader.next()? {
        let first = reader.number;
        let line = line.trim_end_matches(['\r', '\n']).trim_start();
        directives
            .read(line)
            .map_err(|message| Wrong::syntax(first..first + 1, message))?;
        if line.is_empty() || is_comment(line) {
            // A directive says nothing about what follows it.
            let text = line.strip_prefix('#').filter(|_| directives.done);
            comment = text.map(|text| text.trim().to_owned());
            continue;
        }
        let mut instruction = instruction(&mut reader, line, directives.escape)?;
        instruction.comment = comment.take();
        instructions.push(instruction);
    }
    if instructions.is_empty() {
        let last = reader.number.max(1);
        return Err(Wrong::syntax(last..last + 1, "file with no instructions"));
    }
    Ok(Text {
        lines: instructions,
        escape: directives.escape,
        check: directives.check,
    })
}

/// A text that is one instruction: a trigger that an image holds.
pub(super) fn one(text: &str, escape: char) -> Result<Line, Wrong> {
    if text.len() > LARGEST {
        let message = format!("an instruction is larger than {} MiB", LARGEST >> 20);
        return Err(Wrong::syntax(0..0, message));
    }
    let mut reader = Reader {
        rest: text,
        number: 0,
    };
    let first = reader.next()?.unwrap_or_default();
    let first = first.trim_end_matches(['\r', '\n']);
    let mut line = instruction(&mut reader, first, escape)?;
    if !reader.rest.trim().is_empty() {
        return Err(Wrong::syntax(0..0, "more than one instruction"));
    }
    line.lines = 0..0;
    Ok(line)
}

// ANCHOR: instruction
/// An instruction that begins with a line.
fn instruction(reader: &mut Reader, first: &str, escape: char) -> Result<Line, Wrong> {
    let start = reader.number;
    let (part, mut more) = continued(first, escape);
    let mut text = String::from(part);
    let mut empty = false;
    while more {
        let Some(line) = reader.next()? else { break };
        let line = line.trim_end_matches(['\r', '\n']);
        if line.trim().is_empty() {
            empty = true;
            continue;
        }
        if is_comment(line) {
            continue;
        }
        let part;
        (part, more) = continued(line, escape);
        text.push_str(part);
    }
    let lines = start..reader.number + 1;
    let empty = empty.then_some(reader.number);
    let text = String::from(text.trim());
    let mut heredocs = Vec::new();
    let takes = takes_heredocs(&text).map_err(|message| Wrong::syntax(lines.clone(), message))?;
    if takes {
        let named = named(&text).map_err(|message| Wrong::syntax(lines.clone(), message))?;
        for mut document in named {
            document.content = content(reader, &document, start)?;
            heredocs.push(document);
        }
    }
    Ok(Line {
        lines: start..reader.number + 1,
        text,
        heredocs,
        comment: None,
        empty,
    })
}
// ANCHOR_END: instruction

/// Reads a heredoc up to its end.
fn content(reader: &mut Reader, document: &Document, start: usize) -> Result<String, Wrong> {
    let mut content = String::new();
    while let Some(line) = reader.next()? {
        let end = line.trim_end_matches(['\r', '\n']);
        let end = match document.chomp {
            true => end.trim_start_matches('\t'),
            false => end,
        };
        if end == document.name {
            return Ok(content);
        }
        content.push_str(line);
    }
    Err(Wrong::syntax(
        start..reader.number + 1,
        "unterminated heredoc",
    ))
}

/// Whether `<<` means something in a line: in `RUN`, `COPY` and `ADD`, also as a
/// trigger, if their words are no list in JSON.
fn takes_heredocs(text: &str) -> Result<bool, String> {
    if !text.contains("<<") {
        return Ok(false);
    }
    let mut head = Head::of(text);
    if head.name == "onbuild" {
        head = Head::of(head.rest);
    }
    Ok(match head.name.as_str() {
        "add" | "copy" | "run" => !matches!(words::form(head.rest)?, Form::Json(_)),
        _ => false,
    })
}

// ANCHOR: named
/// The heredocs that a line names.
fn named(text: &str) -> Result<Vec<Document>, String> {
    // A line that the builder cannot split, such as one with an open quote, has
    // none; its shell may still understand it.
    let words = Expander::raw().words(text).unwrap_or_default();
    let mut documents = Vec::new();
    for word in words {
        documents.extend(heredoc(&word)?);
    }
    Ok(documents)
}
// ANCHOR_END: named

/// A word that names a heredoc: `<<EOF`, `<<-EOF`, `3<<"EOF"`.
pub(super) fn heredoc(word: &str) -> Result<Option<Document>, String> {
    let digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(rest) = digits.strip_prefix("<<") else {
        return Ok(None);
    };
    let (rest, chomp) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let plain = |expander: Expander| expander.words(rest).map_err(|error| format!("{error:#}"));
    let names = plain(Expander::unset())?;
    let [name] = names.as_slice() else {
        return Ok(None);
    };
    let raw = plain(Expander::unset_with_quotes())?.concat();
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Ok(Some(Document {
        name: name.clone(),
        chomp,
        expand: quotes(name) == quotes(&raw),
        content: String::new(),
    }))
}
