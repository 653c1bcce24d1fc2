//! A launcher that stays in the background: the monitor of one container.
//!
//! | module | what |
//! |---|---|
//! | this | the life of a container: start, end, start again |
//! | [`detach`] | how the monitor leaves its caller |
//! | `hub` | what it does while the command runs |
//! | `probe` | is the container healthy? |
//! | `memory` | has the kernel killed a process of it? |

pub mod detach;
mod hub;
mod memory;
mod probe;

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engine::cli::places::Places;
use engine::container::{Record, Records, Status};
use engine::list::{Here, list};
use engine::terminal::handed::Ends;
use kit::lock::Lock;
use kit::own::make;
use kit::sys::signals::{block, set_mask, signalfd};
use kit::{ProcessIdentity, SignalSet, say};
use nix::sys::signal::Signal;
use process::{Exit, Failure};

use crate::cli::update;
use crate::events::{tell, tell_of_container};
use crate::health::Health;
use crate::log::write::Writer;
use crate::monitor::hub::Hub;
use crate::monitor::memory::OutOfMemory;
use crate::monitor::probe::Prober;
use crate::network::attached;
use crate::network::resolver::Resolver;
use crate::protocol;
use crate::settings::{LogDriver, Restart, Stay, forget_oom_killed, put_health};

/// The wait before the first restart; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait before a restart.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A command that has run for so long has started well: the waits begin anew.
const WELL: Duration = Duration::from_secs(10);

/// Runs a container that has a name and a record until it ends for good.
/// `started` is called once the command runs. `attached` is somebody who is
/// connected from the beginning, and `claim` keeps others from starting or
/// removing the container.
///
/// # Errors
/// Of the first start: nothing runs then, and the record says why.
pub fn run(
    places: &Places,
    mut record: Record,
    claim: File,
    attached: Option<UnixStream>,
    started: &mut dyn FnMut(&Record) -> Result<()>,
) -> Result<()> {
    let records = Records::new(places);
    let mut stay = Stay::of(&record)?;
    record.launcher = ProcessIdentity::current()?;
    stay.stopped = false;
    stay.restarts = 0;
    stay.error = None;
    let directory = records.directory(&record.spec.id);
    make(&directory, 0o700)?;
    let log = match stay.log.driver {
        LogDriver::JsonFile => Some(Writer::open(&directory, stay.log)?),
        LogDriver::None => None,
    };
    let killing = {
        let (places, record) = (places.clone(), record.clone());
        Box::new(move |signal: i32| {
            tell_of_container(&places, &record, "kill", &[("signal", &signal.to_string())]);
        })
    };
    let mut hub = Hub::new(protocol::listen(&directory)?, log, stay.stdin_once, killing);
    if let Some(attached) = attached {
        hub.add_first(attached)?;
    }
    let hub = Rc::new(RefCell::new(hub));
    let mut wait = FIRST_WAIT;
    loop {
        let first = stay.restarts == 0;
        record.pid = 0;
        stay.put(&mut record)?;
        forget_oom_killed(&mut record);
        if stay.health.is_some() {
            put_health(&mut record, &Health::default());
        }
        let begun = Instant::now();
        // From here until it runs nobody changes its limits; those that somebody
        // has changed since the record was read are its limits.
        let mut limits = Some(update::lock(&directory)?);
        if let Some(now) = records.read(&record.spec.id)? {
            record.spec.cgroups = now.spec.cgroups;
        }
        let end = once(places, &record, (&hub, &stay), &mut |record| {
            limits.take().map_or(Ok(()), Lock::release)?;
            match first {
                true => started(record),
                false => Ok(()),
            }
        });
        drop(limits);
        let (end, ran) = match end {
            Ok(status) => (status, true),
            // It has never run: that is the caller's to know.
            Err(error) if first => {
                let status = Failure::status_of(&error);
                stay.error = Some(format!("{error:#}"));
                hub.borrow_mut().ended();
                if records.read(&record.spec.id)?.is_some() {
                    // It has not been started, whatever was tried.
                    records.change(&record.spec.id, &mut |now| {
                        now.started_at.clone_from(&record.started_at);
                    })?;
                }
                finish(places, (&record, &stay), status, (hub, claim))?;
                return Err(error);
            }
            Err(error) => {
                stay.error = Some(format!("{error:#}"));
                (Failure::status_of(&error), false)
            }
        };
        {
            let mut hub = hub.borrow_mut();
            hub.ended();
            stay.stopped |= hub.stopped;
            if let Some(policy) = hub.policy.take() {
                stay.restart = policy;
            }
        }
        if ran && begun.elapsed() >= WELL {
            wait = FIRST_WAIT;
        }
        // ANCHOR: again
        // ANCHOR: exercise_again
        if stay.stopped || !stay.restart.again(end, stay.restarts) {
            return finish(places, (&record, &stay), end, (hub, claim));
        }
        stay.restarts += 1;
        let fields = stay.fields()?;
        record = records.change(&record.spec.id, &mut |now| {
            now.status = Status::Restarting;
            now.pid = 0;
            now.exit_code = Some(end);
            now.finished_at = Some(kit::time::now());
            now.later.extend(fields.clone());
        })?;
        hub.borrow_mut().tell(end);
        say!("start again in {wait:?}");
        if !pause(&hub, wait)? {
            stay.stopped = true;
            return finish(places, (&record, &stay), end, (hub, claim));
        }
        wait = (wait * 2).min(LONGEST_WAIT);
        // ANCHOR_END: exercise_again
        // ANCHOR_END: again
    }
}

