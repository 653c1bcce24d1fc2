//! `linux.resources`: which value goes into which file (config-linux.md
//! “Control groups”), on v1 and on v2.
//!
//! The configuration speaks v1. What v2 counts otherwise is converted: shares
//! of 2 to 262144 to weights of 1 to 10000, memory and swap together to swap
//! alone.

use anyhow::{Context, Result, bail, ensure};
use cgroups::named::{Interface, NamedGroup};
use kit::{say, warn};

use crate::config::{BlockIo, Cpu, Memory, Resources};

/// A value for a file of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub controller: &'static str,
    pub file: String,
    pub value: String,
    /// The property that asks for it.
    pub asked: &'static str,
}

/// Writes all values.
///
/// # Errors
/// Names the property, the file, and what the kernel says.
pub(crate) fn apply(group: &NamedGroup, resources: &Resources) -> Result<()> {
    set_all(&planned(group, resources)?, &mut |write| set(group, write))?;
    unified(group, resources)
}

/// Writes values in their order. A period of the processor that the kernel
/// refuses is written once more after the quota: the old quota in the new period
/// may be more than the group above has (v1).
fn set_all(writes: &[Write], set: &mut dyn FnMut(&Write) -> Result<()>) -> Result<()> {
    let mut again = None;
    for write in writes {
        let has_quota = || writes.iter().any(|one| one.file == "cpu.cfs_quota_us");
        match set(write) {
            Err(error) if write.file == "cpu.cfs_period_us" && has_quota() => {
                say!("after the quota: {error:#}");
                again = Some(write);
            }
            done => done?,
        }
    }
    again.map_or(Ok(()), set)
}

/// Writes all values to the group of a running container: all of them, or none
/// if the kernel refuses one.
///
/// # Errors
/// As of [`apply`].
pub(crate) fn change(group: &NamedGroup, resources: &Resources) -> Result<()> {
    let mut before: Vec<Write> = Vec::new();
    let changed = set_all(&planned(group, resources)?, &mut |write| {
        let old = group.read(write.controller, &write.file)?;
        set(group, write)?;
        before.extend(old.and_then(|old| write.undo(&old)));
        Ok(())
    });
    let changed = changed.and_then(|()| unified(group, resources));
    if changed.is_err() {
        for write in before.iter().rev() {
            if let Err(error) = set(group, write) {
                warn!("the limits of before are not restored: {error:#}");
            }
        }
    }
    changed
}

impl Write {
    /// What restores the value of before; `None` for a file with a value for
    /// each device.
    fn undo(&self, old: &str) -> Option<Write> {
        let is_one = !self.value.contains(':') && !old.trim().contains('\n');
        is_one.then(|| Write {
            value: old.trim().to_owned(),
            ..self.clone()
        })
    }
}

fn planned(group: &NamedGroup, resources: &Resources) -> Result<Vec<Write>> {
    let interface = |controller: &str| group.interface(controller);
    let resources = &without_swap(group, resources.clone())?;
    let mut writes = writes(resources, interface)?;
    memory_first(group, resources, &mut writes)?;
    let has = |file: &str| -> Result<bool> { Ok(group.read("io", file)?.is_some()) };
    if !has(BFQ)? && has("io.weight")? {
        writes.iter_mut().for_each(without_bfq);
    }
    Ok(writes)
}

/// The weights of the scheduler BFQ on v2, whose module may not be loaded.
const BFQ: &str = "io.bfq.weight";

/// Changes a weight of BFQ to one of the `io` controller itself. The last word is
/// the weight, after `default` or after a device.
fn without_bfq(write: &mut Write) {
    if write.file != BFQ {
        return;
    }
    if let Some((of, weight)) = write.value.rsplit_once(' ')
        && let Ok(weight) = weight.parse()
    {
        write.value = format!("{of} {}", weight_of_block_io(weight));
        write.file = "io.weight".to_owned();
    }
}

/// Without accounting of swap there is no limit of it to remove.
fn without_swap(group: &NamedGroup, mut resources: Resources) -> Result<Resources> {
    if let Some(memory) = &mut resources.memory
        && memory.swap.is_some_and(|swap| swap < 0)
        && group.interface("memory") == Some(Interface::V1)
        && group
            .read("memory", "memory.memsw.limit_in_bytes")?
            .is_none()
    {
        memory.swap = None;
    }
    Ok(resources)
}

