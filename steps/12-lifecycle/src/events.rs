//! What has happened to containers, images, networks and volumes, in the form of Docker's event messages: a
//! line of JSON each, in a file that everybody appends to.
//!
//! ```text
//! STATE/events/now       the newest lines
//! STATE/events/before    the file before; older ones are gone
//! ```
//!
//! Whoever does something writes its line, under a lock, so the order of the file
//! is the order of the events. A line that cannot be written is lost: no
//! container stops because a disk is full.
//!
//! The end of a container is written by its launcher, or, if that was killed, by
//! whoever finds its record. The latter looks for the line first: the launcher
//! may have been killed after it had written it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use engine::cli::places::Places;
use engine::container::observer::{self, Happening, Telling};
use engine::container::{Record, Records};
use engine::volume::options::MountSource;
use kit::lock::{is_at, try_within};
use kit::own::make;
use kit::{say, warn};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::network::attached;
use crate::network::store::{Network, Networks};

/// After so many bytes another file is begun, of which two are kept.
const LARGEST: u64 = 1 << 20;

/// How long to wait for those who write at the same time. A process that was
/// stopped (SIGSTOP) while it held the lock must not stop all others.
const PATIENCE: Duration = Duration::from_secs(1);

/// An event, as the API of Docker sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The action; only of containers and images.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The id of the container or image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The image of a container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// The kind of object.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What happened.
    #[serde(rename = "Action")]
    pub action: String,
    /// To whom.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`.
    pub scope: String,
    /// When, in seconds since 1970.
    pub time: i64,
    /// When, in nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// To whom something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name, image, labels, and what the event is about.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// An event of a container, which has happened now.
    pub fn of(record: &Record, action: &str, more: &[(&str, &str)]) -> Event {
        let spec = &record.spec;
        let mut attributes: BTreeMap<String, String> = spec.labels.clone();
        let own = [("image", &*spec.image), ("name", &*spec.name)];
        for (name, value) in own.iter().chain(more) {
            attributes.insert((*name).to_owned(), (*value).to_owned());
        }
        let mut event = Event {
            status: action.to_owned(),
            id: spec.id.clone(),
            from: spec.image.clone(),
            kind: "container".to_owned(),
            action: action.to_owned(),
            actor: Actor {
                id: spec.id.clone(),
                attributes,
            },
            scope: "local".to_owned(),
            time: 0,
            time_nano: 0,
        };
        event.stamp();
        event
    }

    /// An event of an object that is no container.
    pub fn of_object(kind: &str, id: &str, action: &str, more: &[(&str, &str)]) -> Event {
        let is_image = kind == "image";
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut event = Event {
            status: if is_image { action } else { "" }.to_owned(),
            id: if is_image { id } else { "" }.to_owned(),
            from: String::new(),
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor {
                id: id.to_owned(),
                attributes: more.iter().map(pair).collect(),
            },
            scope: "local".to_owned(),
            time: 0,
            time_nano: 0,
        };
        event.stamp();
        event
    }

    fn stamp(&mut self) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.time = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.time_nano = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    }

    /// When it happened.
    pub fn at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(u64::try_from(self.time_nano).unwrap_or_default())
    }
}

/// Where this process writes down what happens to objects.
static STATE: OnceLock<PathBuf> = OnceLock::new();

/// Has the engine write down what happens in this process.
pub fn observe(places: &Places) {
    STATE.get_or_init(|| places.state.clone());
    observer::observe_objects(|kind, id, action, more| {
        if let Some(state) = STATE.get() {
            let event = Event::of_object(kind, id, action, more);
            said(state, vec![event], Telling::Certainly);
        }
    });
    observer::observe(|places, record, happening, telling| {
        let status;
        let (action, more) = match happening {
            Happening::Created => ("create", None),
            Happening::Attached => ("attach", None),
            Happening::Started => ("start", None),
            Happening::OutOfMemory => ("oom", None),
            Happening::Died(code) => {
                status = code.to_string();
                ("die", Some(("exitCode", &*status)))
            }
            Happening::Destroyed => ("destroy", None),
        };
        let event = Event::of(record, action, more.as_slice());
        let mut events = vec![event];
        match happening {
            Happening::Started => {
                events.splice(0..0, joined(places, record));
            }
            Happening::Died(_) => events.extend(left(places, record)),
            _ => {}
        }
        said(&places.state, events, telling);
    });
}

