//! Runs the plan, fault by fault: judges each launch, and compares the host.

use std::time::Instant;

use anyhow::{Context, Result};

use super::exceptions::Exception;
use super::forms::{FORMS, Form};
use super::ground::{Ground, Place, succeed};
use super::launch::{Launch, Watch, launch};
use super::plan::{Fault, Planned, Recorded, faults, without_start};
use super::table::Record;
use super::verdict::{self, Judged, Verdict};

/// All forms with their recorded calls, and the faults to inject.
pub struct Plan<'a> {
    grounds: Vec<Ground<'a>>,
    /// The faults, in the order of their numbers.
    pub faults: Vec<Planned>,
}

impl<'a> Plan<'a> {
    /// Runs each wanted form without a fault, and records its calls.
    pub fn make(place: &'a Place, wanted: impl Fn(&Form) -> bool) -> Result<Self> {
        let mut plan = Plan {
            grounds: Vec::new(),
            faults: Vec::new(),
        };
        for form in FORMS.iter().filter(|form| wanted(form)) {
            let ground = Ground::make(place, form)?;
            let recorded = record(&ground)?;
            let form = plan.grounds.len();
            for (at, fault) in faults(&recorded) {
                plan.faults.push(Planned {
                    number: plan.faults.len() + 1,
                    form,
                    at,
                    fault,
                });
            }
            plan.grounds.push(ground);
        }
        Ok(plan)
    }

    /// Injects one fault. If the call was not made, tries once more: launches
    /// differ when one process waits for another.
    pub fn inject(&mut self, planned: &Planned, exceptions: &[Exception]) -> Result<Record> {
        let started = Instant::now();
        let ground = &mut self.grounds[planned.form];
        let mut judged = once(ground, planned)?;
        if judged.0 == Verdict::Missed {
            judged = once(ground, planned)?;
        }
        if !judged.0.is_good() {
            ground.restore()?;
        }
        let known = exceptions
            .iter()
            .find(|known| known.explains(planned, ground.form.name, &judged));
        let (verdict, reason) = judged;
        Ok(Record {
            number: planned.number,
            form: ground.form.name.to_owned(),
            at: planned.at.clone(),
            fault: planned.fault.to_string(),
            verdict,
            reason: ground.plain.text(&reason),
            exception: known.map(|known| known.reason.clone()),
            millis: started.elapsed().as_millis() as u64,
        })
    }

    /// Runs the first form with one of the launcher's calls delayed.
    pub fn delay(&mut self, call: &str, nth: usize, time: std::time::Duration) -> Result<Launch> {
        let ground = self.grounds.first().context("no form")?;
        let launch = launch(ground.run(), Watch::Delay(call.to_owned(), nth, time))?;
        ground.tidy()?;
        Ok(launch)
    }
}

/// Records the calls of a form, without those of every program's start.
fn record(ground: &Ground<'_>) -> Result<Vec<Recorded>> {
    let recorded = |command| -> Result<Vec<Recorded>> {
        let mut calls = launch(command, Watch::Record)?.calls;
        for call in &mut calls {
            call.object = ground.plain.text(&call.object);
        }
        Ok(calls)
    };
    let version = recorded(ground.version())?;
    let run = recorded(ground.run())?;
    ground.tidy()?;
    Ok(without_start(run, &version))
}

/// Runs a launch with the fault, and judges its end and its remains.
fn once(ground: &Ground<'_>, planned: &Planned) -> Result<Judged> {
    let watch = Watch::Inject(planned.at.clone(), planned.fault);
    let launch = launch(ground.run(), watch)?;
    let reported = match ground.protections_of(&launch) {
        Ok(reported) => reported,
        Err(error) => return Ok((Verdict::Status, format!("{error:#}"))),
    };
    let said = ground.plain.text(launch.stderr.trim());
    let end = verdict::of_end(
        planned,
        &launch,
        reported.as_ref(),
        &ground.protections,
        &said,
    );
    let after = left(ground, &launch)?;
    Ok(match after {
        Some(after) if after.0 > end.0 || end.0.is_good() => {
            let of_end = match end.1.is_empty() {
                true => String::new(),
                false => format!("; {}: {}", end.0, end.1),
            };
            (after.0, format!("{}{of_end}; said: {said}", after.1))
        }
        _ => end,
    })
}

/// Judges the remains of a launch after the next container has run; `None` if
/// there are none.
fn left(ground: &Ground<'_>, launch: &Launch) -> Result<Option<Judged>> {
    match ground.tidy() {
        Ok(0) if ground.form.kept && launch.status == Some(0) => {
            return Ok(Some((
                Verdict::Left,
                "no record of a container that has run".to_owned(),
            )));
        }
        Ok(_) => {}
        // Perhaps only the next container tidies up.
        Err(_) if ground.form.kept => {}
        Err(error) => return Err(error),
    }
    if ground.differences()?.is_empty() {
        return Ok(None);
    }
    if let Err(error) = succeed(ground.next(), "the next container") {
        return Ok(Some((Verdict::Next, format!("{error:#}"))));
    }
    if let Err(error) = ground.tidy() {
        return Ok(Some((Verdict::Next, format!("{error:#}"))));
    }
    let differences = ground.settled_differences()?;
    Ok((!differences.is_empty()).then(|| (Verdict::Left, differences.join("; "))))
}

/// Whether `filter` selects a fault: by the name of its call, a part of its
/// object with a `/`, or its errno.
pub fn matches(planned: &Planned, filter: &str) -> bool {
    planned.at.call == filter
        || (planned.at.object.contains(filter) && filter.contains('/'))
        || matches!(planned.fault, Fault::Fail(errno) if format!("{errno:?}") == filter)
}
