//! A logical line becomes an instruction, or an error with Docker's words.

use super::instruction::{
    Copy, Dockerfile, Health, Heredoc, Instruction, Remarks, Run, Source, Stage, What, Words,
};
use super::lines::{self, Line, Text};
use super::mount::RunMount;
use super::words::{self, Form, Head, did_you_mean};
use super::wrong::Wrong;

/// What Docker knows, for "did you mean".
const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

type Result<T> = std::result::Result<T, String>;

/// Reads a file.
pub(super) fn dockerfile(text: &str) -> std::result::Result<Dockerfile, Wrong> {
    let Text {
        lines,
        escape,
        check,
    } = lines::read(text)?;
    let mut remarks = Remarks {
        check,
        ..Remarks::default()
    };
    let mut args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    let mut last = 1..2;
    for line in lines {
        last = line.lines.clone();
        remarks.empty.extend(line.empty);
        if let Some(comment) = &line.comment {
            remarks.comments.insert(last.start, comment.clone());
        }
        let head = Head::of(&line.text);
        if head.name == "from" {
            let stage = stage(&line, head);
            stages.push(stage.map_err(|error| Wrong::instruction(last.clone(), error))?);
            continue;
        }
        let instruction = instruction(&line, escape)?;
        match (stages.last_mut(), &instruction.what) {
            (Some(stage), _) => stage.instructions.push(instruction),
            (None, What::Arg(_)) => args.push(instruction),
            (None, _) => return Err(Wrong::syntax(last, "no build stage in current context")),
        }
    }
    if stages.is_empty() {
        return Err(Wrong::syntax(
            last,
            "dockerfile contains no stages to build",
        ));
    }
    Ok(Dockerfile {
        escape,
        remarks,
        args,
        stages,
    })
}

/// Reads an instruction other than `FROM`.
pub(super) fn instruction(line: &Line, escape: char) -> std::result::Result<Instruction, Wrong> {
    let wrong = |message| Wrong::instruction(line.lines.clone(), message);
    let head = Head::of(&line.text);
    let name = head.name.to_uppercase();
    let what = match name.as_str() {
        // What is wrong with pairs is an error of form to BuildKit, whose words
        // have no line before them.
        "ENV" | "LABEL" if head.options.is_empty() && !head.rest.is_empty() => {
            words::pairs(head.rest, &name, escape)
                .map(|pairs| match name.as_str() {
                    "ENV" => What::Env(pairs),
                    _ => What::Label(pairs),
                })
                .map_err(|message| match message.ends_with("blank") {
                    true => wrong(message),
                    false => Wrong::syntax(line.lines.clone(), message),
                })?
        }
        _ => what(&name, head, &line.heredocs, escape).map_err(wrong)?,
    };
    Ok(Instruction {
        lines: line.lines.clone(),
        text: line.text.clone(),
        what,
    })
}

/// `--NAME` of an instruction, as they are taken out one after the other.
struct Options {
    given: Vec<(String, Option<String>)>,
    known: Vec<&'static str>,
}

impl Options {
    /// An option with values, given any number of times.
    fn all(&mut self, name: &'static str) -> Result<Vec<String>> {
        self.known.push(name);
        let mut values = Vec::new();
        for (_, value) in self.given.extract_if(.., |(given, _)| given == name) {
            values.push(value.ok_or_else(|| format!("missing a value on flag: {name}"))?);
        }
        Ok(values)
    }

    /// An option with a value. An empty one is as good as none.
    fn one(&mut self, name: &'static str) -> Result<Option<String>> {
        let mut values = self.all(name)?;
        if values.len() > 1 {
            return Err(format!("duplicate flag specified: {name}"));
        }
        Ok(values.pop().filter(|value| !value.is_empty()))
    }

    /// `--NAME`, `--NAME=true`, `--NAME=false`.
    fn switch(&mut self, name: &'static str) -> Result<Option<bool>> {
        for (given, value) in &mut self.given {
            if given == name && value.is_none() {
                *value = Some("true".into());
            }
        }
        let mut values = self.all(name)?;
        if values.len() > 1 {
            return Err(format!("duplicate flag specified: {name}"));
        }
        match values.pop() {
            None => Ok(None),
            Some(value) => match value.to_ascii_lowercase().as_str() {
                "true" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                "" => Err(format!("missing a value on flag: {name}")),
                _ => Err(format!(
                    "expecting boolean value for flag {name}, not: {value}"
                )),
            },
        }
    }

    /// Refuses what has not been taken out.
    fn none_left(self) -> Result<()> {
        match self.given.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!(
                "unknown flag: {name}{}",
                did_you_mean(name, &self.known)
            )),
        }
    }
}