/// What a container takes before its command runs: networks, then volumes.
fn joined(places: &Places, record: &Record) -> Vec<Event> {
    let mut events = of_networks(places, record, "connect");
    for mounted in &record.spec.files.mounted {
        if let MountSource::Volume { name, .. } = &mounted.source {
            let more = [
                ("container", &*record.spec.id),
                ("destination", &mounted.target.to_string_lossy()),
                ("driver", "local"),
                ("propagation", ""),
                (
                    "read/write",
                    if mounted.read_only { "false" } else { "true" },
                ),
            ];
            events.push(Event::of_object("volume", name, "mount", &more));
        }
    }
    events
}

/// What it gives back at its end. In one piece with the end: whoever has told the
/// one has told the other.
fn left(places: &Places, record: &Record) -> Vec<Event> {
    let mut events = of_networks(places, record, "disconnect");
    for volume in record.spec.volumes() {
        let more = [("container", &*record.spec.id), ("driver", "local")];
        events.push(Event::of_object("volume", volume.name, "unmount", &more));
    }
    events
}

/// The event of a container's coming to, or leaving, its networks.
fn of_networks(places: &Places, record: &Record, action: &str) -> Vec<Event> {
    let all = match Networks::new(&places.root).all() {
        Ok(all) => all,
        Err(error) => {
            say!("events of networks are not written: {error:#}");
            return Vec::new();
        }
    };
    let names = attached::names(record);
    let on = names
        .iter()
        .filter_map(|name| all.iter().find(|one| one.name == *name));
    on.map(|network| of_network(network, action, Some(&record.spec.id)))
        .collect()
}

/// An event of a network; and of a container that comes to it, or leaves it.
fn of_network(network: &Network, action: &str, container: Option<&str>) -> Event {
    let mut more = vec![("name", &*network.name), ("type", &*network.driver)];
    more.extend(container.map(|id| ("container", id)));
    Event::of_object("network", &network.id, action, &more)
}

/// Tells of a container by the name that it has now.
pub fn tell_of_container(places: &Places, record: &Record, action: &str, more: &[(&str, &str)]) {
    let now = Records::new(places).read(&record.spec.id);
    let now = now.ok().flatten();
    tell(places, now.as_ref().unwrap_or(record), action, more);
}

/// Writes an event of a network.
pub fn tell_of_network(places: &Places, network: &Network, action: &str, container: Option<&str>) {
    let event = of_network(network, action, container);
    said(&places.state, vec![event], Telling::Certainly);
}

/// Writes an event of a container.
pub fn tell(places: &Places, record: &Record, action: &str, more: &[(&str, &str)]) {
    let event = Event::of(record, action, more);
    said(&places.state, vec![event], Telling::Certainly);
}

/// Writes an event that is about no single container.
pub fn tell_all(places: &Places, action: &str, more: &[(&str, &str)]) {
    let attributes = more.iter();
    let event = Event {
        status: action.to_owned(),
        id: String::new(),
        from: String::new(),
        kind: "container".to_owned(),
        action: action.to_owned(),
        actor: Actor {
            id: String::new(),
            attributes: attributes
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        },
        scope: "local".to_owned(),
        time: 0,
        time_nano: 0,
    };
    said(&places.state, vec![event], Telling::Certainly);
}

fn said(state: &Path, events: Vec<Event>, telling: Telling) {
    if let Err(error) = append(state, events, telling) {
        say!("an event is not written: {error:#}");
    }
}

/// The directory of the events.
pub fn directory(state: &Path) -> PathBuf {
    state.join("events")
}

fn newest(directory: &Path) -> PathBuf {
    directory.join("now")
}

fn older(directory: &Path) -> PathBuf {
    directory.join("before")
}

