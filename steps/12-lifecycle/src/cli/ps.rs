//! `ps`: containers in Docker's columns and words.

use std::collections::BTreeMap;

use anyhow::Result;
use engine::cli::places::Places;
use engine::container::{Record, Records, Status};
use engine::volume::options::MountSource;

use crate::cli::Pauses;
use crate::cli::filter::Containers;
use crate::cli::format::{Listing, Row};
use crate::cli::words::{bytes, local_time, shortened, since};
use crate::health::State;
use crate::inspect::{created, sizes_of, status_among};
use crate::network::attached;
use crate::settings::health;

/// What to list, and how.
#[derive(Debug)]
pub struct Listed {
    /// Also those that do not run.
    pub all: bool,
    /// Only those that fit.
    pub filters: Containers,
    /// `--format`.
    pub format: Option<String>,
    /// At most this many, in whatever state.
    pub last: Option<usize>,
    /// Whole ids, commands and names.
    pub no_trunc: bool,
    /// Only ids.
    pub quiet: bool,
    /// What their layers take.
    pub size: bool,
}

const HEADS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
];

/// Prints the containers, the youngest first. Removes what killed launchers have
/// left before that.
pub fn list(places: &Places, records: &Records, wanted: &Listed) -> Result<()> {
    let pauses = Pauses::new();
    // The state is looked up once for each: it is read from several files.
    let mut found: Vec<(Record, &'static str)> = records
        .sweep()?
        .into_iter()
        .map(|record| {
            let state = status_among(&record, &pauses);
            (record, state)
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| created(b).cmp(created(a)));
    let all = wanted.all || wanted.last.is_some() || wanted.filters.names_states();
    let runs = |state: &str| matches!(state, "running" | "paused" | "restarting");
    found.retain(|(record, state)| (all || runs(state)) && wanted.filters.fit(record, state));
    if let Some(last) = wanted.last {
        found.truncate(last);
    }
    let usual = match wanted.size {
        false => {
            "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
        }
        true => {
            "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}"
        }
    };
    // Sizes are read from all files of a layer: only if somebody looks.
    let sizes = wanted.size
        || wanted
            .format
            .as_deref()
            .is_some_and(|text| text.contains(".Size"));
    let mut rows = Vec::new();
    for (record, state) in &found {
        if wanted.quiet {
            kit::outln!("{}", id(record, wanted.no_trunc))?;
            continue;
        }
        let size = match sizes {
            false => "0B".to_owned(),
            true => {
                let (own, all) = sizes_of(places, record)?;
                format!("{} (virtual {})", bytes(own), bytes(all))
            }
        };
        rows.push(row(record, state, wanted.no_trunc, size));
    }
    if !wanted.quiet {
        let listing = Listing {
            usual,
            heads: HEADS,
        };
        kit::out!("{}", listing.print(wanted.format.as_deref(), &rows)?)?;
    }
    Ok(())
}

fn id(record: &Record, no_trunc: bool) -> &str {
    match no_trunc {
        true => &record.spec.id,
        false => record.short_id(),
    }
}

/// A text in quotes, with marks for what a terminal would obey: Go's
/// `strconv.Quote`.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ if letter.is_control() => quoted.extend(letter.escape_default()),
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

fn row(record: &Record, status: &str, no_trunc: bool, size: String) -> Row {
    let spec = &record.spec;
    let cut = |text: &str, most| match no_trunc {
        true => text.to_owned(),
        false => shortened(text, most),
    };
    let mut words = spec.command.iter().map(|word| word.to_string_lossy());
    let mut command = words.next().unwrap_or_default().into_owned();
    for word in words {
        match word.contains(' ') {
            true => command.push_str(&format!(" '{word}'")),
            false => command.push_str(&format!(" {word}")),
        }
    }
    let labels: Vec<String> = spec
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mounts = spec
        .files
        .mounted
        .iter()
        .map(|mounted| match &mounted.source {
            MountSource::Host { path, .. } => cut(&path.display().to_string(), 15),
            MountSource::Volume { name, .. } => cut(name, 15),
        });
    let volumes = spec.volumes().count();
    let cells = BTreeMap::from([
        ("ID", id(record, no_trunc).to_owned()),
        ("Image", spec.image.clone()),
        ("Command", quoted(&cut(&command, 20))),
        ("CreatedAt", local_time(created(record))),
        ("RunningFor", format!("{} ago", since(created(record)))),
        ("Status", state(record, status)),
        ("State", status.to_owned()),
        ("Ports", published(record)),
        ("Names", spec.name.clone()),
        ("Size", size),
        ("Labels", labels.join(",")),
        ("Mounts", mounts.collect::<Vec<_>>().join(",")),
        ("LocalVolumes", volumes.to_string()),
        ("Networks", attached::names(record).join(",")),
    ]);
    Row {
        cells,
        labels: spec.labels.clone(),
    }
}

/// The state of a container in Docker's words.
fn state(record: &Record, status: &str) -> String {
    let code = record.exit_code;
    let ended = || since(record.finished_at.as_deref().unwrap_or_default());
    // A record that could not be written any more says that it runs.
    if status == "exited" && record.status != Status::Exited {
        return "Exited (137)".into();
    }
    match record.status {
        Status::Created => "Created".into(),
        Status::Restarting => format!("Restarting ({}) {} ago", code.unwrap_or_default(), ended()),
        Status::Running if status == "paused" => {
            format!("Up {} (Paused)", since(&record.started_at))
        }
        Status::Running => {
            let health = match health(record).map(|health| health.status) {
                None => "",
                Some(State::Starting) => " (health: starting)",
                Some(State::Healthy) => " (healthy)",
                Some(State::Unhealthy) => " (unhealthy)",
            };
            format!("Up {}{health}", since(&record.started_at))
        }
        Status::Exited => match code {
            Some(code) => format!("Exited ({code}) {} ago", ended()),
            // Its launcher was killed: Docker's daemon would say 255, or 137.
            None => format!("Exited (137) {} ago", ended()),
        },
    }
}

fn published(record: &Record) -> String {
    let ports = attached::published(record);
    let ports = ports.iter().map(|one| {
        format!(
            "{}:{}->{}/{}",
            one.ip, one.host_port, one.port, one.protocol
        )
    });
    ports.collect::<Vec<_>>().join(", ")
}
