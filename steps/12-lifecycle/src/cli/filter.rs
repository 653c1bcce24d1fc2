//! `--filter` of `ps`, with Docker's keys.
//!
//! Values of one key are alternatives, except labels, all of which a container
//! must have; all keys must fit.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use engine::cli::places::Places;
use engine::container::{Record, Records};
use engine::image::Images;
use engine::volume::options::MountSource;
use regex_lite::Regex;

use crate::inspect::created;
use crate::network::attached;
use crate::settings::health;

/// The states that a container can have in Docker.
const STATES: [&str; 7] = [
    "created",
    "restarting",
    "running",
    "removing",
    "paused",
    "exited",
    "dead",
];

/// The keys of `ps`.
pub const KEYS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// The filters of a listing: the values of each key.
#[derive(Clone, Debug, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads `KEY=VALUE` pairs.
    ///
    /// # Errors
    /// Names a pair that is none, or a key that is not in `keys`.
    pub fn new(given: &[String], keys: &[&str]) -> Result<Self> {
        let mut filters = Filters::default();
        for one in given {
            let (key, value) = one
                .split_once('=')
                .with_context(|| format!("bad format of filter {one:?} (expected name=value)"))?;
            let key = key.trim().to_lowercase();
            ensure!(keys.contains(&key.as_str()), "invalid filter '{key}'");
            let value = value.trim().to_owned();
            filters.0.entry(key).or_default().push(value);
        }
        Ok(filters)
    }

    /// The values of a key.
    pub fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a key is not given, or one of its values fits.
    pub fn any(&self, key: &str, mut fits: impl FnMut(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| fits(value))
    }

    /// Whether labels have all those that are asked for, as `NAME` or
    /// `NAME=VALUE`.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.values("label")
            .iter()
            .all(|wanted| match wanted.split_once('=') {
                Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
                None => labels.contains_key(wanted),
            })
    }
}

/// The filters of `ps`, checked.
#[derive(Debug)]
pub struct Containers {
    filters: Filters,
    names: Vec<Regex>,
    ids: Vec<Regex>,
    exited: Vec<i64>,
    /// Containers must have been made before one of these times.
    before: Vec<String>,
    since: Vec<String>,
    /// Names, ids and topmost layers of the images of `ancestor`.
    ancestors: Vec<String>,
}

impl Containers {
    /// Checks the filters, and looks up the containers and images in them.
    ///
    /// # Errors
    /// Names the value that is wrong.
    pub fn new(places: &Places, filters: Filters) -> Result<Self> {
        for state in filters.values("status") {
            ensure!(
                STATES.contains(&state.as_str()),
                "invalid filter 'status={state}'"
            );
        }
        for health in filters.values("health") {
            ensure!(
                ["none", "starting", "healthy", "unhealthy"].contains(&health.as_str()),
                "invalid filter 'health={health}'"
            );
        }
        for task in filters.values("is-task") {
            ensure!(
                ["true", "false", "1", "0"].contains(&task.as_str()),
                "invalid filter 'is-task={task}'"
            );
        }
        for key in ["expose", "publish"] {
            for value in filters.values(key) {
                ports(value).with_context(|| format!("invalid filter '{key}={value}'"))?;
            }
        }
        let expressions = |key| {
            let values = filters.values(key).iter();
            values
                .map(|value| {
                    Regex::new(value).with_context(|| format!("invalid filter '{key}={value}'"))
                })
                .collect::<Result<Vec<_>>>()
        };
        let records = Records::new(places);
        let times = |key| {
            let values = filters.values(key).iter();
            values
                .map(|value| Ok(created(&records.find(value)?).to_owned()))
                .collect::<Result<Vec<_>>>()
        };
        let exited = filters.values("exited").iter().map(|code| {
            code.parse()
                .with_context(|| format!("invalid filter 'exited={code}': give an exit status"))
        });
        let mut ancestors = Vec::new();
        for value in filters.values("ancestor") {
            ancestors.push(value.clone());
            if let Some(image) = Images::open(&places.root)?.find(value)? {
                ancestors.push(image.id.to_string());
            }
        }
        Ok(Containers {
            names: expressions("name")?,
            ids: expressions("id")?,
            exited: exited.collect::<Result<_>>()?,
            before: times("before")?,
            since: times("since")?,
            ancestors,
            filters,
        })
    }

