//! `claims`: common claims about containers and virtual machines, and what this
//! machine measures (E22).

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::chart::{Bar, Chart};
use super::figures::Figures;
use super::herd::{By, Weight, disk_use, herd, pss};
use super::native::{line, pair, turns};
use super::report::Report;
use super::session::Session;
use super::stats::{Summary, figure, ratio};
use super::table::Table;
use super::tools::complaint;
use check::{host, workspace};
use vm::{Kernel, Vm};

/// The number of containers to weigh, the number of boots of the virtual
/// machine, and its memory in MiB: a small one.
const CONTAINERS: usize = 20;
const BOOTS: u32 = 3;
const VM_MIB: u32 = 256;

/// The work that is compared: arguments of `bench-load`.
const WORK: [(&str, &[&str]); 2] = [
    ("compute", &["lu", "--size", "400"]),
    ("memory", &["triad", "--mib", "96"]),
];

/// The number of instances that share a disk in the claim, and the memory of
/// their host.
const INSTANCES: u64 = 10;
const MEMORY: f64 = 4.0 * 1024.0 * 1024.0; // KiB

/// The measurements of virtual machines.
struct Machines {
    description: String,
    /// Milliseconds from QEMU's start to the command's.
    boot: Summary,
    /// PSS of QEMU while the guest idles, in KiB.
    memory: Summary,
    work: Figures,
}

/// Measures containers and virtual machines, and tabulates them claim by claim.
pub fn run(session: &Session) -> Result<Report> {
    let mut report = Report::new(
        "claims",
        "Container against virtual machine: the common claims, and the figures here.",
    );
    let weight = herd(session, By::Drydock, CONTAINERS)?;
    let mut inside = Figures::new();
    for (_, work) in WORK {
        let (_, figures) = turns(session, &pair(session, "", work, &[]), boots(session))?;
        inside.extend(figures);
    }
    let machines = machines(session)?;
    let mut table = Table::new(
        &format!(
            "Container against virtual machine ({})",
            machines.description
        ),
        &["claim", "", "container", "virtual machine", "ratio"],
    );
    let (ms, kib) = (weight.start.median, together(&weight));
    let (boot, memory) = (machines.boot.median, machines.memory.median);
    table.row(&[
        "seconds against minutes",
        "start, to the first instruction",
        &format!("{} ms", figure(ms)),
        &format!("{} ms", figure(boot)),
        &ratio(boot / ms),
    ]);
    disk(session, &weight, &mut table)?;
    for ((name, unit), sample) in &machines.work {
        let inside = inside.get(&(name.clone(), unit.clone()));
        let (Some(there), Some(here)) = (
            Summary::of(sample),
            Summary::of(inside.map_or(&[], Vec::as_slice)),
        ) else {
            continue;
        };
        let what = match name.as_str() {
            "lu" => "computing, one core",
            _ => "memory bandwidth, one core",
        };
        table.row(&[
            "near-native speed",
            what,
            &format!("{} {unit}", figure(here.median)),
            &format!("{} {unit}", figure(there.median)),
            &ratio(here.median / there.median),
        ]);
        report.measured(&format!("{name}, container"), unit, here);
        report.measured(&format!("{name}, virtual machine"), unit, there);
    }
    table.row(&[
        "thousands on one host",
        "memory of one that idles",
        &format!("{} KiB", figure(kib)),
        &format!("{} KiB", figure(memory)),
        &ratio(memory / kib),
    ]);
    table.row(&[
        "",
        "number in 4 GiB, computed from that",
        &format!("{:.0}", MEMORY / kib),
        &format!("{:.0}", MEMORY / memory),
        &ratio(memory / kib),
    ]);
    report.measured("start, container", "ms", weight.start);
    report.measured("start, virtual machine", "ms", machines.boot);
    report.measured("memory, virtual machine", "KiB", machines.memory);
    if let Some(summary) = Summary::of(&[kib]) {
        report.measured("memory, container", "KiB", summary);
    }
    report.charts.push(Chart {
        title: "Start, to the first instruction".to_owned(),
        unit: "ms".to_owned(),
        bars: vec![
            Bar::of("container", &weight.start),
            Bar::of("virtual machine", &machines.boot),
        ],
    });
    report.notes.extend(notes(&machines));
    report.tables.push(table);
    Ok(report)
}

/// Notes that a reader of the comparison needs.
fn notes(machines: &Machines) -> Vec<String> {
    let mut notes = vec![format!(
        "The virtual machine is QEMU with Debian's cloud kernel, {VM_MIB} MiB and an initramfs: \
         no firmware menu, no services. An installed server takes longer to start, and more of \
         everything. The number that fits is computed from {CONTAINERS} sleeping containers \
         (launcher, process and kernel memory) and from an idle guest (PSS of QEMU)."
    )];
    if machines.description.contains("TCG") {
        notes.push(
            "KVM does not work here, so QEMU translates the guest's instructions (TCG). The \
             speed, and partly the start, are those of an emulator. With KVM a virtual machine \
             computes nearly as fast as its host."
                .to_owned(),
        );
    }
    notes
}

