//! The machine and the moment of a measurement. A figure without them says
//! nothing.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use nix::sys::sysinfo::sysinfo;
use serde::{Deserialize, Serialize};

use super::stats::figure;
use super::table::Table;
use check::host;
use check::report::kernel_release;

/// The machine and the moment of a measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor, as /proc/cpuinfo names it.
    pub cpu: String,
    /// The number of processors that this process may use.
    pub cpus: usize,
    /// Whether the processor has the flag `hypervisor`: the machine is virtual.
    pub virtual_machine: bool,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's name and release: `Linux 6.1.0`.
    pub kernel: String,
    /// `PRETTY_NAME` of os-release(5).
    pub system: String,
    /// The layout of the mounted cgroups: `v2`, `v1`, `hybrid` or `none`.
    pub cgroups: String,
    /// The type of the file system that holds the containers.
    pub disk: String,
    /// The load average of the last minute at the start (getloadavg(3)).
    pub load: f64,
    /// Name and version of each program that takes part.
    pub versions: Vec<(String, String)>,
    /// The time of the measurement, as in RFC 3339.
    pub when: String,
}

impl Machine {
    /// Describes this machine. `place` is the directory of the containers.
    pub fn look(place: &Path) -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        Machine {
            cpu: field(&cpuinfo, "model name", ':').unwrap_or_else(|| "unknown".to_owned()),
            cpus: available_parallelism().map_or(1, usize::from),
            virtual_machine: cpuinfo
                .lines()
                .any(|line| line.starts_with("flags") && line.contains(" hypervisor")),
            memory_mib: sysinfo().map_or(0, |info| info.ram_total() >> 20),
            kernel: kernel_release(),
            system: field(&release, "PRETTY_NAME", '=').unwrap_or_default(),
            cgroups: cgroups().to_owned(),
            disk: disk(place),
            load: load(),
            versions: Vec::new(),
            when: now(),
        }
    }

    /// The reason why the figures of this moment are too high; `None` if the
    /// machine is quiet.
    pub fn warning(&self) -> Option<String> {
        // Half of one processor at work elsewhere already shows in the spreads.
        (self.load > 0.5).then(|| {
            format!(
                "the load average is {:.2}: others are at work, and the figures are too high",
                self.load
            )
        })
    }

    /// The machine on one line.
    pub fn line(&self) -> String {
        format!(
            "{}, {} CPUs{}, {:.1} GiB, {}, {}, cgroups {}, {}, load {:.2}, {}",
            self.cpu,
            self.cpus,
            if self.virtual_machine {
                " (in a virtual machine)"
            } else {
                ""
            },
            self.memory_mib as f64 / 1024.0,
            self.kernel,
            self.system,
            self.cgroups,
            self.disk,
            self.load,
            self.when
        )
    }

    /// The machine as a table.
    pub fn table(&self) -> Table {
        let mut table = Table::new("The machine", &["", ""]);
        let virtual_machine = match self.virtual_machine {
            true => ", which a hypervisor shows to a virtual machine",
            false => "",
        };
        table.row(&["processor", &format!("{}{virtual_machine}", self.cpu)]);
        table.row(&["number of them", &self.cpus.to_string()]);
        table.row(&[
            "memory",
            &format!("{} GiB", figure(self.memory_mib as f64 / 1024.0)),
        ]);
        table.row(&["kernel", &self.kernel]);
        table.row(&["system", &self.system]);
        table.row(&["cgroups", &self.cgroups]);
        table.row(&["file system", &self.disk]);
        table.row(&["load average at the start", &format!("{:.2}", self.load)]);
        let versions: Vec<String> = self
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        table.row(&["programs", &versions.join(", ")]);
        table.row(&["measured at", &self.when]);
        table
    }
}

/// The layout of the mounted cgroups (cgroups(7)): `v2`, `v1`, `hybrid` or
/// `none`.
pub fn cgroups() -> &'static str {
    let mounts = host::mounts("thread-self").unwrap_or_default();
    let has = |fstype: &str| mounts.iter().any(|mount| mount.fstype == fstype);
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "none",
    }
}

/// The type of the file system that holds a directory.
fn disk(place: &Path) -> String {
    let mounts = host::mounts("thread-self").unwrap_or_default();
    mounts
        .iter()
        .filter(|mount| place.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.len())
        .map_or_else(|| "unknown".to_owned(), |mount| mount.fstype.clone())
}

/// The load average of the last minute.
pub fn load() -> f64 {
    sysinfo().map_or(0.0, |info| info.load_average().0)
}

/// A value of /proc/meminfo in bytes; 0 if there is no such line.
pub fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kib(&text, name) * 1024
}

/// The value of a line `Name:   123 kB`, in KiB; 0 if there is no such line.
pub fn kib(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn field(text: &str, name: &str, separator: char) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(separator)?;
        (key.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn now() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor_and_memory() {
        let machine = Machine::look(Path::new("/"));
        assert!(machine.cpus > 0 && machine.memory_mib > 0);
        assert!(meminfo("MemTotal") > 0);
        assert!(machine.line().contains(&machine.kernel));
    }

    #[test]
    fn fields_are_found() {
        assert_eq!(kib("Rss: 5 kB\nPss:      12 kB\n", "Pss"), 12);
        assert_eq!(kib("", "Pss"), 0);
        let release = "A=b\nPRETTY_NAME=\"Debian\"\n";
        assert_eq!(
            field(release, "PRETTY_NAME", '=').as_deref(),
            Some("Debian")
        );
    }

    #[test]
    fn a_busy_machine_is_warned_of() {
        let busy = Machine {
            load: 3.0,
            ..Machine::default()
        };
        assert!(busy.warning().unwrap().contains("3.00"));
        assert_eq!(Machine::default().warning(), None);
    }
}