fn set(group: &NamedGroup, write: &Write) -> Result<()> {
    let Write {
        controller,
        file,
        value,
        asked,
    } = write;
    group
        .write(controller, file, value)
        .with_context(|| format!("linux.resources.{asked}"))
}

fn unified(group: &NamedGroup, resources: &Resources) -> Result<()> {
    for (file, value) in &resources.unified {
        group
            .write_v2(file, value)
            .with_context(|| format!("invalid configuration: linux.resources.unified: {file}"))?;
    }
    Ok(())
}

/// On v1 the limit of memory may never be above that of memory and swap: when
/// both grow, the latter is set first.
fn memory_first(group: &NamedGroup, resources: &Resources, writes: &mut [Write]) -> Result<()> {
    let Some(memory) = &resources.memory else {
        return Ok(());
    };
    let (Some(limit), Some(_)) = (memory.limit, memory.swap) else {
        return Ok(());
    };
    let now = group.read("memory", "memory.memsw.limit_in_bytes")?;
    let now: Option<i64> = now.and_then(|text| text.parse().ok());
    let find = |name: &str| writes.iter().position(|write| write.file == name);
    if let (Some(a), Some(b)) = (
        find("memory.limit_in_bytes"),
        find("memory.memsw.limit_in_bytes"),
    ) && now.is_some_and(|now| limit < 0 || limit > now)
    {
        writes.swap(a, b);
    }
    Ok(())
}

/// The values for a host on which controllers have these interfaces.
///
/// # Errors
/// A value that contradicts itself or another; a limit whose controller the
/// host does not have.
pub(crate) fn writes(
    resources: &Resources,
    interface: impl Fn(&str) -> Option<Interface>,
) -> Result<Vec<Write>> {
    let mut all = Writes {
        interface: &interface,
        writes: Vec::new(),
    };
    if let Some(memory) = &resources.memory {
        all.memory(memory)?;
    }
    if let Some(cpu) = &resources.cpu {
        all.cpu(cpu)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit)
        && limit != 0
    {
        let value = match limit {
            ..0 => "max".to_owned(),
            n => n.to_string(),
        };
        all.add("pids", "pids.limit", ["pids.max", "pids.max"], &value)?;
    }
    if let Some(block) = &resources.block_io {
        all.block(block)?;
    }
    for limit in &resources.hugepage_limits {
        ensure!(
            limit.page_size.chars().all(|c| c.is_ascii_alphanumeric()),
            "linux.resources.hugepageLimits: {:?} is no size of a page",
            limit.page_size
        );
        let size = &limit.page_size;
        let (v1, v2) = (
            format!("hugetlb.{size}.limit_in_bytes"),
            format!("hugetlb.{size}.max"),
        );
        all.add(
            "hugetlb",
            "hugepageLimits",
            [&v1, &v2],
            &limit.limit.to_string(),
        )?;
    }
    if let Some(network) = &resources.network {
        if let Some(class) = network.class_id {
            all.v1_only(
                "net_cls",
                "network.classID",
                "net_cls.classid",
                &class.to_string(),
            )?;
        }
        for priority in &network.priorities {
            let value = format!("{} {}", priority.name, priority.priority);
            all.v1_only(
                "net_prio",
                "network.priorities",
                "net_prio.ifpriomap",
                &value,
            )?;
        }
    }
    for (device, limit) in &resources.rdma {
        let mut value = device.clone();
        if let Some(handles) = limit.hca_handles {
            value += &format!(" hca_handle={handles}");
        }
        if let Some(objects) = limit.hca_objects {
            value += &format!(" hca_object={objects}");
        }
        all.add("rdma", "rdma", ["rdma.max", "rdma.max"], &value)?;
    }
    for (file, value) in &resources.unified {
        ensure!(
            !file.contains('/') && file.contains('.') && !file.starts_with('.'),
            "linux.resources.unified: {file:?} is no file of a controller"
        );
        ensure!(
            !value.contains('\0'),
            "linux.resources.unified: {file}: a NUL byte"
        );
    }
    Ok(all.writes)
}

