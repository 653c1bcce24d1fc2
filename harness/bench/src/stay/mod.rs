//! `bench stay`: containers that stay when the command line has ended, and the
//! process that stays with each: its monitor.

mod follow;
mod logs;
mod long;
mod many;
mod one;
mod turns;

use std::thread;

use anyhow::{Result, bail};

use super::report::Report;
use super::session::Session;
use turns::Turns;

/// Measures the engines that are here, in turns. One that fails on the way
/// becomes a row with the reason.
pub fn run(session: &Session) -> Result<Report> {
    // The thread unshares its network namespace, which ends with the thread and
    // what it started: a dockerd must not touch the host's network.
    let measured = thread::scope(|scope| {
        let work = || {
            session.scratch.own_network()?;
            measure(session)
        };
        scope.spawn(work).join()
    });
    // ^C ends the commands, too, which then fail without a word.
    session.scratch.stop.check()?;
    match measured {
        Ok(report) => report,
        Err(_) => bail!("the thread of the bench died"),
    }
}

fn measure(session: &Session) -> Result<Report> {
    let mut report = Report::new(
        "stay",
        "Containers in the background, in turns, without a network: the program of step 12 \
         beside engines with a monitor of each container or a daemon. Memory is that of the \
         monitors, the processes that stay with the containers.",
    );
    let turns = Turns::of(session)?;
    one::one(&turns, &mut report)?;
    logs::logs(&turns, &mut report)?;
    long::long(&turns, &mut report)?;
    many::many(&turns, &mut report)?;
    report.notes.push(
        "\"Own\" is the monitor's private dirty memory: what one more of them costs. PSS adds \
         its share of the program's pages, which all monitors and commands of a program have in \
         common: compare it for one container and for many. The monitors are drydock's own, \
         conmon and containerd-shim; docker's daemons are a dockerd of the bench's own and its \
         containerd, which exist once."
            .to_owned(),
    );
    Ok(report)
}
