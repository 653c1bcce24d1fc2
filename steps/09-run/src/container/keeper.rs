//! The isolation that keeps a container's record.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Error, Result, bail};
use cgroups::OomKills;
use kit::{say, warn};
use nix::unistd::Pid;
use process::{Exit, Failure, Isolation};

use crate::container::name::random_name;
use crate::container::observer::{Happening, Telling};
use crate::container::{Record, Records, Status};
use crate::spec::Spec;

/// The isolation that takes the container's name and writes its record. With
/// `--rm` it removes both.
pub struct Keeper {
    records: Records,
    record: Record,
    cidfile: Option<PathBuf>,
    /// Whether step 08 has found containers of killed launchers.
    found_dead: Rc<Cell<bool>>,
    /// Whether the name is taken.
    begun: bool,
    /// Whether the container was there before this run, and stays if it fails.
    again: bool,
    /// Whether something of the container could not be removed.
    stays: bool,
    /// How the command has ended.
    ended: Option<Exit>,
    /// How many of its processes were killed for want of memory.
    oom_kills: OomKills,
}

/// The completion of a record, once the container has ended.
pub struct Ending {
    records: Records,
    id: String,
    auto_remove: bool,
    oom_kills: OomKills,
}

impl Keeper {
    /// The keeper of the record of a container. `prepare` draws a name if
    /// `spec` has none.
    pub fn new(
        records: Records,
        spec: Spec,
        cidfile: Option<PathBuf>,
        found_dead: Rc<Cell<bool>>,
    ) -> Result<Self> {
        Ok(Keeper {
            records,
            record: Record::new(spec)?,
            cidfile,
            found_dead,
            begun: false,
            again: false,
            stays: false,
            ended: None,
            oom_kills: OomKills::default(),
        })
    }

    /// The keeper of a container that exists: it has its name already.
    pub fn again(records: Records, record: Record, found_dead: Rc<Cell<bool>>) -> Self {
        Keeper {
            records,
            record,
            cidfile: None,
            found_dead,
            begun: false,
            again: true,
            stays: false,
            ended: None,
            oom_kills: OomKills::default(),
        }
    }

    /// Takes the number of processes that were killed for want of memory, which
    /// is known when the container's groups are removed.
    #[must_use]
    pub fn counting(mut self, oom_kills: OomKills) -> Self {
        self.oom_kills = oom_kills;
        self
    }

    fn tell(&self, happening: Happening) {
        self.records
            .tell(&self.record, happening, Telling::Certainly);
    }

    /// The [`Ending`] of this container, to call with the result of its run.
    pub fn ending(&self) -> Ending {
        Ending {
            records: self.records.clone(),
            id: self.record.spec.id.clone(),
            auto_remove: self.record.spec.auto_remove,
            oom_kills: self.oom_kills.clone(),
        }
    }

    /// Removes what killed launchers have left, also below another
    /// --cgroup-parent than this container's.
    fn sweep(&self) -> Result<()> {
        self.records.sweep()?;
        for group in cgroups::sweep()? {
            say!("removed {}: its launcher is gone", group.display());
        }
        Ok(())
    }

    fn write_cidfile(&self) -> Result<()> {
        let Some(path) = &self.cidfile else {
            return Ok(());
        };
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)
            .and_then(|mut file| file.write_all(self.record.spec.id.as_bytes()))
            .with_context(|| format!("--cidfile {path:?}"))
    }
}

/// Takes the name of a container that has none yet, and draws one if the user
/// chose none. The record itself is not written.
fn take_name(records: &Records, record: &mut Record) -> Result<()> {
    if record.spec.name.is_empty() {
        for attempt in 0.. {
            let name = random_name(attempt)?;
            if records.take_name(&name, record)? {
                record.spec.name = name;
                return Ok(());
            }
        }
    }
    let name = record.spec.name.clone();
    if records.take_name(&name, record)? {
        return Ok(());
    }
    // The launcher that holds it may be dead.
    records.sweep()?;
    let holder = records.holder(&name)?;
    let known = match &holder {
        Some(holder) => {
            let mut all = records.all()?.into_iter();
            all.any(|other| other.short_id() == holder)
        }
        None => false,
    };
    if let (Some(holder), true) = (&holder, known) {
        bail!(
            "the name {name:?} belongs to the container {holder}: choose another --name, or \
             remove that one (drydock rm {name})"
        );
    }
    if !records.take_name(&name, record)? {
        bail!("the name {name:?} is reserved by a container that is being created");
    }
    Ok(())
}