    /// Whether only running containers are wanted, unless `--all` says more:
    /// Docker shows those that a filter by state asks for.
    pub fn names_states(&self) -> bool {
        !self.filters.values("status").is_empty() || !self.filters.values("exited").is_empty()
    }

    /// Whether a container in that state fits.
    pub fn fit(&self, record: &Record, state: &str) -> bool {
        let spec = &record.spec;
        let filters = &self.filters;
        let some = |list: &[Regex], fits: &dyn Fn(&Regex) -> bool| {
            list.is_empty() || list.iter().any(fits)
        };
        let time = created(record);
        let exit = record.exit_code.map(i64::from);
        let health = health(record).map_or("none", |health| health.status.word());
        let slashed = format!("/{}", spec.name);
        let networks = attached::names(record);
        filters.any("status", |wanted| wanted == state)
            && filters.any("health", |wanted| wanted == health)
            && filters.any("is-task", |wanted| matches!(wanted, "false" | "0"))
            && filters.any("isolation", |wanted| wanted == "default")
            && filters.labels(&spec.labels)
            && some(&self.names, &|name| {
                name.is_match(&slashed) || name.is_match(&spec.name)
            })
            && some(&self.ids, &|id| id.is_match(&spec.id))
            && (self.exited.is_empty()
                || state == "exited" && exit.is_some_and(|exit| self.exited.contains(&exit)))
            && self.before.iter().all(|other| time < other.as_str())
            && self.since.iter().all(|other| time > other.as_str())
            && (self.ancestors.is_empty()
                || self.ancestors.iter().any(|image| is_of(record, image)))
            && filters.any("network", |wanted| {
                networks.iter().any(|name| name == wanted)
            })
            && filters.any("volume", |wanted| has_volume(record, wanted))
            && filters.any("publish", |wanted| publishes(record, wanted))
            && filters.any("expose", |wanted| publishes(record, wanted))
    }
}

/// Whether a container was made of an image, by its name, with or without its
/// tag, or the beginning of its id.
fn is_of(record: &Record, image: &str) -> bool {
    let spec = &record.spec;
    let tagless = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_owned();
    let id = spec.image_id.trim_start_matches("sha256:");
    let wanted = image.trim_start_matches("sha256:");
    tagless(&spec.image) == tagless(image) || wanted.len() >= 4 && id.starts_with(wanted)
}

fn has_volume(record: &Record, wanted: &str) -> bool {
    record.spec.files.mounted.iter().any(|mounted| {
        let source = match &mounted.source {
            MountSource::Host { path, .. } => path.display().to_string(),
            MountSource::Volume { name, .. } => name.clone(),
        };
        source == wanted || mounted.target.as_os_str() == wanted
    })
}

/// The ports of a filter: `80`, `80/udp`, `8000-8080/tcp`.
fn ports(text: &str) -> Result<(u16, u16, String)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (first.parse()?, last.parse()?);
    if first > last {
        bail!("the first port is above the last");
    }
    Ok((first, last, protocol.to_lowercase()))
}

fn publishes(record: &Record, wanted: &str) -> bool {
    let Ok((first, last, protocol)) = ports(wanted) else {
        return false;
    };
    attached::published(record).iter().any(|one| {
        let fits = |port: u16| (first..=last).contains(&port);
        one.protocol.to_string() == protocol && (fits(one.host_port) || fits(one.port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_pairs_with_known_keys() {
        let read = |text: &str| Filters::new(&[text.to_owned()], &KEYS);
        assert_eq!(
            read("Status = exited").unwrap().values("status"),
            ["exited"]
        );
        assert_eq!(read("label=a=b").unwrap().values("label"), ["a=b"]);
        for bad in ["status", "foo=bar", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_labels_must_be_there() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let fits = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| format!("label={text}")).collect();
            Filters::new(&texts, &KEYS).unwrap().labels(&labels)
        };
        assert!(fits(&[]) && fits(&["a"]) && fits(&["a=b"]) && fits(&["a", "a=b"]));
        assert!(!fits(&["a=c"]) && !fits(&["x"]) && !fits(&["a", "x"]));
    }

    #[test]
    fn ports_of_filters() {
        assert_eq!(ports("80").unwrap(), (80, 80, "tcp".into()));
        assert_eq!(ports("80-90/UDP").unwrap(), (80, 90, "udp".into()));
        for bad in ["", "x", "90-80", "70000", "80-"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
