//! Rules about how something is written.

use std::ops::Range;

use super::Warning;
use super::rules::{
    CONSISTENT_INSTRUCTION_CASING, DUPLICATE_STAGE_NAME, FROM_AS_CASING,
    INVALID_DEFINITION_DESCRIPTION, LEGACY_KEY_VALUE_FORMAT, MAINTAINER_DEPRECATED,
    NO_EMPTY_CONTINUATION, RESERVED_STAGE_NAME, Rule, STAGE_NAME_CASING,
};
use crate::dockerfile::instruction::Stage;
use crate::dockerfile::words::{Head, list, quoted};
use crate::dockerfile::{Dockerfile, Instruction, What};

/// Names that mean something else than a stage.
const RESERVED: [&str; 2] = ["context", "scratch"];

struct Checker<'a> {
    dockerfile: &'a Dockerfile,
    found: Vec<Warning>,
}

impl Checker<'_> {
    fn add(&mut self, rule: &'static Rule, lines: &Range<usize>, detail: String) {
        self.found.push(Warning {
            rule,
            detail,
            lines: lines.clone(),
        });
    }

    /// The comment before an instruction, if it does not begin with one of the
    /// names that the instruction defines.
    fn description(&mut self, lines: &Range<usize>, what: &str, names: &[&str]) {
        let Some(comment) = self.dockerfile.remarks.comments.get(&lines.start) else {
            return;
        };
        let first = comment.split(' ').next().unwrap_or_default();
        let Some(name) = names.first() else { return };
        if names.contains(&first) {
            return;
        }
        let name = if names.len() > 1 { "<arg_key>" } else { name };
        let detail =
            format!("Comment for {what} should follow the format: `# {name} <description>`");
        self.add(&INVALID_DEFINITION_DESCRIPTION, lines, detail);
    }

    fn stage(&mut self, stage: &Stage, before: &[Stage]) {
        let lines = &stage.lines;
        let head = Head::of(&stage.text);
        let words = list(head.rest);
        let [_, r#as, name] = words.as_slice() else {
            return;
        };
        if *name != name.to_lowercase() {
            let detail = format!("Stage name '{name}' should be lowercase");
            self.add(&STAGE_NAME_CASING, lines, detail);
        }
        // A mixed FROM is found by another rule.
        let from = head.written;
        let lower = from == from.to_lowercase() && *r#as != r#as.to_lowercase();
        let upper = from == from.to_uppercase() && *r#as != r#as.to_uppercase();
        if lower || upper {
            let detail = format!("'{as}' and '{from}' keywords' casing do not match", as = r#as);
            self.add(&FROM_AS_CASING, lines, detail);
        }
        let Some(name) = &stage.name else { return };
        if RESERVED.contains(&&**name) {
            let detail =
                format!("Stage name should not use the same name as reserved stage {name:?}");
            self.add(&RESERVED_STAGE_NAME, lines, detail);
        }
        if before.iter().any(|other| other.name.as_ref() == Some(name)) {
            let detail = format!("Duplicate stage name {name:?}, stage names should be unique");
            self.add(&DUPLICATE_STAGE_NAME, lines, detail);
        }
        self.description(lines, "FROM", &[name]);
    }

    fn instruction(&mut self, instruction: &Instruction) {
        let lines = &instruction.lines;
        match &instruction.what {
            What::Maintainer(_) => {
                let detail = "Maintainer instruction is deprecated in favor of using label";
                self.add(&MAINTAINER_DEPRECATED, lines, detail.into());
            }
            What::Arg(args) => {
                let names: Vec<&str> = args.iter().map(|(name, _)| &**name).collect();
                self.description(lines, "ARG", &names);
            }
            What::Env(_) | What::Label(_) => {
                let head = Head::of(&instruction.text);
                let words = quoted(head.rest, self.dockerfile.escape);
                if words.first().is_some_and(|first| !first.contains('=')) {
                    let name = head.name.to_uppercase();
                    let detail = format!(
                        "\"{name} key=value\" should be used instead of legacy \"{name} key \
                         value\" format"
                    );
                    self.add(&LEGACY_KEY_VALUE_FORMAT, lines, detail);
                }
            }
            _ => {}
        }
    }

    /// All instructions as most of them are written.
    fn casing(&mut self) {
        let mut written = Vec::new();
        for stage in &self.dockerfile.stages {
            written.push((Head::of(&stage.text).written, &stage.lines));
            for instruction in &stage.instructions {
                written.push((Head::of(&instruction.text).written, &instruction.lines));
            }
        }
        let lower = written
            .iter()
            .filter(|(name, _)| *name == name.to_lowercase());
        let upper = written
            .iter()
            .filter(|(name, _)| *name == name.to_uppercase());
        let is_lower = lower.count() > upper.count();
        for (name, lines) in written {
            let (right, casing) = match is_lower {
                true => (name.to_lowercase(), "lowercase"),
                false => (name.to_uppercase(), "uppercase"),
            };
            if name != right {
                let detail = format!(
                    "Command '{name}' should match the case of the command majority ({casing})"
                );
                self.add(&CONSISTENT_INSTRUCTION_CASING, lines, detail);
            }
        }
    }
}

/// Checks how a Dockerfile is written.
pub(super) fn check(dockerfile: &Dockerfile) -> Vec<Warning> {
    let mut checker = Checker {
        dockerfile,
        found: Vec::new(),
    };
    for line in &dockerfile.remarks.empty {
        let lines = *line..*line + 1;
        checker.add(
            &NO_EMPTY_CONTINUATION,
            &lines,
            "Empty continuation line".into(),
        );
    }
    checker.casing();
    for instruction in &dockerfile.args {
        checker.instruction(instruction);
    }
    for (number, stage) in dockerfile.stages.iter().enumerate() {
        checker.stage(stage, &dockerfile.stages[..number]);
        for instruction in &stage.instructions {
            checker.instruction(instruction);
        }
    }
    checker.found
}