/// Opens the file to write to, alone.
fn open_alone(path: &Path) -> Result<File> {
    loop {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(path)
            .with_context(|| format!("open({path:?}, O_APPEND)"))?;
        if !try_within(&file, path, PATIENCE)? {
            say!("{path:?} is locked for too long: written without the lock");
            return Ok(file);
        }
        // Somebody may have begun another file meanwhile.
        if is_at(&file, path)? {
            return Ok(file);
        }
    }
}

// ANCHOR: append
fn append(state: &Path, mut events: Vec<Event>, telling: Telling) -> Result<()> {
    let directory = directory(state);
    make(&directory, 0o700)?;
    let path = newest(&directory);
    let mut file = open_alone(&path)?;
    // The first decides for those that belong to it.
    let first = events.first().context("no event")?;
    if telling == Telling::UnlessTold && is_told(&directory, first)? {
        return Ok(());
    }
    let length = file.metadata().context("fstat(the events)")?.len();
    let mut line = Vec::new();
    // Somebody was killed, or the disk was full, in the middle of a line.
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)
            .context("read the events")?;
    }
    if last != [b'\n'] {
        line.push(b'\n');
    }
    for event in &mut events {
        // Under the lock: the order of the times is that of the lines.
        event.stamp();
        serde_json::to_writer(&mut line, event).context("write JSON")?;
        line.push(b'\n');
    }
    if let Err(error) = file.write_all(&line) {
        // No half of a line.
        file.set_len(length).context("ftruncate(the events)")?;
        return Err(error).with_context(|| format!("write {path:?}"));
    }
    if length + line.len() as u64 >= LARGEST {
        let before = older(&directory);
        fs::rename(&path, &before).with_context(|| format!("rename({path:?}, {before:?})"))?;
    }
    Ok(())
}
// ANCHOR_END: append

/// Whether the end that `event` tells of has been told: nothing has begun since.
fn is_told(directory: &Path, event: &Event) -> Result<bool> {
    for path in [newest(directory), older(directory)] {
        let Some(mut file) = open(&path)? else {
            continue;
        };
        let mut bytes = Vec::new();
        while read_more(&mut file, &mut bytes)? {}
        let text = String::from_utf8_lossy(&bytes);
        let mut before = &*text;
        // From the end: of a container that was just started, it is near.
        while let Some(found) = before.rfind(&event.actor.id) {
            let begin = before[..found].rfind('\n').map_or(0, |newline| newline + 1);
            let line = text[begin..].lines().next().unwrap_or_default();
            before = &before[..begin];
            let Ok(line) = serde_json::from_str::<Event>(line) else {
                continue;
            };
            if line.kind == "container" && line.actor.id == event.actor.id {
                match &*line.action {
                    "destroy" => return Ok(true),
                    "die" => return Ok(event.action == "die"),
                    "create" | "start" => return Ok(false),
                    _ => {}
                }
            }
        }
    }
    Ok(false)
}

/// Reads events, from the oldest that is kept.
#[derive(Debug)]
pub struct Events {
    directory: PathBuf,
    open: Option<File>,
    /// What was read and is not a whole line yet.
    begun: Vec<u8>,
}

impl Events {
    /// Begins with the oldest event.
    pub fn oldest(directory: &Path) -> Self {
        Events {
            directory: directory.to_owned(),
            open: None,
            begun: Vec::new(),
        }
    }