/// Tells that somebody has stopped the container, if so.
fn tell_of_stop(places: &Places, record: &Record, hub: &Rc<RefCell<Hub>>) {
    if hub.borrow().stop_ordered {
        tell_of_container(places, record, "stop", &[]);
    }
}

/// One run of the command, from its creation to its cleanup. Returns its exit
/// status.
// ANCHOR: once
fn once(
    places: &Places,
    record: &Record,
    (hub, stay): (&Rc<RefCell<Hub>>, &Stay),
    started: &mut dyn FnMut(&Record) -> Result<()>,
) -> Result<u8> {
    let ends = Ends::default();
    let here = Here {
        places,
        cidfile: None,
        record: Some(record.clone()),
        ends: Some(ends.clone()),
        harvest: None,
        secrets: Default::default(),
    };
    let mut spec = record.spec.clone();
    attached::resolve(places, record, &mut spec)?;
    let has_names = !spec.net.joining.is_empty();
    let (container, ending) = list(spec, here)?;
    let kills = ending.oom_kills();
    let created = container.create()?;
    let pid = created.pid();
    // Before the command runs: it finds others, and they find it.
    let (of, its) = (places.clone(), record.clone());
    let make_resolver = move || Resolver::new(&of, &its, pid);
    let named = attached::note(places, record).and_then(|()| match has_names {
        true => make_resolver().map(Some),
        false => Ok(None),
    });
    match named {
        Ok(resolver) => {
            let mut hub = hub.borrow_mut();
            hub.resolver = resolver;
            hub.make_resolver = Some(Box::new(make_resolver));
        }
        Err(error) => return Err(created.abandon(error)),
    }
    // Before the command runs: no output is lost, and who stops it finds it.
    hub.borrow_mut().connect(ends.take(), pid)?;
    hub.borrow_mut().memory = OutOfMemory::new(places, record, &kills);
    let running = created.start()?;
    started(record)?;
    if let Some(check) = &stay.health {
        hub.borrow_mut().prober = Some(Prober::new(places, record, check.clone()));
    }
    // The start has needed more than what follows.
    kit::sys::memory::trim();
    let working = Rc::clone(hub);
    let end = running.wait_beside(Box::new(move |signals| {
        working.borrow_mut().until_readable(signals)
    }))?;
    Ok(Exit::status(end))
}
// ANCHOR_END: once

/// Writes what has become of the container, and lets go of everybody.
// ANCHOR: finish
fn finish(
    places: &Places,
    (record, stay): (&Record, &Stay),
    status: u8,
    (hub, claim): (Rc<RefCell<Hub>>, File),
) -> Result<()> {
    let id = &record.spec.id;
    let records = Records::new(places);
    let fields = stay.fields()?;
    tell_of_stop(places, record, &hub);
    // ANCHOR: exercise_finish
    let written = match record.spec.auto_remove {
        // Its launch has removed the record, unless it failed before it had
        // one.
        true => forget(places, record),
        false => {
            let ended = records.change(id, &mut |now| {
                let never = now.started_at.is_empty();
                now.status = if never {
                    Status::Created
                } else {
                    Status::Exited
                };
                now.pid = 0;
                now.exit_code = Some(status);
                now.finished_at = (!never).then(kit::time::now);
                now.later.extend(fields.clone());
            });
            ended.map(drop)
        }
    };
    // ANCHOR_END: exercise_finish
    // Who has ordered the end may remove the container, or start it again.
    drop(claim);
    if let Ok(hub) = Rc::try_unwrap(hub) {
        hub.into_inner().finish(status);
    }
    written
}
// ANCHOR_END: finish

/// Removes the record of a container that is not kept, and tells of that if it
/// was still there.
fn forget(places: &Places, record: &Record) -> Result<()> {
    let records = Records::new(places);
    let left = records.read(&record.spec.id)?;
    records.forget(&record.spec.id, &record.spec.name)?;
    if let Some(left) = left {
        tell(places, &left, "destroy", &[]);
    }
    Ok(())
}

/// Waits before a restart. Returns `false` if the container was stopped
/// meanwhile.
fn pause(hub: &Rc<RefCell<Hub>>, wait: Duration) -> Result<bool> {
    let stopping: SignalSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
        .into_iter()
        .collect();
    let signals = signalfd(stopping)?;
    let before = block(stopping)?;
    let goes_on = hub
        .borrow_mut()
        .until(Instant::now() + wait, signals.as_fd());
    set_mask(before)?;
    goes_on.context("wait before a restart")
}

/// The policy of a container after `update --restart`, if no monitor runs.
pub fn set_policy(records: &Records, record: &Record, policy: Restart) -> Result<()> {
    let mut stay = Stay::of(record)?;
    stay.restart = policy;
    let fields = stay.fields()?;
    let changed = records.change(&record.spec.id, &mut |now| now.later.extend(fields.clone()));
    changed.map(drop)
}
