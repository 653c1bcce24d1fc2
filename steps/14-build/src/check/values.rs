//! Rules about variables, platforms and files: the fold over a stage's
//! instructions, without an image that is made.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use registry::manifest::Platform;
use registry::reference::Reference;

use super::rules::{
    COPY_IGNORED_FILE, EXPOSE_INVALID_FORMAT, EXPOSE_PROTO_CASING,
    FROM_PLATFORM_FLAG_CONST_DISALLOWED, INVALID_DEFAULT_ARG_IN_FROM, JSON_ARGS_RECOMMENDED,
    MULTIPLE_INSTRUCTIONS_DISALLOWED, REDUNDANT_TARGET_PLATFORM, Rule, SECRETS_USED_IN_ARG_OR_ENV,
    UNDEFINED_ARG_IN_FROM, UNDEFINED_VAR, WORKDIR_RELATIVE_PATH,
};
use super::{Facts, Warning};
use crate::build::variables::platform;
use crate::copy::{remote, tree};
use crate::dockerfile::instruction::{Copy, Source, Stage, Words};
use crate::dockerfile::words::{Head, did_you_mean, similar};
use crate::dockerfile::{Dockerfile, Expander, Instruction, What};

/// Parts of the names of variables that hold secrets.
const SECRETS: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];

/// Parts of names that say that there is no secret after all.
const NO_SECRETS: [&str; 3] = ["public", "file", "version"];

/// Arguments that the builder itself understands.
const BUILDERS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// What is in force at some place of a Dockerfile.
#[derive(Clone, Debug, Default)]
struct Scope {
    values: BTreeMap<String, String>,
    /// Arguments that are declared, with a value or without.
    declared: BTreeSet<String>,
    /// Whether all variables of the image are known.
    is_known: bool,
    has_shell: bool,
    has_workdir: bool,
}

/// A text with its variables.
struct Expanded {
    text: String,
    words: Vec<String>,
    used: BTreeSet<String>,
}

impl Scope {
    fn expand(&self, escape: char, text: &str) -> Option<Expanded> {
        let get = |name: &str| self.values.get(name).cloned();
        let expander = Expander::new(escape, &get);
        // What cannot be expanded is an error of the build, in its own words.
        Some(Expanded {
            text: expander.word(text).ok()?,
            words: expander.words(text).ok()?,
            used: expander.used(),
        })
    }

    fn missing(&self, used: &BTreeSet<String>) -> Vec<String> {
        let is_missing = |name: &&String| {
            !self.values.contains_key(*name)
                && !self.declared.contains(*name)
                && !BUILDERS.contains(&&***name)
        };
        used.iter().filter(is_missing).cloned().collect()
    }
}

struct Checker<'a> {
    dockerfile: &'a Dockerfile,
    facts: &'a Facts<'a>,
    found: RefCell<Vec<Warning>>,
}