    /// The next event; `None` if there is none yet. A line that is no event is
    /// skipped with a warning.
    #[allow(clippy::should_implement_trait)] // there may be more later
    pub fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(event) => return Ok(Some(event)),
                    Err(error) => warn!("skipped a line that is no event: {error}"),
                }
                continue;
            }
            let Some(file) = &mut self.open else {
                let first = match open(&older(&self.directory))? {
                    Some(older) => Some(older),
                    None => open(&newest(&self.directory))?,
                };
                match first {
                    Some(first) => self.open = Some(first),
                    None => return Ok(None),
                }
                continue;
            };
            if read_more(file, &mut self.begun)? {
                continue;
            }
            if is_at(file, &newest(&self.directory))? {
                return Ok(None);
            }
            // Nobody writes to it any more, but somebody may have before it got
            // its other name.
            if read_more(file, &mut self.begun)? {
                continue;
            }
            let next = match is_at(file, &older(&self.directory))? {
                true => open(&newest(&self.directory))?,
                false => {
                    let older = open(&older(&self.directory))?;
                    match older {
                        Some(older) => Some(older),
                        None => open(&newest(&self.directory))?,
                    }
                }
            };
            match next {
                Some(next) => self.open = Some(next),
                // The next file does not exist yet.
                None => return Ok(None),
            }
            self.begun.clear();
        }
    }

    /// Skips what there is.
    pub fn skip(&mut self) -> Result<()> {
        self.begun.clear();
        self.open = open(&newest(&self.directory))?;
        if let Some(file) = &mut self.open {
            file.seek(SeekFrom::End(0)).context("lseek(the events)")?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    kit::own::open_own(path)
}

/// Reads what comes next. Returns whether there was anything.
fn read_more(file: &mut File, into: &mut Vec<u8>) -> Result<bool> {
    let mut bytes = [0; 64 << 10];
    loop {
        match file.read(&mut bytes) {
            Ok(length) => {
                into.extend_from_slice(&bytes[..length]);
                return Ok(length > 0);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("read the events"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, action: &str) -> Event {
        Event {
            status: action.into(),
            id: id.into(),
            from: "box".into(),
            kind: "container".into(),
            action: action.into(),
            actor: Actor {
                id: id.into(),
                attributes: BTreeMap::new(),
            },
            scope: "local".into(),
            time: 0,
            time_nano: 0,
        }
    }

    fn all(state: &Path) -> Vec<String> {
        let mut events = Events::oldest(&directory(state));
        let mut actions = Vec::new();
        while let Some(event) = events.next().unwrap() {
            actions.push(event.action);
        }
        actions
    }

    #[test]
    fn an_end_is_told_once() {
        let state = tempfile::tempdir().unwrap();
        let state = state.path();
        let put = |action: &str, telling| append(state, vec![event("a", action)], telling).unwrap();
        put("start", Telling::Certainly);
        put("die", Telling::Certainly);
        append(state, vec![event("ab", "start")], Telling::Certainly).unwrap();
        put("die", Telling::UnlessTold);
        put("destroy", Telling::UnlessTold);
        put("destroy", Telling::UnlessTold);
        put("die", Telling::UnlessTold);
        assert_eq!(all(state), ["start", "die", "start", "destroy"]);
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let state = tempfile::tempdir().unwrap();
        let mut reader = Events::oldest(&directory(state.path()));
        let (mut count, mut read) = (0, 0);
        while !older(&directory(state.path())).exists() {
            append(
                state.path(),
                vec![event("a", &count.to_string())],
                Telling::Certainly,
            )
            .unwrap();
            count += 1;
            // One that follows misses nothing, whatever name the file has.
            if count % 1000 == 0 {
                while let Some(event) = reader.next().unwrap() {
                    assert_eq!(event.action, read.to_string());
                    read += 1;
                }
            }
        }
        append(state.path(), vec![event("a", "last")], Telling::Certainly).unwrap();
        while let Some(event) = reader.next().unwrap() {
            if event.action != "last" {
                assert_eq!(event.action, read.to_string());
            }
            read += 1;
        }
        assert_eq!(read, count + 1);
        assert!(fs::metadata(older(&directory(state.path()))).unwrap().len() < LARGEST + 1024);
    }

    #[test]
    fn half_a_line_spoils_no_other() {
        let state = tempfile::tempdir().unwrap();
        append(state.path(), vec![event("a", "one")], Telling::Certainly).unwrap();
        let path = newest(&directory(state.path()));
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"status\":\"tw");
        fs::write(&path, text).unwrap();
        append(state.path(), vec![event("a", "three")], Telling::Certainly).unwrap();
        assert_eq!(all(state.path()), ["one", "three"]);
    }
}
