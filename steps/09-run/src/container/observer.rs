//! Who is told of what happens to containers and other objects. The engine itself keeps no history;
//! a program that does says so once, when it begins.

use std::sync::OnceLock;

use crate::cli::places::Places;
use crate::container::{Record, Records};

/// What happens to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It has a name and a record.
    Created,
    /// Somebody is connected to its streams.
    Attached,
    /// Its command runs.
    Started,
    /// The kernel has killed one of its processes for want of memory.
    OutOfMemory,
    /// Its command has ended, with this exit status.
    Died(u8),
    /// It has been removed.
    Destroyed,
}

/// How sure it is that nobody else has told the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// It has just happened, here.
    Certainly,
    /// It is found out afterwards, perhaps by several processes: the launcher
    /// that should have told was killed, before or after it did.
    UnlessTold,
}

/// Called for everything that happens. It reports no error: a history that
/// cannot be written stops no container.
pub type Observer = fn(&Places, &Record, Happening, Telling);

/// Called for what happens to an object that is no container: its kind, its id,
/// what happens, and what else there is to say.
pub type ObjectObserver = fn(&str, &str, &str, &[(&str, &str)]);

static OBSERVER: OnceLock<Observer> = OnceLock::new();
static OBJECTS: OnceLock<ObjectObserver> = OnceLock::new();

/// Has `observer` told of everything that this process does from now on with
/// objects that are no containers. The first call counts.
pub fn observe_objects(observer: ObjectObserver) {
    OBJECTS.get_or_init(|| observer);
}

/// Tells of an image, a volume or a network.
pub fn object(kind: &str, id: &str, action: &str, more: &[(&str, &str)]) {
    if let Some(observer) = OBJECTS.get() {
        observer(kind, id, action, more);
    }
}

/// Has `observer` told of everything that this process does from now on. The
/// first call counts.
pub fn observe(observer: Observer) {
    OBSERVER.get_or_init(|| observer);
}

impl Records {
    /// Tells of a container, with the name that it has now.
    pub(crate) fn tell(&self, record: &Record, happening: Happening, telling: Telling) {
        if OBSERVER.get().is_some() {
            self.tell_of(&self.latest(record), happening, telling);
        }
    }

    /// Tells of a container that may be gone.
    pub(crate) fn tell_of(&self, record: &Record, happening: Happening, telling: Telling) {
        if let Some(observer) = OBSERVER.get() {
            observer(self.places(), record, happening, telling);
        }
    }

    /// The record as it is on the disk: it may have been renamed. `record` itself
    /// if that cannot be read.
    pub(crate) fn latest(&self, record: &Record) -> Record {
        match self.read(&record.spec.id) {
            Ok(Some(latest)) => latest,
            _ => record.clone(),
        }
    }
}
