//! `update`: other limits for a container that exists.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use kit::warn;
use serde_json::Value;

use crate::cli::args::{Amount, Globals, Update};
use crate::config::{BlockIo, Config, Cpu, Memory, Pids, Resources, read};
use crate::launch::rdt;
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
        limit: args.memory.map(|Amount(bytes)| bytes),
        reservation: args.memory_reservation.map(|Amount(bytes)| bytes),
        swap: args.memory_swap.map(|Amount(bytes)| bytes),
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: args.cpu_share,
        quota: args.cpu_quota,
        burst: args.cpu_burst,
        period: args.cpu_period,
        realtime_period: args.cpu_rt_period,
        realtime_runtime: args.cpu_rt_runtime,
        cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        mems: args.cpuset_mems.clone().unwrap_or_default(),
        idle: args.cpu_idle,
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
        let schemata = args.l3_cache_schema.is_some() || args.mem_bw_schema.is_some();
        ensure!(
            options != Resources::default() || schemata,
            "no limit is given"
        );
        resources = options;
    }
    // Who removes the limit of memory means the one of memory and swap too: on v1
    // the latter may not be below the former.
    if let Some(memory) = &mut resources.memory
        && memory.limit.is_some_and(|limit| limit < 0)
        && memory.swap.unwrap_or(0) == 0
    {
        memory.swap = Some(-1);
    }
    Ok(resources)
}

/// `update`.
pub(crate) fn update(globals: &Globals, args: &Update) -> Result<()> {
    if args.kernel_memory.is_some() || args.kernel_memory_tcp.is_some() {
        warn!("--kernel-memory is ignored: it is a part of all memory");
    }
    let mut asked = asked(args)?;
    let container = Store::new(globals.root.clone())?.change(&args.id)?;
    match container.status()? {
        Status::Created | Status::Running | Status::Paused => {}
        status => bail!("cannot update a container that is {}", status.name()),
    }
    // The rules for devices are those of the creation: peers repeat them.
    asked.devices.clear();
    let mut config = container.config()?;
    let rdt = schemata(args, &mut config)?;
    let before = config.linux.resources.clone().unwrap_or_default();
    let after = merged(&before, &asked)?;
    let group = &container.record.cgroup;
    let changed = named_in(&asked, &after);
    resources::change(group, &changed).context("update")?;
    if let Some(scope) = &container.record.scope {
        scope.update(group, &changed).context("update")?;
    }
    config.linux.resources = Some(after);
    if let Some(group) = &rdt {
        group.change().context("update")?;
    }
    container.save_config(&config)
}

/// The group of resctrl with the schemata that the options describe, which the
/// configuration gets too.
fn schemata(args: &Update, config: &mut Config) -> Result<Option<rdt::Group>> {
    if args.l3_cache_schema.is_none() && args.mem_bw_schema.is_none() {
        return Ok(None);
    }
    let root = rdt::mounted()?;
    let all = config.linux.intel_rdt.get_or_insert_default();
    for (asked, schema) in [
        (&args.l3_cache_schema, &mut all.l3_cache_schema),
        (&args.mem_bw_schema, &mut all.mem_bw_schema),
    ] {
        if let Some(asked) = asked {
            schema.clone_from(asked);
        }
    }
    rdt::Group::plan(&root, all, &args.id).map(Some)
}

/// The limits that hold after `asked` is applied to a container with those of
/// `before`.
fn merged(before: &Resources, asked: &Resources) -> Result<Resources> {
    let mut all = serde_json::to_value(before).context("serialise the limits")?;
    merge(
        &mut all,
        serde_json::to_value(asked).context("serialise the limits")?,
    );
    serde_json::from_value(all).context("merge the limits")
}

/// The properties whose 0 means that nothing is said, as Go writes it.
const UNSAID: [&str; 9] = [
    "limit",
    "reservation",
    "swap",
    "shares",
    "quota",
    "period",
    "realtimeRuntime",
    "realtimePeriod",
    "weight",
];

/// What identifies an element of a list: the limit of a device, or of a size of
/// pages.
const KEYS: [&str; 4] = ["major", "minor", "pageSize", "name"];

fn merge(into: &mut Value, new: Value) {
    match (into, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                let unsaid =
                    value.is_null() || value == "" || value == 0 && UNSAID.contains(&name.as_str());
                if unsaid {
                    continue;
                }
                match old.get_mut(&name) {
                    Some(there) => merge(there, value),
                    None => drop(old.insert(name, value)),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for value in new {
                let is_same =
                    |other: &&mut Value| KEYS.iter().all(|key| other[*key] == value[*key]);
                match old.iter_mut().find(is_same) {
                    Some(there) => *there = value,
                    None => old.push(value),
                }
            }
        }
        (old, new) => *old = new,
    }
}

/// Of all limits those that are to be set: the groups of properties that `asked`
/// names. Within such a group one value may depend on another.
fn named_in(asked: &Resources, all: &Resources) -> Resources {
    Resources {
        memory: asked.memory.as_ref().and(all.memory.clone()),
        cpu: asked.cpu.as_ref().and(all.cpu.clone()),
        pids: asked.pids.as_ref().and(all.pids.clone()),
        ..asked.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::parse;

    #[test]
    fn what_is_not_asked_for_stays() {
        let limits = |text: &str| parse::<Resources>(text.as_bytes(), "limits").unwrap();
        let before = limits(
            r#"{"memory": {"limit": 100, "swap": 300}, "cpu": {"quota": 5, "cpus": "0"},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 2}],
                "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]}}"#,
        );
        let asked = limits(
            r#"{"memory": {"limit": 0, "swap": 400}, "pids": {"limit": 7}, "cpu": {"period": 10},
                "hugepageLimits": [{"pageSize": "1GB", "limit": 3}],
                "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 1},
                                                      {"major": 8, "minor": 0, "rate": 0}]}}"#,
        );
        let after = merged(&before, &asked).unwrap();
        let expected = limits(
            r#"{"memory": {"limit": 100, "swap": 400}, "pids": {"limit": 7},
                "cpu": {"quota": 5, "period": 10, "cpus": "0"},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 3}],
                "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 0},
                                                      {"major": 8, "minor": 1, "rate": 1}]}}"#,
        );
        assert_eq!(after, expected);
        let part = named_in(&limits(r#"{"cpu": {"period": 10}}"#), &after);
        assert_eq!(part.memory, None);
        assert_eq!(part.cpu.unwrap().quota, Some(5));
    }
}