/// Makes a container that does not run: its name and its record. If that fails,
/// neither is left.
pub fn create(records: &Records, mut record: Record) -> Result<Record> {
    record.status = Status::Created;
    take_name(records, &mut record)?;
    match records.write(&record) {
        Ok(()) => {
            records.tell(&record, Happening::Created, Telling::Certainly);
            Ok(record)
        }
        Err(error) => match records.forget(&record.spec.id, &record.spec.name) {
            Ok(()) => Err(error),
            Err(more) => Err(error.context(format!("and its name stays: {more:#}"))),
        },
    }
}

impl Isolation for Keeper {
    fn name(&self) -> &'static str {
        "record"
    }

    fn prepare(&mut self) -> Result<()> {
        if self.again {
            self.begun = true;
            return Ok(());
        }
        take_name(&self.records, &mut self.record)?;
        self.begun = true;
        self.write_cidfile()
    }

    fn on_host(&mut self, child: Pid) -> Result<()> {
        self.record.pid = child.as_raw();
        self.record.status = Status::Running;
        self.record.started_at = kit::time::now();
        self.record.finished_at = None;
        self.record.exit_code = None;
        match self.again {
            false => {
                self.records.write(&self.record)?;
                // The record has just been written: its name need not be read again.
                for happening in [Happening::Created, Happening::Attached] {
                    self.records
                        .tell_of(&self.record, happening, Telling::Certainly);
                }
            }
            true => {
                let own = &self.record;
                self.record = self.records.change(&own.spec.id, &mut |record| {
                    let spec = std::mem::replace(record, own.clone()).spec;
                    record.spec.name = spec.name;
                })?;
            }
        }
        // A failed sweep does not keep the container from starting.
        let dead = match self.found_dead.get() {
            true => Ok(true),
            false => self.records.has_dead(),
        };
        let swept = dead.and_then(|dead| match dead {
            true => self.sweep(),
            false => Ok(()),
        });
        if let Err(error) = swept {
            warn!("{error:#}");
        }
        Ok(())
    }

    fn started(&mut self) -> Result<()> {
        self.tell(Happening::Started);
        Ok(())
    }

    fn ended(&mut self, exit: Exit) -> Result<()> {
        self.ended = Some(exit);
        Ok(())
    }

    fn cleanup(&mut self) -> Result<()> {
        if !self.begun {
            return Ok(());
        }
        if let Some(exit) = self.ended.take() {
            for _ in 0..self.oom_kills.take_untold() {
                self.tell(Happening::OutOfMemory);
            }
            // Before the record says so: whoever finds a record of a dead
            // launcher asks whether the end has been told.
            self.tell(Happening::Died(exit.status()));
        }
        // A container that was never born has nothing to keep.
        let unborn = self.record.pid == 0 && !self.again;
        // By its name the next launcher finds what could not be removed, as it
        // finds what a killed one has left.
        if self.stays {
            return Ok(());
        }
        if self.record.spec.auto_remove || unborn {
            let record = self.records.latest(&self.record);
            self.records.forget(&record.spec.id, &record.spec.name)?;
            if !unborn {
                self.records
                    .tell_of(&record, Happening::Destroyed, Telling::Certainly);
            }
        }
        Ok(())
    }

    fn cleanup_failed(&mut self) {
        self.stays = true;
    }
}

impl Ending {
    /// The processes that were killed for want of memory. Those that the launcher
    /// has not told of while the container ran are told of at its end.
    pub fn oom_kills(&self) -> OomKills {
        self.oom_kills.clone()
    }

    /// Writes the exit status into the record, and returns `end`. If writing
    /// fails, that is the error, or is added to the one of `end`.
    pub fn note(self, end: Result<Exit>) -> Result<Exit> {
        if self.auto_remove {
            return end;
        }
        let status = match &end {
            Ok(exit) => exit.status(),
            Err(error) => Failure::status_of(error),
        };
        match (end, self.write(status)) {
            (end, Ok(())) => end,
            (Ok(_), Err(error)) => Err(error),
            (Err(error), Err(more)) => Err(Error::from(Failure::new(
                status,
                format!("{error:#}; and then {more:#}"),
            ))),
        }
    }

    // ANCHOR: ended
    fn write(&self, status: u8) -> Result<()> {
        // No record: the container was never born.
        let Some(mut record) = crate::container::store::read(&self.records.path(&self.id))? else {
            return Ok(());
        };
        record.status = Status::Exited;
        record.pid = 0;
        record.exit_code = Some(status);
        record.finished_at = Some(kit::time::now());
        self.records.write(&record)
    }
    // ANCHOR_END: ended
}
