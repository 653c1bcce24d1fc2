//! `update`: other limits for a container that exists.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::cli::args::{Globals, Update};
use crate::config::{BlockIo, Cpu, Memory, Pids, Resources, read};
use crate::launch::resources;
use crate::state::{Status, Store};

/// The limits that the options describe.
fn asked(args: &Update) -> Result<Resources> {
    let mut resources: Resources = match &args.resources {
        Some(file) if file == Path::new("-") => read::from(std::io::stdin(), "standard input")?,
        Some(file) => read::document(file)?,
        None => Resources::default(),
    };
    let memory = Memory {
        limit: args.memory,
        reservation: args.memory_reservation,
        swap: args.memory_swap,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: args.cpu_share,
        quota: args.cpu_quota,
        burst: args.cpu_burst,
        period: args.cpu_period,
        cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        mems: args.cpuset_mems.clone().unwrap_or_default(),
        idle: args.cpu_idle,
        ..Cpu::default()
    };
    let options = Resources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids: args.pids_limit.map(|limit| Pids { limit: Some(limit) }),
        block_io: args.blkio_weight.map(|weight| BlockIo {
            weight: Some(weight),
            ..BlockIo::default()
        }),
        ..Resources::default()
    };
    if args.resources.is_some() {
        ensure!(
            options == Resources::default(),
            "--resources and another option: one of the two"
        );
    } else {
        ensure!(options != Resources::default(), "no limit is given");
        resources = options;
    }
    Ok(resources)
}

/// `update`.
pub(crate) fn update(globals: &Globals, args: &Update) -> Result<()> {
    let mut resources = asked(args)?;
    let container = Store::new(globals.root.clone())?.change(&args.id)?;
    if container.status()? == Status::Stopped {
        bail!("cannot update a stopped container");
    }
    // The rules for devices are those of the creation: peers repeat them.
    resources.devices.clear();
    // What the kernel refuses leaves the container as it was, up to there.
    resources::apply(&container.record.cgroup, &resources).context("update")
}
