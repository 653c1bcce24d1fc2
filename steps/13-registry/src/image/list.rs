//! The images that are here: `images` and `image prune`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use engine::image::Images;
use engine::image::name::{Name, familiar};
use engine::image::record::ImageRecord;
use lifecycle::log::point_in_time;

use crate::blobs::BlobStore;

/// An image under one of its names.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The repository, or `<none>`.
    pub repository: String,
    /// The tag, or `<none>`.
    pub tag: String,
    /// The digest by which that repository knows it, or `<none>`.
    pub digest: String,
    /// The image.
    pub record: ImageRecord,
}

/// Which images are meant: `--filter`.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Whether an image has no name.
    pub dangling: Option<bool>,
    references: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    /// The labels that an image must not have.
    without: Vec<(String, Option<String>)>,
    until: Option<SystemTime>,
    before: Option<SystemTime>,
    since: Option<SystemTime>,
}

impl Filters {
    /// Reads `NAME=VALUE` each.
    pub fn parse(images: &Images, texts: &[String]) -> Result<Self> {
        let mut filters = Filters::default();
        let created = |reference: &str| -> Result<SystemTime> {
            let record = images.find(reference)?;
            let record = record.with_context(|| format!("No such image: {reference}"))?;
            Ok(created(&record).unwrap_or(SystemTime::UNIX_EPOCH))
        };
        for text in texts {
            let (name, value) = text
                .split_once('=')
                .with_context(|| format!("bad format of filter {text:?} (expected name=value)"))?;
            match name {
                "dangling" => match value {
                    "true" | "1" => filters.dangling = Some(true),
                    "false" | "0" => filters.dangling = Some(false),
                    _ => bail!("invalid filter 'dangling={value}'"),
                },
                "reference" => filters.references.push(value.to_owned()),
                "label" | "label!" => {
                    let label = match value.split_once('=') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (value.to_owned(), None),
                    };
                    match name {
                        "label" => filters.labels.push(label),
                        _ => filters.without.push(label),
                    }
                }
                "before" => filters.before = Some(created(value)?),
                "since" => filters.since = Some(created(value)?),
                "until" => {
                    let time = point_in_time(value).context("filter until")?;
                    filters.until = Some(filters.until.map_or(time, |other| time.min(other)));
                }
                _ => bail!("invalid filter '{name}'"),
            }
        }
        Ok(filters)
    }

    fn has(&self, listed: &Listed) -> bool {
        let is_none = listed.tag == "<none>";
        let name = format!("{}:{}", listed.repository, listed.tag);
        let labels = &listed.record.config.labels;
        let created = created(&listed.record).unwrap_or(SystemTime::UNIX_EPOCH);
        let has = |(name, value): &(String, Option<String>)| {
            let there = labels.get(name);
            there.is_some_and(|is| value.as_ref().is_none_or(|value| value == is))
        };
        self.dangling.is_none_or(|dangling| dangling == is_none)
            && (self.references.is_empty()
                || self
                    .references
                    .iter()
                    .any(|pattern| matches(pattern, &name) || matches(pattern, &listed.repository)))
            && self.labels.iter().all(has)
            && !self.without.iter().any(has)
            && self.until.is_none_or(|until| created < until)
            && self.before.is_none_or(|before| created < before)
            && self.since.is_none_or(|since| created > since)
    }
}

/// The images that are meant, the newest first.
pub fn listed(images: &Images, blobs: &BlobStore, filters: &Filters) -> Result<Vec<Listed>> {
    let names = images.store.names()?;
    let mut by_id: BTreeMap<String, Vec<&Name>> = BTreeMap::new();
    for (name, id) in &names {
        by_id.entry(id.hex().to_owned()).or_default().push(name);
    }
    let mut all = Vec::new();
    for record in images.store.readable_records()? {
        let origin = blobs.origin(&record.id)?;
        let digest = |repository: &str| {
            let mut places = origin
                .repo_digests
                .iter()
                .filter_map(|place| place.split_once('@'));
            let found = places.find(|(name, _)| familiar(name) == repository);
            found.map_or("<none>", |(_, digest)| digest).to_owned()
        };
        let names = by_id.get(record.id.hex()).cloned().unwrap_or_default();
        for name in &names {
            let (repository, tag) = name
                .as_str()
                .rsplit_once(':')
                .unwrap_or((name.as_str(), ""));
            all.push(Listed {
                digest: digest(repository),
                repository: repository.to_owned(),
                tag: tag.to_owned(),
                record: record.clone(),
            });
        }
        if names.is_empty() {
            // Pulled by its digest, or renamed since.
            let place = origin
                .repo_digests
                .first()
                .and_then(|place| place.split_once('@'));
            let (repository, digest) = place.unwrap_or(("<none>", "<none>"));
            all.push(Listed {
                repository: familiar(repository).to_owned(),
                tag: "<none>".into(),
                digest: digest.to_owned(),
                record,
            });
        }
    }
    all.retain(|listed| filters.has(listed));
    all.sort_by(|one, other| {
        let key = |listed: &Listed| {
            let name = format!("{}:{}", listed.repository, listed.tag);
            (std::cmp::Reverse(created(&listed.record)), name)
        };
        key(one).cmp(&key(other))
    });
    Ok(all)
}

/// When an image says that it was created.
pub fn created(record: &ImageRecord) -> Option<SystemTime> {
    humantime::parse_rfc3339(record.created.as_deref()?).ok()
}

/// Whether a name matches a pattern with `*` and `?`, of which neither matches a
/// `/`; without a tag, any tag.
pub fn matches(pattern: &str, name: &str) -> bool {
    fn rest(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some(b'*'), _) => {
                rest(&pattern[1..], name)
                    || name.first().is_some_and(|c| *c != b'/') && rest(pattern, &name[1..])
            }
            (Some(b'?'), Some(c)) if *c != b'/' => rest(&pattern[1..], &name[1..]),
            (Some(p), Some(c)) if p == c => rest(&pattern[1..], &name[1..]),
            _ => false,
        }
    }
    // A pattern of stars takes long to fail: nobody writes more than a few.
    pattern.matches('*').count() <= 8
        && (rest(pattern.as_bytes(), name.as_bytes())
            || name
                .rsplit_once('/')
                .is_some_and(|(_, end)| rest(pattern.as_bytes(), end.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stays_in_its_part() {
        assert!(matches("localhost:5000/*:1", "localhost:5000/app:1"));
        assert!(matches("app*", "localhost:5000/app:1"));
        assert!(!matches("local*", "localhost:5000/app:1"));
        assert!(matches("h/*/?pp", "h/a/app"));
        assert!(!matches("h/*", "h/a/app"));
    }
}