struct Writes<'a> {
    interface: &'a dyn Fn(&str) -> Option<Interface>,
    writes: Vec<Write>,
}

impl Writes<'_> {
    /// Adds a value for the file on v1 or on v2.
    fn add(
        &mut self,
        controller: &'static str,
        asked: &'static str,
        files: [&str; 2],
        value: &str,
    ) -> Result<()> {
        self.each(controller, asked, [(files[0], value), (files[1], value)])
    }

    /// Adds a value that differs. An empty name of a file is one that the
    /// version lacks.
    fn each(
        &mut self,
        controller: &'static str,
        asked: &'static str,
        versions: [(&str, &str); 2],
    ) -> Result<()> {
        let (file, value) = match (self.interface)(controller) {
            Some(Interface::V1) => versions[0],
            Some(Interface::V2) => versions[1],
            None => bail!(
                "linux.resources.{asked}: the {controller} controller is not available on this \
                 host"
            ),
        };
        ensure!(
            !file.is_empty(),
            "linux.resources.{asked} is not supported by this version of control groups"
        );
        self.writes.push(Write {
            controller,
            file: file.to_owned(),
            value: value.to_owned(),
            asked,
        });
        Ok(())
    }

    fn v1_only(
        &mut self,
        controller: &'static str,
        asked: &'static str,
        file: &str,
        value: &str,
    ) -> Result<()> {
        self.each(controller, asked, [(file, value), ("", "")])
    }

    fn memory(&mut self, memory: &Memory) -> Result<()> {
        let number = |n: i64| match n {
            ..0 => ("-1".to_owned(), "max".to_owned()),
            n => (n.to_string(), n.to_string()),
        };
        // 0 means that nothing was said, as Go writes it.
        let said = |n: Option<i64>| n.filter(|n| *n != 0);
        if let Some(limit) = said(memory.limit) {
            let (v1, v2) = number(limit);
            let files = [("memory.limit_in_bytes", &*v1), ("memory.max", &*v2)];
            self.each("memory", "memory.limit", files)?;
        }
        if let Some(swap) = said(memory.swap) {
            let limit = said(memory.limit);
            ensure!(
                swap < 0 || limit.is_none_or(|limit| limit <= swap),
                "linux.resources.memory.swap {swap} is memory and swap together, and less than \
                 the limit of memory"
            );
            let v1 = number(swap).0;
            let v2 = match (swap, limit) {
                (..0, _) => "max".to_owned(),
                (swap, Some(limit @ 0..)) => (swap - limit).to_string(),
                _ if (self.interface)("memory") == Some(Interface::V2) => {
                    bail!("linux.resources.memory.swap needs a limit of memory on cgroup2")
                }
                _ => String::new(),
            };
            let files = [
                ("memory.memsw.limit_in_bytes", &*v1),
                ("memory.swap.max", &*v2),
            ];
            self.each("memory", "memory.swap", files)?;
        }
        if let Some(reservation) = said(memory.reservation) {
            let (v1, v2) = number(reservation);
            let files = [("memory.soft_limit_in_bytes", &*v1), ("memory.low", &*v2)];
            self.each("memory", "memory.reservation", files)?;
        }
        // Kernel memory is a part of all memory since Linux 5.16: there is
        // nothing to set (config-linux.md “Memory”).
        if let Some(swappiness) = memory.swappiness
            && (self.interface)("memory") == Some(Interface::V1)
        {
            ensure!(
                swappiness <= 100,
                "linux.resources.memory.swappiness {swappiness} is above 100"
            );
            let value = swappiness.to_string();
            self.v1_only("memory", "memory.swappiness", "memory.swappiness", &value)?;
        }
        if memory.disable_oom_killer == Some(true) {
            self.v1_only(
                "memory",
                "memory.disableOOMKiller",
                "memory.oom_control",
                "1",
            )?;
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: &Cpu) -> Result<()> {
        if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
            let (v1, v2) = (shares.to_string(), weight_of_shares(shares).to_string());
            let files = [("cpu.shares", &*v1), ("cpu.weight", &*v2)];
            self.each("cpu", "cpu.shares", files)?;
        }
        let period = cpu.period.filter(|period| *period != 0);
        let quota = cpu.quota.filter(|quota| *quota != 0);
        match (self.interface)("cpu") {
            Some(Interface::V1) => {
                if let Some(period) = period {
                    let value = period.to_string();
                    self.v1_only("cpu", "cpu.period", "cpu.cfs_period_us", &value)?;
                }
                if let Some(quota) = quota {
                    let value = quota.max(-1).to_string();
                    self.v1_only("cpu", "cpu.quota", "cpu.cfs_quota_us", &value)?;
                }
            }
            _ if period.is_some() || quota.is_some() => {
                let quota = match quota {
                    Some(quota @ 0..) => quota.to_string(),
                    _ => "max".to_owned(),
                };
                let value = format!("{quota} {}", period.unwrap_or(100_000));
                self.add("cpu", "cpu.quota", ["", "cpu.max"], &value)?;
            }
            _ => {}
        }
        if let Some(burst) = cpu.burst {
            let files = ["cpu.cfs_burst_us", "cpu.max.burst"];
            self.add("cpu", "cpu.burst", files, &burst.to_string())?;
        }
        if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
            let value = period.to_string();
            self.v1_only("cpu", "cpu.realtimePeriod", "cpu.rt_period_us", &value)?;
        }
        if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
            let value = runtime.to_string();
            self.v1_only("cpu", "cpu.realtimeRuntime", "cpu.rt_runtime_us", &value)?;
        }
        if let Some(idle) = cpu.idle {
            ensure!(
                matches!(idle, 0 | 1),
                "linux.resources.cpu.idle {idle} is neither 0 nor 1"
            );
            self.add("cpu", "cpu.idle", ["cpu.idle"; 2], &idle.to_string())?;
        }
        for (name, asked, file) in [
            (&cpu.cpus, "cpu.cpus", "cpuset.cpus"),
            (&cpu.mems, "cpu.mems", "cpuset.mems"),
        ] {
            if !name.is_empty() {
                self.add("cpuset", asked, [file; 2], name)?;
            }
        }
        Ok(())
    }

    fn block(&mut self, block: &BlockIo) -> Result<()> {
        if let Some(weight) = block.weight.filter(|weight| *weight != 0) {
            ensure!(
                (10..=1000).contains(&weight),
                "linux.resources.blockIO.weight {weight} is not between 10 and 1000"
            );
            let controller = self.block_controller();
            let v2 = format!("default {weight}");
            let v1 = weight.to_string();
            let files = [("blkio.bfq.weight", &*v1), ("io.bfq.weight", &*v2)];
            self.each(controller, "blockIO.weight", files)?;
        }
        ensure!(
            block.leaf_weight.is_none_or(|weight| weight == 0),
            "linux.resources.blockIO.leafWeight is not supported: the scheduler that knew it is \
             gone since Linux 5.0"
        );
        for device in &block.weight_device {
            if let Some(weight) = device.weight {
                let value = format!("{}:{} {weight}", device.major, device.minor);
                let controller = self.block_controller();
                let files = ["blkio.bfq.weight_device", "io.bfq.weight"];
                self.add(controller, "blockIO.weightDevice", files, &value)?;
            }
        }
        for (devices, asked, v1, v2) in [
            (
                &block.throttle_read_bps_device,
                "blockIO.throttleReadBpsDevice",
                "blkio.throttle.read_bps_device",
                "rbps",
            ),
            (
                &block.throttle_write_bps_device,
                "blockIO.throttleWriteBpsDevice",
                "blkio.throttle.write_bps_device",
                "wbps",
            ),
            (
                &block.throttle_read_iops_device,
                "blockIO.throttleReadIOPSDevice",
                "blkio.throttle.read_iops_device",
                "riops",
            ),
            (
                &block.throttle_write_iops_device,
                "blockIO.throttleWriteIOPSDevice",
                "blkio.throttle.write_iops_device",
                "wiops",
            ),
        ] {
            for device in devices {
                let (major, minor, rate) = (device.major, device.minor, device.rate);
                let old = format!("{major}:{minor} {rate}");
                let new = match rate {
                    0 => format!("{major}:{minor} {v2}=max"),
                    _ => format!("{major}:{minor} {v2}={rate}"),
                };
                let controller = self.block_controller();
                self.each(controller, asked, [(v1, &*old), ("io.max", &*new)])?;
            }
        }
        Ok(())
    }

    /// The controller of disks, which has another name on v2.
    fn block_controller(&self) -> &'static str {
        match (self.interface)("blkio") {
            Some(_) => "blkio",
            None => "io",
        }
    }
}

