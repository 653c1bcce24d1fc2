//! `stop`, `restart`, `kill`, `wait`, `pause`, `unpause`, `rename`, `update` and
//! `rm`.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use engine::cli::container::Processes;
use engine::cli::places::Places;
use engine::container::{Record, Records};
use kit::SignalNumber;
use nix::sys::signal::Signal;
use process::{Exit, Failure};

use crate::cli::run::{claim, start_one};
use crate::cli::update::{self, Limits};
use crate::cli::{each, group, is_paused, require_running, status, swept};
use crate::events::tell;
use crate::monitor::set_policy;
use crate::protocol::{Answer, Order, answer, connect, give};
use crate::settings::Restart;

/// The commands that change containers.
#[derive(Subcommand, Clone, Debug)]
pub enum Tool {
    /// Stop one or more running containers
    Stop {
        /// Signal to send to the container [default: its --stop-signal]
        #[arg(short, long, value_name = "SIGNAL")]
        signal: Option<String>,
        /// Seconds to wait before killing the container [default: its
        /// --stop-timeout]
        #[arg(short, long, alias = "time", value_name = "SECONDS")]
        timeout: Option<i64>,
        /// Names or IDs of containers
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Restart one or more containers
    Restart {
        /// Signal to send to the container [default: its --stop-signal]
        #[arg(short, long, value_name = "SIGNAL")]
        signal: Option<String>,
        /// Seconds to wait before killing the container [default: its
        /// --stop-timeout]
        #[arg(short, long, alias = "time", value_name = "SECONDS")]
        timeout: Option<i64>,
        /// Names or IDs of containers
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Kill one or more running containers
    Kill {
        /// Signal to send to the container
        #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
        signal: String,
        /// Names or IDs of containers
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Block until one or more containers stop, then print their exit codes
    Wait {
        /// Names or IDs of containers
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Pause all processes within one or more containers
    Pause {
        /// Names or IDs of containers
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Unpause all processes within one or more containers
    Unpause {
        /// Names or IDs of containers
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Rename a container
    Rename {
        /// Name or ID of the container
        container: String,
        /// The new name
        name: String,
    },
    /// Update the configuration of one or more containers
    Update {
        /// Restart policy when the container exits
        #[arg(long, value_name = "POLICY")]
        restart: Option<Restart>,
        /// Limits.
        #[command(flatten)]
        limits: Box<Limits>,
        /// Names or IDs of containers
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Remove one or more containers, with their anonymous volumes
    Rm {
        /// Force the removal of a running container (uses SIGKILL)
        #[arg(short, long)]
        force: bool,
        /// Remove anonymous volumes too; they always are
        #[arg(short, long)]
        volumes: bool,
        /// Names or IDs of containers
        #[arg(required = true, value_name = "CONTAINER")]
        containers: Vec<String>,
    },
}

/// Runs one of the commands.
pub fn run(places: &Places, tool: Tool) -> Result<Exit> {
    let records = swept(places)?;
    match tool {
        Tool::Stop {
            signal,
            timeout,
            containers,
        } => {
            let signal = signal.as_deref().map(named).transpose()?;
            each(&records, &containers, &mut |record| {
                stop(places, &records, &record, signal, timeout)
            })
        }
        Tool::Restart {
            signal,
            timeout,
            containers,
        } => {
            let signal = signal.as_deref().map(named).transpose()?;
            each(&records, &containers, &mut |record| {
                stop(places, &records, &record, signal, timeout)?;
                let record = records.find(&record.spec.id).with_context(|| {
                    format!("{} is removed when it stops (--rm)", record.spec.name)
                })?;
                start_one(places, &record)?;
                tell(places, &record, "restart", &[]);
                Ok(())
            })
        }
        Tool::Kill { signal, containers } => {
            let signal = named(&signal)?;
            each(&records, &containers, &mut |record| {
                kill(places, &records, &record, signal)
            })
        }
        Tool::Wait { containers } => wait(&records, &containers),
        Tool::Pause { containers } => each(&records, &containers, &mut |record| {
            let group = group(&record)?;
            ensure!(
                !group.is_frozen()?,
                "container {} is already paused",
                record.spec.name
            );
            group.freeze(true)?;
            tell(places, &record, "pause", &[]);
            Ok(())
        }),
        Tool::Unpause { containers } => each(&records, &containers, &mut |record| {
            let group = group(&record)?;
            ensure!(
                group.is_frozen()?,
                "container {} is not paused",
                record.spec.name
            );
            group.freeze(false)?;
            tell(places, &record, "unpause", &[]);
            Ok(())
        }),
        Tool::Rename { container, name } => {
            let before = records.find(&container)?;
            records.rename(&container, &name)?;
            let old = format!("/{}", before.spec.name);
            let now = records.find(&before.spec.id)?;
            tell(places, &now, "rename", &[("oldName", &old)]);
            Ok(Exit::Code(0))
        }
        Tool::Update {
            restart,
            limits,
            containers,
        } => {
            if restart.is_none() && limits.is_empty() {
                let why = "you must provide one or more flags when using this command";
                return Err(Failure::new(1, why.to_owned()).into());
            }
            each(&records, &containers, &mut |record| {
                if let Some(policy) = restart {
                    ensure!(
                        !record.spec.auto_remove || policy == Restart::No,
                        "Restart policy cannot be updated because AutoRemove is enabled for the \
                         container"
                    );
                }
                if !limits.is_empty() {
                    update::change(&records, &record, &limits)?;
                }
                if let Some(policy) = restart {
                    match said(&records, &record, &Order::Restart(policy))? {
                        Some(Answer::Refused(why)) => bail!("{why}"),
                        Some(_) => {}
                        None => set_policy(&records, &record, policy)?,
                    }
                }
                update::told(places, &records, &record);
                Ok(())
            })
        }
        Tool::Rm {
            force, containers, ..
        } => each(&records, &containers, &mut |record| {
            remove(places, &records, &record, force)
        }),
    }
}

fn named(signal: &str) -> Result<SignalNumber> {
    signal.parse().context("--signal")
}

/// Gives a monitor an order and reads its answer; `None` if the container has
/// no monitor, or it has ended.
fn said(records: &Records, record: &Record, what: &Order) -> Result<Option<Answer>> {
    if !record.is_running() {
        return Ok(None);
    }
    let Some(stream) = connect(&records.directory(&record.spec.id))? else {
        return Ok(None);
    };
    give(&stream, what)?;
    answer(&stream)
}

/// Stops a container, and returns when it is cleaned up. One that does not run
/// is stopped.
fn stop(
    places: &Places,
    records: &Records,
    record: &Record,
    signal: Option<SignalNumber>,
    timeout: Option<i64>,
) -> Result<()> {
    if !record.is_running() {
        return Ok(());
    }
    let signal = match signal {
        Some(signal) => signal,
        None => record.spec.stop_signal.parse()?,
    };
    // -1 is for ever, as Docker's.
    let seconds = match timeout {
        None => Some(record.spec.stop_timeout),
        Some(seconds) => u64::try_from(seconds).ok(),
    };
    let paused = is_paused(record);
    let what = Order::Stop {
        signal: Some(signal.raw()),
        seconds,
    };
    if paused {
        group(record)?.freeze(false)?;
    }
    match said(records, record, &what)? {
        Some(Answer::Refused(why)) => bail!("{why}"),
        Some(_) => Ok(()),
        // In the foreground of somebody, or just ended.
        None => {
            let patience = seconds.map_or(Duration::MAX, Duration::from_secs);
            end(places, records, record, signal, patience)?;
            tell(places, record, "stop", &[]);
            Ok(())
        }
    }
}

/// Ends a container without a monitor: a signal, and SIGKILL after `patience`.
/// Then waits for the launcher, which cleans up.
fn end(
    places: &Places,
    records: &Records,
    record: &Record,
    signal: SignalNumber,
    patience: Duration,
) -> Result<()> {
    let Some(processes) = Processes::of(records, record)? else {
        return Ok(());
    };
    send(places, record, &processes, signal)?;
    let kill = SignalNumber::from(Signal::SIGKILL);
    if signal != kill && !processes.wait(Some(patience))? {
        send(places, record, &processes, kill)?;
    }
    processes.wait(None).map(drop)
}

/// Sends a signal, of which everybody may know: before it is sent, since the
/// container may end of it.
fn send(
    places: &Places,
    record: &Record,
    processes: &Processes,
    signal: SignalNumber,
) -> Result<()> {
    let number = signal.raw().to_string();
    tell(places, record, "kill", &[("signal", &number)]);
    processes.send(signal)
}

/// Sends a signal. SIGKILL ends the container for good, and is waited for.
fn kill(places: &Places, records: &Records, record: &Record, signal: SignalNumber) -> Result<()> {
    require_running(record)?;
    if signal != SignalNumber::from(Signal::SIGKILL) {
        let processes = Processes::of(records, record)?;
        return match processes {
            Some(processes) => send(places, record, &processes, signal),
            None => bail!("container {} is not running", record.spec.name),
        };
    }
    let what = Order::Stop {
        signal: None,
        seconds: None,
    };
    match said(records, record, &what)? {
        Some(Answer::Refused(why)) => bail!("{why}"),
        Some(_) => Ok(()),
        None => end(places, records, record, signal, Duration::ZERO),
    }
}

/// Prints the exit status of each container, in their order, when it has ended.
fn wait(records: &Records, names: &[String]) -> Result<Exit> {
    let mut failed = false;
    for name in names {
        match records
            .find(name)
            .and_then(|record| wait_for(records, record))
        {
            Ok(status) => kit::outln!("{status}")?,
            Err(error) => {
                kit::errln!("drydock: {error:#}");
                failed = true;
            }
        }
    }
    Ok(Exit::Code(u8::from(failed)))
}

fn wait_for(records: &Records, record: Record) -> Result<u8> {
    if !record.is_running() {
        // One that was never started has not failed.
        return Ok(record.exit_code.unwrap_or_default());
    }
    if let Some(Answer::Exit(status)) = said(records, &record, &Order::Wait)? {
        return Ok(status);
    }
    if let Some(processes) = Processes::of(records, &record)? {
        processes.wait(None)?;
    }
    let id = &record.spec.id;
    let ended = records
        .find(id)
        .with_context(|| format!("the exit status of {} is gone with it", record.spec.name))?;
    status(&ended)
}

/// Removes a container. A running one is killed first, if that was asked for.
fn remove(places: &Places, records: &Records, record: &Record, force: bool) -> Result<()> {
    if record.is_running() {
        ensure!(
            force,
            "container {} is running: stop it first, or use --force",
            record.spec.name
        );
        if is_paused(record) {
            group(record)?.freeze(false)?;
        }
        let what = Order::Stop {
            signal: None,
            seconds: None,
        };
        if said(records, record, &what)?.is_none() {
            let kill = Signal::SIGKILL.into();
            end(places, records, record, kill, Duration::ZERO)?;
        }
        if record.spec.auto_remove {
            return Ok(());
        }
    }
    // Nobody starts it meanwhile.
    let _claim = claim(records, record)?;
    let record = records.find(&record.spec.id)?;
    ensure!(
        !record.is_running(),
        "container {} has been started meanwhile",
        record.spec.name
    );
    records.remove(&record)
}
