//! `build --check`, and the warnings at the end of a build.

use anyhow::Result;
use process::{Exit, Failure};
use registry::cli::Here;

use crate::build::image::Image;
use crate::build::options::Options;
use crate::check::{Base, Facts, Found, check};
use crate::context::Context;
use crate::context::ignore::Ignore;
use crate::dockerfile::{self, Dockerfile};
use crate::progress::safe;

/// Checks the Dockerfile of a context. An image that is not here is not pulled
/// for this: its variables are unknown, and none of them is called undefined.
pub(super) fn found(
    here: &Here,
    options: &Options,
    context: &Context,
    dockerfile: &Dockerfile,
) -> Result<Found> {
    let ignore = context
        .files
        .as_ref()
        .and_then(|files| files.ignore.as_deref());
    let ignore = ignore.map(Ignore::parse).transpose()?;
    let facts = Facts {
        options,
        ignore: ignore.as_ref(),
        base: &|reference| match base(here, reference) {
            Ok(base) => base,
            Err(error) => {
                kit::say!("{reference}: {error:#}");
                None
            }
        },
    };
    check(dockerfile, &facts)
}

fn base(here: &Here, reference: &str) -> Result<Option<Base>> {
    let mut image = match reference {
        "scratch" => Image::scratch()?,
        _ => {
            let Some(record) = here.find(reference)? else {
                return Ok(None);
            };
            Image::of(&record, &here.images.store.config(&record.id)?)?
        }
    };
    Ok(Some(Base {
        env: image.env()?,
        has_shell: !image.texts("Shell")?.is_empty(),
    }))
}

/// `build --check`: shows what was found, each with its lines. The exit status is
/// 1 if there is anything.
pub(super) fn show(found: &Found, context: &Context) -> Result<Exit> {
    let mut text = match found.warnings.len() {
        0 => "Check complete, no warnings found.\n".into(),
        1 => "Check complete, 1 warning has been found!\n".into(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for warning in &found.warnings {
        let (rule, detail) = (warning.rule, safe(&warning.detail));
        text += &format!("\nWARNING: {} - {}\n{detail}\n", rule.name, rule.address());
        let mark = dockerfile::mark(&context.name, &context.dockerfile, &warning.lines);
        for line in mark.lines() {
            text += &safe(line);
            text.push('\n');
        }
    }
    kit::out!("{text}")?;
    match found.error() {
        Some(error) => Err(Failure::new(1, error).into()),
        None => Ok(Exit::Code(u8::from(!found.warnings.is_empty()))),
    }
}

/// The warnings of a build, on a line each. The last one of them is on
/// standard error, after everything else.
pub(super) fn summary(found: &Found) {
    let count = match found.warnings.len() {
        0 => return,
        1 => "1 warning found".to_owned(),
        count => format!("{count} warnings found"),
    };
    kit::errln!("\n {count} (use drydock build --check to expand):");
    for warning in &found.warnings {
        kit::errln!(" - {}", safe(&warning.short()));
    }
}
