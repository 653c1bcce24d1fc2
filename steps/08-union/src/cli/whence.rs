//! `step-08 where`: which layer a file comes from, and why.

use std::io::{Write, stdout};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::StoreArgs;
use super::layer::shown;
use crate::driver::StorageDriver;
use crate::layers::finding::{Finding, What};
use crate::layers::id::LayerId;

/// Which file of which container.
#[derive(Args, Clone, Debug)]
pub struct WhereArgs {
    /// Path of the file in the container
    pub file: PathBuf,

    /// Container or layer [default: the only layer without children]
    #[arg(long, value_name = "ID")]
    pub layer: Option<LayerId>,

    #[command(flatten)]
    store: StoreArgs,
}

/// Prints what each layer says about the file, the topmost first, and the
/// result.
pub fn run(args: WhereArgs) -> Result<()> {
    let driver = args.store.open()?;
    let id = match args.layer {
        Some(id) => id,
        None => topmost(&*driver)?,
    };
    let path: PathBuf = args
        .file
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    let stack = 1 + driver.parents(&id)?.len();
    let findings = driver.lookup(&id, &path)?;
    let mut out = stdout().lock();
    for (n, finding) in findings.iter().enumerate() {
        let place = match n {
            0 => "top",
            _ => "below",
        };
        writeln!(
            out,
            "layer {:<3} {:<24} {place:<6} {}",
            stack - n,
            finding.layer,
            words(&finding.what, &path)
        )
        .context("write")?;
    }
    if findings.len() < stack {
        writeln!(
            out,
            "{} further below are not asked",
            plural(stack - findings.len())
        )
        .context("write")?;
    }
    writeln!(out, "/{}: {}", shown(&path), verdict(&findings, stack)).context("write")
}

fn plural(layers: usize) -> String {
    match layers {
        1 => "1 layer".into(),
        n => format!("{n} layers"),
    }
}

fn topmost(driver: &dyn StorageDriver) -> Result<LayerId> {
    let layers = driver.layers()?;
    let mut tops = layers.clone();
    for id in &layers {
        if let Some(parent) = driver.parents(id)?.first() {
            tops.retain(|top| top != parent);
        }
    }
    match &tops[..] {
        [only] => Ok(only.clone()),
        [] => bail!("there are no layers: make one with step-08 layer create"),
        _ => {
            let names: Vec<_> = tops.iter().map(LayerId::as_str).collect();
            bail!("name one of these by --layer: {}", names.join(", "))
        }
    }
}

fn words(what: &What, path: &Path) -> String {
    match what {
        What::Absent => "nothing".into(),
        What::File { kind } => format!("a {kind}: found"),
        What::Directory => "a directory: found, and merged with those below".into(),
        What::Opaque { at, found } => {
            let found = match found {
                true => "found, and nothing below counts",
                false => "nothing, and nothing below counts",
            };
            match at == path {
                true => format!("an opaque directory: {found}"),
                false => format!("/{} is an opaque directory: {found}", shown(at)),
            }
        }
        What::Whiteout { at } if at == path => "a whiteout: deleted".into(),
        What::Whiteout { at } => format!("a whiteout of /{}: deleted with it", shown(at)),
        What::NotDirectory { at } => format!("/{} is not a directory here", shown(at)),
        What::Inherited => "as in the layer below".into(),
    }
}

fn verdict(findings: &[Finding], stack: usize) -> String {
    let from = |n: usize| format!("from layer {} ({})", stack - n, findings[n].layer);
    let mut merged = Vec::new();
    for (n, finding) in findings.iter().enumerate() {
        match &finding.what {
            What::Absent | What::Inherited => {}
            What::File { .. } if merged.is_empty() => return from(n),
            What::File { .. } | What::NotDirectory { .. } => break,
            What::Directory => merged.push(n),
            What::Opaque { found, .. } => {
                if *found {
                    merged.push(n);
                }
                break;
            }
            What::Whiteout { .. } if merged.is_empty() => {
                return format!("deleted in layer {} ({})", stack - n, finding.layer);
            }
            What::Whiteout { .. } => break,
        }
    }
    match &merged[..] {
        [] => "in no layer".into(),
        [only] => from(*only),
        many => {
            let names: Vec<_> = many.iter().map(|n| findings[*n].layer.as_str()).collect();
            format!("a directory merged of {}", names.join(", "))
        }
    }
}
