//! `events`.

use std::io::{ErrorKind, Write, stdout};
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::Args;
use engine::cli::places::Places;
use kit::own::make;
use process::Exit;
use rustix::event::PollFlags;
use serde::Serialize;

use crate::cli::filter::Filters;
use crate::cli::format::documents;
use crate::events::{Event, Events, directory};
use crate::log::point_in_time;
use crate::watch::Watch;

/// The options of `events`.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// Only events that fit: container=NAME, event=ACTION, image=NAME,
    /// label=NAME[=VALUE], network=NAME, type=KIND, volume=NAME. Repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Format the output by a Go template, or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show all events since this time, or so long ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Stream events until this time, or so long ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// The names of filters. Those of objects that have no events fit none.
const FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Whether an event is wanted.
fn wanted(filters: &Filters, event: &Event) -> bool {
    FILTERS.iter().all(|name| match *name {
        "label" => filters.labels(&event.actor.attributes),
        _ => filters.any(name, |value| fits(event, name, value)),
    })
}

fn fits(event: &Event, name: &str, value: &str) -> bool {
    let attributes = &event.actor.attributes;
    let text = |name: &str| attributes.get(name).map_or("", String::as_str);
    match name {
        // `exec_create: sh -c …`
        "event" => {
            let action = event.action.split(':').next().unwrap_or_default();
            event.action == value || action == value
        }
        "container" => {
            event.kind == "container"
                && (event.id.starts_with(value) || text("name").starts_with(value))
        }
        // That of a container, or one that something happens to.
        "image" => match &*event.kind {
            "container" => is_image(text("image"), value),
            "image" => {
                let id = event.actor.id.trim_start_matches("sha256:");
                is_image(&event.actor.id, value)
                    || is_image(text("name"), value)
                    || value.len() >= 4 && id.starts_with(value.trim_start_matches("sha256:"))
            }
            _ => false,
        },
        "network" => event.kind == "network" && is_named(event, text("name"), value),
        "volume" => event.kind == "volume" && event.actor.id.starts_with(value),
        "type" => event.kind == value,
        "scope" => event.scope == value,
        _ => false,
    }
}

/// Whether an image is meant by a name, with or without its tag.
fn is_image(image: &str, wanted: &str) -> bool {
    let tagless = image.rsplit_once(':').map(|(name, _)| name);
    image == wanted || tagless == Some(wanted)
}

/// Whether an object is meant by the beginning of its id or of its name.
fn is_named(event: &Event, name: &str, wanted: &str) -> bool {
    event.actor.id.starts_with(wanted) || name.starts_with(wanted)
}

/// An event with the names that templates have for its parts.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Named<'a> {
    status: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
    from: &'a str,
    #[serde(rename = "Type")]
    kind: &'a str,
    action: &'a str,
    actor: &'a crate::events::Actor,
    scope: &'a str,
    time: i64,
    time_nano: i64,
}

/// The line of an event.
fn line(event: &Event, format: Option<&str>) -> Result<String> {
    match format {
        Some("json" | "{{json .}}") => {
            let json = serde_json::to_string(event).context("write JSON")?;
            Ok(format!("{json}\n"))
        }
        Some(template) if !template.is_empty() => documents(
            Some(template),
            &[Named {
                status: &event.status,
                id: &event.id,
                from: &event.from,
                kind: &event.kind,
                action: &event.action,
                actor: &event.actor,
                scope: &event.scope,
                time: event.time,
                time_nano: event.time_nano,
            }],
        ),
        _ => {
            let attributes: Vec<String> = event
                .actor
                .attributes
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let line = format!(
                "{} {} {} {} ({})",
                humantime::format_rfc3339_nanos(event.at()),
                event.kind,
                event.action,
                event.actor.id,
                attributes.join(", ")
            );
            Ok(format!("{}\n", kit::say::printable(&line)))
        }
    }
}

/// Prints what has happened and what happens.
// ANCHOR: events
pub(super) fn run(places: &Places, args: &EventsArgs) -> Result<Exit> {
    let point = |text: &Option<String>, option: &'static str| {
        let text = text.as_ref();
        text.map(|text| point_in_time(text).context(option))
            .transpose()
    };
    let (since, until) = (
        point(&args.since, "--since")?,
        point(&args.until, "--until")?,
    );
    let filters = Filters::new(&args.filter, &FILTERS)?;
    let directory = directory(&places.state);
    make(&directory, 0o700)?;
    // Before the first look: what happens after it wakes this process.
    let changes = Watch::on(&[&directory])?;
    let mut events = Events::oldest(&directory);
    if since.is_none() && until.is_none() {
        events.skip()?;
    }
    loop {
        // Before the look: what was written until then is found by it.
        let is_over = until.is_some_and(|until| SystemTime::now() > until);
        while let Some(event) = events.next()? {
            let at = event.at();
            let in_time =
                since.is_none_or(|since| at >= since) && until.is_none_or(|until| at <= until);
            if in_time
                && wanted(&filters, &event)
                && !print(&line(&event, args.format.as_deref())?)?
            {
                return Ok(Exit::Code(0));
            }
        }
        if is_over || !wait(&changes, until)? {
            return Ok(Exit::Code(0));
        }
    }
}
// ANCHOR_END: events

/// Prints a line. Returns `false` if nobody reads.
fn print(line: &str) -> Result<bool> {
    let mut out = stdout().lock();
    match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("write to standard output"),
    }
}

/// Waits until something is written, or the time has come. Returns `false` if
/// nobody reads the output any more.
fn wait(changes: &Watch, until: Option<SystemTime>) -> Result<bool> {
    // Only for its end.
    let said = changes.wait(stdout(), PollFlags::empty(), until)?;
    Ok(!said.contains(PollFlags::ERR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Actor;

    #[test]
    fn filters_are_dockers() {
        let attributes = [("image", "box:1"), ("name", "web"), ("tier", "front")];
        let event = Event {
            status: "exec_create: sh".into(),
            id: "abcdef".into(),
            from: "box:1".into(),
            kind: "container".into(),
            action: "exec_create: sh".into(),
            actor: Actor {
                id: "abcdef".into(),
                attributes: attributes
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            },
            scope: "local".into(),
            time: 0,
            time_nano: 0,
        };
        for (filters, fits) in [
            (&["event=exec_create"][..], true),
            (&["event=start"], false),
            (&["event=start", "event=exec_create"], true),
            (&["container=abc", "event=exec_create"], true),
            (&["container=web"], true),
            (&["container=x"], false),
            (&["image=box"], true),
            (&["image=box:1"], true),
            (&["image=bo"], false),
            (&["label=tier"], true),
            (&["label=tier=front", "label=other"], false),
            (&["type=network"], false),
        ] {
            let filters: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
            let parsed = Filters::new(&filters, &FILTERS).unwrap();
            assert_eq!(wanted(&parsed, &event), fits, "{filters:?}");
        }
        assert!(Filters::new(&["x=y".into()], &FILTERS).is_err());
        assert!(Filters::new(&["event".into()], &FILTERS).is_err());
    }
}