/// What an instruction says.
fn what(name: &str, head: Head, heredocs: &[lines::Document], escape: char) -> Result<What> {
    let rest = head.rest;
    let mut options = Options {
        given: head.options,
        known: Vec::new(),
    };
    let at_least_one = || format!("{name} requires at least one argument");
    let exactly_one = || match rest {
        "" => Err(format!("{name} requires exactly one argument")),
        _ => Ok(String::from(rest)),
    };
    let what = match name {
        "ADD" | "COPY" => {
            let copy = copy(name, rest, heredocs, &mut options)?;
            match name {
                "ADD" => What::Add(copy),
                _ => What::Copy(copy),
            }
        }
        "ARG" => What::Arg(args(rest, escape)?),
        "CMD" => What::Cmd(command(rest)?),
        "ENTRYPOINT" => What::Entrypoint(command(rest)?),
        "ENV" | "LABEL" => {
            options.none_left()?;
            return Err(at_least_one());
        }
        "EXPOSE" => What::Expose(some(words::list(rest)).ok_or_else(at_least_one)?),
        "HEALTHCHECK" => What::Healthcheck(health(rest, &mut options)?),
        "MAINTAINER" => What::Maintainer(exactly_one()?),
        "ONBUILD" => What::Onbuild(trigger(rest, heredocs, escape)?),
        "RUN" => What::Run(run(rest, heredocs, &mut options)?),
        "SHELL" => match words::form(rest)? {
            Form::Json(words) => What::Shell(some(words).ok_or_else(at_least_one)?),
            Form::Text if rest.is_empty() => return Err(at_least_one()),
            Form::Text => return Err("SHELL requires the arguments to be in JSON form".into()),
        },
        "STOPSIGNAL" => What::Stopsignal(exactly_one()?),
        "USER" => What::User(exactly_one()?),
        "VOLUME" => {
            let volumes = some(words_of(rest)?).ok_or_else(at_least_one)?;
            let volumes: Vec<String> = volumes.iter().map(|path| path.trim().into()).collect();
            if volumes.iter().any(String::is_empty) {
                return Err("VOLUME specified can not be an empty string".into());
            }
            What::Volume(volumes)
        }
        "WORKDIR" => What::Workdir(exactly_one()?),
        _ => {
            let written = head.written;
            return Err(format!(
                "unknown instruction: {written}{}",
                did_you_mean(written, &INSTRUCTIONS)
            ));
        }
    };
    options.none_left()?;
    Ok(what)
}

fn some<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

/// A list in JSON, or the words between blanks.
fn words_of(text: &str) -> Result<Vec<String>> {
    Ok(match words::form(text)? {
        Form::Json(words) => words,
        Form::Text => words::list(text),
    })
}

/// A list in JSON, or the line.
fn command(text: &str) -> Result<Words> {
    Ok(match words::form(text)? {
        Form::Json(words) => Words::Exec(words),
        Form::Text => Words::Shell(text.into()),
    })
}