fn together(weight: &Weight) -> f64 {
    weight.launcher + weight.inside + weight.kernel
}

/// Adds the rows for the disk of ten instances.
fn disk(session: &Session, weight: &Weight, table: &mut Table) -> Result<()> {
    let name = match workspace::rootfs("debian").is_dir() {
        true => "debian",
        false => "busybox",
    };
    let image = disk_use(&workspace::rootfs(name))? as f64 / 1024.0;
    let kernel = Kernel::default().image()?.file;
    let kernel = disk_use(&kernel)? as f64 / 1024.0;
    let ten = INSTANCES as f64;
    let containers = image + ten * weight.disk;
    let copies = ten * (image + kernel);
    let mb = |kib: f64| format!("{} MB", figure(kib * 1024.0 / 1e6));
    let what = format!("disk of ten instances of {name}");
    table.row(&[
        "megabytes against gigabytes",
        &what,
        &mb(containers),
        &mb(copies),
        &ratio(copies / containers),
    ]);
    match snapshot(session) {
        Ok(snapshot) => {
            let shared = image + kernel + ten * snapshot as f64 / 1024.0;
            table.row(&[
                "",
                "the same, with copy-on-write disks",
                &mb(containers),
                &mb(shared),
                &ratio(shared / containers),
            ]);
        }
        Err(why) => table.row(&[
            "",
            "the same, with copy-on-write disks",
            "",
            &format!("{why:#}"),
        ]),
    }
    Ok(())
}

/// The disk space of a fresh qcow2 copy on write of another disk, in bytes.
fn snapshot(session: &Session) -> Result<u64> {
    let (base, file) = (
        session.scratch.word("base.raw"),
        session.scratch.path("copy.qcow2"),
    );
    let qemu_img = |args: &[&str]| match complaint(&[&["qemu-img"], args].concat()) {
        Ok(None) => Ok(()),
        Ok(Some(words)) => bail!("qemu-img: {words}"),
        Err(_) => bail!("missing: package qemu-utils"),
    };
    qemu_img(&["create", "-q", "-f", "raw", &base, "1G"])?;
    let to = file.display().to_string();
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", &base, "-F", "raw", &to])?;
    disk_use(&file)
}

/// Boots virtual machines, one after another, and measures them.
fn machines(session: &Session) -> Result<Machines> {
    let work: Vec<String> = WORK.iter().map(|(_, words)| words.join(" ")).collect();
    let script = format!(
        "echo idle; sleep 1; bench-load {} && bench-load {}",
        work[0], work[1]
    );
    let load = workspace::bin().join("bench-load");
    let vm = Vm {
        memory_mib: VM_MIB,
        cpus: 1,
        files: vec![(load, PathBuf::from("/bin/bench-load"))],
        command: ["sh", "-c", &script].map(str::to_owned).to_vec(),
        ..Vm::default()
    };
    let (mut times, mut memory, mut figures) = (Vec::new(), Vec::new(), Figures::new());
    let mut description = String::new();
    for _ in 0..boots(session) {
        session.scratch.stop.check()?;
        let mut lines = Vec::new();
        let result = vm.run(&mut |line| match line {
            "idle" => memory.push(qemu_memory()),
            line => lines.push(line.to_owned()),
        })?;
        if result.status != 0 {
            bail!(
                "the work in the virtual machine ended with status {}",
                result.status
            );
        }
        for printed in lines {
            let (name, value, unit) = line(&printed)?;
            figures.entry((name, unit)).or_default().push(value);
        }
        times.push(result.timings.boot.as_secs_f64() * 1000.0);
        description = result.description;
    }
    Ok(Machines {
        description,
        boot: Summary::of(&times).context("no boot")?,
        memory: Summary::of(&memory).context("no memory of QEMU")?,
        work: figures,
    })
}

/// The number of boots of the virtual machine in this session.
fn boots(session: &Session) -> u32 {
    if session.runs < 10 { 1 } else { BOOTS }
}

/// PSS of the QEMU processes that this process has started, in KiB.
fn qemu_memory() -> f64 {
    let children = host::children(std::process::id() as i32).unwrap_or_default();
    let qemu = children
        .iter()
        .filter(|child| child.comm.starts_with("qemu"));
    let pids: Vec<i32> = qemu.map(|child| child.pid).collect();
    pss(&pids) as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_translated_machine_is_called_an_emulator() {
        let machines = |description: &str| Machines {
            description: description.to_owned(),
            boot: Summary::of(&[1.0]).unwrap(),
            memory: Summary::of(&[1.0]).unwrap(),
            work: Figures::new(),
        };
        assert_eq!(notes(&machines("Debian 6.1 · QEMU/KVM")).len(), 1);
        let tcg = notes(&machines("Debian 6.1 · QEMU/TCG"));
        assert!(tcg[1].contains("emulator"));
    }
}