/// The weight on v2 of shares on v1 (config-linux.md “CPU”): 2 is 1, 262144 is
/// 10000.
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// The weight of the `io` controller, 1 to 10000, for one of v1, 10 to 1000: the
/// straight line through both ends, as in other runtimes.
fn weight_of_block_io(weight: u64) -> u64 {
    1 + (weight.clamp(10, 1000) - 10) * 9_999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::parse;

    fn on(interface: Option<Interface>, text: &str) -> Result<Vec<String>> {
        let resources: Resources = parse(text.as_bytes(), "resources")?;
        let writes = writes(&resources, |controller| {
            // `io` is v2's name, `blkio` v1's.
            let other = match interface {
                Some(Interface::V2) => "blkio",
                _ => "io",
            };
            interface.filter(|_| controller != other)
        })?;
        Ok(writes
            .iter()
            .map(|write| format!("{}={}", write.file, write.value))
            .collect())
    }

    const ALL: &str = r#"{
        "memory": {"limit": 1000, "swap": 3000, "reservation": 500, "kernel": 7},
        "cpu": {"shares": 1024, "quota": 5000, "period": 10000, "cpus": "0-1"},
        "pids": {"limit": -1},
        "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4}]}"#;

    #[test]
    fn a_weight_needs_no_bfq() {
        for (value, expected) in [("default 750", "default 7475"), ("8:0 10", "8:0 1")] {
            let mut write = Write {
                controller: "io",
                file: BFQ.to_owned(),
                value: value.to_owned(),
                asked: "blockIO.weight",
            };
            without_bfq(&mut write);
            assert_eq!((&*write.file, &*write.value), ("io.weight", expected));
        }
    }

    #[test]
    fn each_version_has_its_files() {
        assert_eq!(
            on(Some(Interface::V1), ALL).unwrap(),
            [
                "memory.limit_in_bytes=1000",
                "memory.memsw.limit_in_bytes=3000",
                "memory.soft_limit_in_bytes=500",
                "cpu.shares=1024",
                "cpu.cfs_period_us=10000",
                "cpu.cfs_quota_us=5000",
                "cpuset.cpus=0-1",
                "pids.max=max",
                "blkio.throttle.read_bps_device=8:0 9",
                "hugetlb.2MB.limit_in_bytes=4",
            ]
        );
        assert_eq!(
            on(Some(Interface::V2), ALL).unwrap(),
            [
                "memory.max=1000",
                "memory.swap.max=2000",
                "memory.low=500",
                "cpu.weight=39",
                "cpu.max=5000 10000",
                "cpuset.cpus=0-1",
                "pids.max=max",
                "io.max=8:0 rbps=9",
                "hugetlb.2MB.max=4",
            ]
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused_by_name() {
        for (text, words) in [
            (r#"{"memory":{"limit":5,"swap":4}}"#, "memory.swap 4"),
            (r#"{"cpu":{"idle":2}}"#, "cpu.idle 2"),
            (r#"{"blockIO":{"weight":5}}"#, "blockIO.weight 5"),
            (r#"{"unified":{"../x.y":"1"}}"#, "unified"),
            (r#"{"unified":{"x":"1"}}"#, "unified"),
            (
                r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#,
                "hugepageLimits",
            ),
        ] {
            let error = on(Some(Interface::V1), text).unwrap_err();
            assert!(error.to_string().contains(words), "{error}, not {words}");
        }
        let error = on(None, r#"{"pids":{"limit":3}}"#).unwrap_err();
        assert!(error.to_string().contains("pids controller"), "{error}");
        let error = on(Some(Interface::V2), r#"{"network":{"classID":3}}"#).unwrap_err();
        assert!(error.to_string().contains("not supported"), "{error}");
    }

    #[test]
    fn shares_span_the_weights() {
        assert_eq!(weight_of_shares(0), 1);
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(1024), 39);
        assert_eq!(weight_of_shares(262_144), 10_000);
        assert_eq!(weight_of_shares(u64::MAX), 10_000);
    }
}