fn args(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>> {
    let words = some(words::quoted(rest, escape));
    let words = words.ok_or("ARG requires at least one argument")?;
    let pairs = words.into_iter().map(|word| match word.split_once('=') {
        Some(("", _)) => Err("ARG names can not be blank".into()),
        Some((name, value)) => Ok((name.into(), Some(value.into()))),
        None => Ok((word, None)),
    });
    pairs.collect()
}

fn copy(
    name: &str,
    rest: &str,
    heredocs: &[lines::Document],
    options: &mut Options,
) -> Result<Copy> {
    let mut copy = Copy {
        chown: options.one("chown")?,
        chmod: options.one("chmod")?,
        link: options.switch("link")?.unwrap_or(false),
        exclude: options.all("exclude")?,
        ..Copy::default()
    };
    if name == "COPY" {
        copy.from = options.one("from")?;
        copy.parents = options.switch("parents")?.unwrap_or(false);
    } else {
        copy.checksum = options.one("checksum")?;
        copy.keep_git_dir = options.switch("keep-git-dir")?.unwrap_or(false);
        copy.unpack = options.switch("unpack")?;
    }
    let json = matches!(words::form(rest)?, Form::Json(_));
    let mut words = words_of(rest)?;
    let destination = words.pop().filter(|_| !words.is_empty());
    copy.destination = destination.ok_or_else(|| {
        format!(
            "{name} requires at least two arguments, but only one was provided. Destination \
             could not be determined"
        )
    })?;
    if !json && lines::heredoc(&copy.destination)?.is_some() {
        return Err(format!("{name} cannot accept a heredoc as a destination"));
    }
    for word in words {
        let named = match json {
            true => None,
            false => lines::heredoc(&word)?,
        };
        // Of two with one name, the last one is the file in the end.
        let document = named.and_then(|named| heredocs.iter().rev().find(|x| x.name == named.name));
        copy.sources.push(match document {
            Some(document) => Source::Here(file(document)?),
            None => Source::Path(word),
        });
    }
    Ok(copy)
}

/// A heredoc that becomes a file of its name.
fn file(document: &lines::Document) -> Result<Heredoc> {
    let name = document.name.as_str();
    if name == "." || name == ".." || name.contains('/') {
        return Err(format!("the heredoc {name:?} has no name of a file"));
    }
    Ok(document.heredoc())
}

fn run(rest: &str, heredocs: &[lines::Document], options: &mut Options) -> Result<Run> {
    let mut run = Run {
        command: command(rest)?,
        heredocs: heredocs.iter().map(lines::Document::heredoc).collect(),
        script: None,
        mounts: options.all("mount")?,
        network: options.one("network")?,
        security: options.one("security")?,
    };
    for mount in &run.mounts {
        RunMount::check(mount)?;
    }
    if let Some(network) = &run.network
        && !["default", "host", "none"].contains(&network.as_str())
    {
        return Err(format!("invalid network mode {network:?}"));
    }
    if let Some(security) = &run.security
        && !["insecure", "sandbox"].contains(&security.as_str())
    {
        return Err(format!("security {security:?} is not valid"));
    }
    if rest.is_empty() || run.command == Words::Exec(Vec::new()) {
        return Err("RUN requires at least one argument".into());
    }
    // `RUN <<EOF` and nothing else: the text is the command.
    if let (Some(_), Some(document)) = (lines::heredoc(rest)?, heredocs.first()) {
        run.heredocs.clear();
        let content = document.heredoc().content;
        if content.starts_with("#!") {
            run.script = Some(file(document)?.name);
        }
        run.command = Words::Shell(content);
    }
    Ok(run)
}

fn trigger(rest: &str, heredocs: &[lines::Document], escape: char) -> Result<String> {
    let head = Head::of(rest);
    match head.name.to_uppercase().as_str() {
        "" => return Err("ONBUILD requires at least one argument".into()),
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
        name @ ("FROM" | "MAINTAINER") => {
            return Err(format!("{name} isn't allowed as an ONBUILD trigger"));
        }
        _ => {}
    }
    let line = Line {
        lines: 0..0,
        text: rest.into(),
        heredocs: heredocs.to_vec(),
        comment: None,
        empty: None,
    };
    instruction(&line, escape).map_err(|wrong| wrong.to_string())?;
    let mut text = String::from(rest);
    for document in heredocs {
        text.push('\n');
        text.push_str(&document.content);
        text.push_str(&document.name);
    }
    Ok(text)
}

fn health(rest: &str, options: &mut Options) -> Result<Option<Health>> {
    let (kind, rest) = words::split(rest);
    match kind.to_ascii_uppercase().as_str() {
        "" => Err("HEALTHCHECK requires at least one argument".into()),
        "NONE" if rest.is_empty() => Ok(None),
        "NONE" => Err("HEALTHCHECK NONE takes no arguments".into()),
        "CMD" => {
            let mut times = [0; 4];
            let names = ["interval", "timeout", "start-period", "start-interval"];
            for (time, name) in times.iter_mut().zip(names) {
                if let Some(value) = options.one(name)? {
                    *time = nanoseconds(&value, name)?;
                }
            }
            let retries = match options.one("retries")? {
                None => 0,
                Some(value) => match value.parse::<i32>() {
                    Ok(retries @ 0..) => retries.unsigned_abs(),
                    Ok(retries) => {
                        return Err(format!("--retries cannot be negative ({retries})"));
                    }
                    Err(_) => return Err(format!("--retries: {value:?} is not a number")),
                },
            };
            let command = command(rest)?;
            if matches!(&command, Words::Exec(words) if words.is_empty()) || rest.is_empty() {
                return Err("Missing command after HEALTHCHECK CMD".into());
            }
            Ok(Some(Health {
                command,
                times,
                retries,
            }))
        }
        kind => Err(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")),
    }
}

fn nanoseconds(text: &str, name: &str) -> Result<u64> {
    let time = lifecycle::health::duration(text).map_err(|error| format!("{error:#}"))?;
    match u64::try_from(time.as_nanos()) {
        Ok(time @ (0 | 1_000_000..)) => Ok(time),
        _ => Err(format!("Interval {name:?} cannot be less than 1ms")),
    }
}

/// `FROM`.
fn stage(line: &Line, head: Head) -> Result<Stage> {
    let words = words::list(head.rest);
    let (from, name) = match words.as_slice() {
        [from] => (from, None),
        [from, r#as, name] if r#as.eq_ignore_ascii_case("as") => (from, Some(name)),
        _ => return Err("FROM requires either one or three arguments".into()),
    };
    let name = match name {
        Some(written) => {
            let name = written.to_lowercase();
            let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(known) {
                return Err(format!(
                    "invalid name for build stage: {written:?}, name can't start with a number \
                     or contain symbols"
                ));
            }
            Some(name)
        }
        None => None,
    };
    let mut options = Options {
        given: head.options,
        known: Vec::new(),
    };
    let platform = options.one("platform")?;
    options.none_left()?;
    Ok(Stage {
        lines: line.lines.clone(),
        text: line.text.clone(),
        from: from.clone(),
        platform,
        name,
        instructions: Vec::new(),
    })
}