impl Checker<'_> {
    fn add(&self, rule: &'static Rule, lines: &Range<usize>, detail: String) {
        self.found.borrow_mut().push(Warning {
            rule,
            detail,
            lines: lines.clone(),
        });
    }

    /// What `FROM` lines see.
    fn global(&self, with_arguments: bool) -> Scope {
        let mut scope = Scope::default();
        scope.values.extend(platform(self.facts.options));
        for instruction in &self.dockerfile.args {
            let What::Arg(args) = &instruction.what else {
                continue;
            };
            for (name, default) in args {
                let given = self.facts.options.build_args.get(name).cloned();
                let given = given.filter(|_| with_arguments);
                let default = || {
                    let expanded = scope.expand(self.dockerfile.escape, default.as_ref()?)?;
                    Some(expanded.text)
                };
                let value = given.or_else(default);
                scope.declared.insert(name.clone());
                scope
                    .values
                    .extend(value.map(|value| (name.clone(), value)));
            }
        }
        scope
    }

    /// `FROM`.
    fn from(&self, stage: &Stage, global: &Scope, defaults: &Scope) -> Option<Expanded> {
        let (escape, lines) = (self.dockerfile.escape, &stage.lines);
        let by_default = defaults.expand(escape, &stage.from)?;
        if by_default.text.parse::<Reference>().is_err() {
            let detail = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                stage.from
            );
            self.add(&INVALID_DEFAULT_ARG_IN_FROM, lines, detail);
        }
        let from = global.expand(escape, &stage.from)?;
        let undeclared = |used: &BTreeSet<String>| {
            let known = global.values.keys().chain(&global.declared);
            let known: Vec<&str> = known.map(String::as_str).collect();
            for name in global.missing(used) {
                let similar = did_you_mean(&name, &known);
                let detail = format!("FROM argument '{name}' is not declared{similar}");
                self.add(&UNDEFINED_ARG_IN_FROM, lines, detail);
            }
        };
        undeclared(&from.used);
        if let Some(written) = &stage.platform {
            let platform = global.expand(escape, written)?;
            undeclared(&platform.used);
            let target = "TARGETPLATFORM".to_owned();
            if platform.used == BTreeSet::from([target.clone()])
                && global.values.get(&target) == Some(&platform.text)
            {
                let detail = format!(
                    "Setting platform to predefined {written} in FROM is redundant as this is the \
                     default behavior"
                );
                self.add(&REDUNDANT_TARGET_PLATFORM, lines, detail);
            }
            if platform.used.is_empty()
                && let Ok(parsed) = platform.text.parse::<Platform>()
            {
                // A stage for one platform says so in its name.
                let name = stage.name.as_deref().unwrap_or_default();
                if !name.contains(&parsed.os) && !name.contains(&parsed.architecture) {
                    let detail = format!(
                        "FROM --platform flag should not use constant value {:?}",
                        platform.text
                    );
                    self.add(&FROM_PLATFORM_FLAG_CONST_DISALLOWED, lines, detail);
                }
            }
        }
        Some(from)
    }

    /// A text of an instruction, whose variables must be defined.
    fn text(&self, scope: &Scope, lines: &Range<usize>, text: &str) -> Option<Expanded> {
        let expanded = scope.expand(self.dockerfile.escape, text)?;
        self.defined(scope, lines, &expanded.used);
        Some(expanded)
    }

    fn defined(&self, scope: &Scope, lines: &Range<usize>, used: &BTreeSet<String>) {
        if !scope.is_known {
            return;
        }
        let known: Vec<&str> = scope.values.keys().map(String::as_str).collect();
        for name in scope.missing(used) {
            let similar = similar(&name, &known).map(|name| format!(" (did you mean ${name}?)"));
            let detail = format!(
                "Usage of undefined variable '${name}'{}",
                similar.unwrap_or_default()
            );
            self.add(&UNDEFINED_VAR, lines, detail);
        }
    }

    fn no_secret(&self, lines: &Range<usize>, instruction: &str, name: &str) {
        let parts: Vec<String> = name.split('_').map(str::to_lowercase).collect();
        let has = |known: &[&str]| parts.iter().any(|part| known.contains(&&**part));
        if has(&SECRETS) && !has(&NO_SECRETS) {
            let detail = format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})"
            );
            self.add(&SECRETS_USED_IN_ARG_OR_ENV, lines, detail);
        }
    }

    fn command(&self, scope: &Scope, instruction: &Instruction, words: &Words) {
        if matches!(words, Words::Shell(_)) && !scope.has_shell {
            let detail = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS \
                 signals",
                Head::of(&instruction.text).written
            );
            self.add(&JSON_ARGS_RECOMMENDED, &instruction.lines, detail);
        }
    }

    fn copy(&self, scope: &Scope, lines: &Range<usize>, copy: &Copy, add: bool) {
        for text in [&copy.chown, &copy.chmod, &copy.checksum]
            .into_iter()
            .flatten()
        {
            self.text(scope, lines, text);
        }
        for text in &copy.exclude {
            self.text(scope, lines, text);
        }
        for source in &copy.sources {
            match source {
                Source::Here(heredoc) => {
                    let get = |name: &str| scope.values.get(name).cloned();
                    let expander = Expander::new(self.dockerfile.escape, &get);
                    if expander.heredoc(heredoc).is_ok() {
                        self.defined(scope, lines, &expander.used());
                    }
                }
                Source::Path(path) => {
                    if let Some(path) = self.text(scope, lines, path)
                        && copy.from.is_none()
                        && !(add && remote::is_address(&path.text))
                    {
                        self.ignored(lines, &path.text, add);
                    }
                }
            }
        }
        self.text(scope, lines, &copy.destination);
    }

    /// A file that is no part of the context. With exceptions in a
    /// `.dockerignore` nobody can say so without a look at the files.
    fn ignored(&self, lines: &Range<usize>, path: &str, add: bool) {
        let clean = tree::clean(path.as_ref());
        let ignore = self.facts.ignore.filter(|ignore| !ignore.has_exceptions());
        if ignore.is_some_and(|ignore| ignore.leaves_out(&clean, false)) {
            let name = if add { "Add" } else { "Copy" };
            let detail =
                format!("Attempting to {name} file {path:?} that is excluded by .dockerignore");
            self.add(&COPY_IGNORED_FILE, lines, detail);
        }
    }

    fn expose(&self, scope: &Scope, lines: &Range<usize>, port: &str) {
        let words = self.text(scope, lines, port).map(|port| port.words);
        for word in words.unwrap_or_default() {
            let (ports, protocol) = word.split_once('/').unwrap_or((&word, ""));
            if protocol != protocol.to_lowercase() {
                let detail =
                    format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
                self.add(&EXPOSE_PROTO_CASING, lines, detail);
            }
            if ports.contains(':') {
                let detail = format!(
                    "EXPOSE instruction should not define an IP address or host-port mapping, \
                     found '{word}'"
                );
                self.add(&EXPOSE_INVALID_FORMAT, lines, detail);
            }
        }
    }

    /// Takes an instruction into account.
    fn instruction(&self, scope: &mut Scope, instruction: &Instruction) {
        let lines = &instruction.lines;
        let text = |text: &str| self.text(scope, lines, text);
        match &instruction.what {
            What::Arg(args) => {
                let mut set = Vec::new();
                for (name, default) in args {
                    self.no_secret(lines, "ARG", name);
                    let name = text(name).map_or(name.clone(), |name| name.text);
                    let default = default.as_ref().and_then(|default| text(default));
                    let given = self.facts.options.build_args.get(&name).cloned();
                    let inherited = || self.global(true).values.get(&name).cloned();
                    let value = given.or(default.map(|default| default.text));
                    let value = value.or_else(inherited);
                    set.push((name, value));
                }
                for (name, value) in set {
                    scope.declared.insert(name.clone());
                    scope.values.extend(value.map(|value| (name, value)));
                }
            }
            What::Env(pairs) => {
                let mut set = Vec::new();
                for (name, value) in pairs {
                    self.no_secret(lines, "ENV", name);
                    let name = text(name).map_or(name.clone(), |name| name.text);
                    let value = text(value).map_or(String::new(), |value| value.text);
                    set.push((name, value));
                }
                scope.values.extend(set);
            }
            What::Label(pairs) => {
                for (name, value) in pairs {
                    text(name);
                    text(value);
                }
            }
            What::Add(copy) => self.copy(scope, lines, copy, true),
            What::Copy(copy) => self.copy(scope, lines, copy, false),
            What::Cmd(words) | What::Entrypoint(words) => self.command(scope, instruction, words),
            What::Expose(ports) => {
                for port in ports {
                    self.expose(scope, lines, port);
                }
            }
            What::Run(run) => {
                for mount in &run.mounts {
                    text(mount);
                }
            }
            What::Shell(_) => scope.has_shell = true,
            What::Stopsignal(word) | What::User(word) => drop(text(word)),
            What::Volume(paths) => {
                for path in paths {
                    text(path);
                }
            }
            What::Workdir(path) => {
                let path = text(path).map(|path| path.text);
                if let Some(path) = path.filter(|path| !path.starts_with('/'))
                    && !scope.has_workdir
                {
                    let detail = format!(
                        "Relative workdir {path:?} can have unexpected results if the base image \
                         changes"
                    );
                    self.add(&WORKDIR_RELATIVE_PATH, lines, detail);
                }
                scope.has_workdir = true;
            }
            What::Healthcheck(_) | What::Maintainer(_) | What::Onbuild(_) => {}
        }
    }

    /// Of these only the last one in a stage has an effect.
    fn once(&self, stage: &Stage) {
        let mut last: BTreeMap<&str, &Range<usize>> = BTreeMap::new();
        for instruction in &stage.instructions {
            let kind = match instruction.what {
                What::Cmd(_) => "CMD",
                What::Entrypoint(_) => "ENTRYPOINT",
                What::Healthcheck(_) => "HEALTHCHECK",
                _ => continue,
            };
            if let Some(before) = last.insert(kind, &instruction.lines) {
                let detail = format!(
                    "Multiple {} instructions should not be used in the same stage because only \
                     the last one will be used",
                    Head::of(&instruction.text).written
                );
                self.add(&MULTIPLE_INSTRUCTIONS_DISALLOWED, before, detail);
            }
        }
    }
}

/// Checks what a Dockerfile says.
pub(super) fn check(dockerfile: &Dockerfile, facts: &Facts<'_>) -> Vec<Warning> {
    let checker = Checker {
        dockerfile,
        facts,
        found: RefCell::default(),
    };
    let (global, defaults) = (checker.global(true), checker.global(false));
    let mut ends: Vec<Scope> = Vec::new();
    for stage in &dockerfile.stages {
        let from = checker.from(stage, &global, &defaults);
        let from = from.map_or(String::new(), |from| from.text);
        let small = from.to_lowercase();
        let mut stages = dockerfile.stages[..ends.len()].iter();
        let mut scope = match stages.rposition(|stage| stage.name.as_deref() == Some(&*small)) {
            Some(number) => ends[number].clone(),
            None => {
                let base = (facts.base)(&from);
                let is_known = base.is_some();
                let base = base.unwrap_or_default();
                Scope {
                    values: base.env.into_iter().collect(),
                    is_known,
                    has_shell: base.has_shell,
                    ..Scope::default()
                }
            }
        };
        for instruction in &stage.instructions {
            checker.instruction(&mut scope, instruction);
        }
        checker.once(stage);
        ends.push(scope);
    }
    checker.found.into_inner()
}
