//! A small run of each bench, on this host, as root. No time is asserted: every
//! contender has a row, every row its figures or a reason, and nothing is left.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use bench::report::Report;
use bench::session::{Session, built};
use bench::table::Table;
use bench::{build, claims, density, images, native, pull, runtime, start, stay, tools, whereto};
use check::check::wait_for;
use check::host;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serial_test::serial;

/// Whether a cell is a figure: digits at its beginning.
fn is_figure(cell: &str) -> bool {
    cell.starts_with(|c: char| c.is_ascii_digit())
}

/// Each row has a figure in this column, or a reason in its last one.
fn assert_filled(table: &Table, column: usize) {
    for row in &table.rows {
        let reason = row.last().unwrap();
        assert!(
            is_figure(&row[column]) || !reason.is_empty(),
            "{}: {row:?}",
            table.title
        );
    }
}

fn assert_measured(report: &Report) {
    assert!(!report.measures.is_empty(), "{}", report.name);
    for measure in &report.measures {
        assert!(measure.summary.median >= 0.0, "{measure:?}");
    }
    for chart in &report.charts {
        let svg = bench::chart::standalone(chart);
        roxmltree::Document::parse(&svg).unwrap();
    }
    assert!(report.page(None).unwrap().contains(&report.about));
}

/// A bench of three runs: what it measures has figures, and nothing is left.
fn small(measure: impl FnOnce(&Session) -> Result<Report>, look: impl FnOnce(&Report)) {
    built().unwrap();
    let session = Session::begin(3).unwrap();
    let report = measure(&session).unwrap();
    assert_measured(&report);
    look(&report);
    let place = session.scratch.path("");
    assert!(place.exists());
    drop(session);
    assert!(!place.exists());
    assert_eq!(monitors(&place), Vec::<i32>::new());
    assert_eq!(groups(std::process::id()), Vec::<PathBuf>::new());
}

fn is_here(program: &str) -> bool {
    tools::named(program).unwrap().find().is_some()
}

#[test]
#[serial]
fn start_has_its_figures() {
    small(start::run, |report| {
        let [isolation, times] = &report.tables[..] else {
            panic!("{} tables", report.tables.len());
        };
        assert_eq!(times.rows.len(), 11, "{}", times.text());
        assert_filled(times, 1);
        for ours in ["floor", "drydock"] {
            let row = isolation.rows.iter().find(|row| row[0] == ours).unwrap();
            assert!(row[1].contains("net"), "{row:?}");
            assert_eq!(row[3], "overlay");
        }
        let row = &isolation.rows[1];
        assert_eq!(row[0], "drydock");
        assert_eq!(row[2], "memory cpu pids", "{}", isolation.text());
    });
}

#[test]
#[serial]
fn where_time_goes_has_its_figures() {
    built().unwrap();
    assert!(is_here("strace"), "needs the package strace");
    let session = Session::begin(3).unwrap();
    let report = whereto::run(&session).unwrap();
    let columns = &report.tables[0].columns;
    assert!(columns.contains(&"drydock".to_owned()), "{columns:?}");
    assert!(!report.tables[1].rows.is_empty());
}

#[test]
#[serial]
fn runtime_has_its_figures() {
    small(runtime::run, |report| {
        assert_filled(&report.tables[0], 1);
        assert!(is_figure(&report.tables[0].rows[0][4]));
    });
}

#[test]
#[serial]
fn stay_has_its_figures() {
    small(stay::run, |report| {
        assert_eq!(report.tables.len(), 4);
        for table in &report.tables {
            assert_eq!(table.rows.len(), 3, "{}", table.text());
            assert_filled(table, 1);
            assert_eq!(table.rows[0][0], "drydock");
            assert!(is_figure(&table.rows[0][1]), "{}", table.text());
        }
    });
}

#[test]
#[serial]
fn density_has_its_figures() {
    small(
        |session| density::run(session, &[3]),
        |report| {
            assert_filled(&report.tables[0], 2);
            assert!(is_figure(&report.tables[1].rows[0][5]));
        },
    );
}

#[test]
#[serial]
fn native_has_its_figures() {
    small(native::run, |report| assert_filled(&report.tables[0], 1));
}

#[test]
#[serial]
fn images_have_their_figures() {
    small(images::run, |report| {
        assert_filled(&report.tables[0], 1);
        assert_filled(&report.tables[1], 1);
    });
}

#[test]
#[serial]
fn pull_has_its_figures() {
    assert!(
        is_here("docker-registry"),
        "needs the package docker-registry"
    );
    small(pull::run, |report| {
        for table in &report.tables {
            assert_filled(table, 1);
            assert_eq!(table.rows[0][0], "drydock pull");
            assert!(is_figure(&table.rows[0][1]), "{}", table.text());
        }
    });
}

#[test]
#[serial]
fn build_has_its_figures() {
    small(build::run, |report| {
        for table in &report.tables {
            assert_filled(table, 1);
            assert!(table.rows[0][0].starts_with("drydock"), "{}", table.text());
        }
    });
}

#[test]
#[serial]
fn claims_have_their_figures() {
    small(claims::run, |report| {
        assert!(report.tables[0].rows.len() >= 6)
    });
}

/// The cgroups of the bench that is, or was, this process.
fn groups(pid: u32) -> Vec<PathBuf> {
    let name = format!("drydock-bench-{pid}");
    // The bench has moved this thread into its mount namespace.
    let mounts = host::mounts("thread-self").unwrap();
    mounts
        .iter()
        .filter(|mount| mount.fstype.starts_with("cgroup"))
        .map(|mount| Path::new(&mount.mount_point).join(&name))
        .filter(|group| group.exists())
        .collect()
}

/// The processes whose command lines name a place of a bench.
fn monitors(place: &Path) -> Vec<i32> {
    let place = place.display().to_string();
    let names_it = |process: &host::Process| {
        let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&place)
    };
    let processes = host::processes().unwrap().into_iter();
    processes
        .filter(names_it)
        .map(|process| process.pid)
        .collect()
}

/// A bench that keeps containers ends with all that it has started: by SIGINT it
/// ends that itself, and after SIGKILL the next one does.
#[test]
#[serial]
fn no_container_stays_without_its_bench() {
    built().unwrap();
    // The first of drydock, and of docker, which has a daemon beside.
    let mut moments = vec!["\0monitor\0"];
    if tools::named("dockerd").unwrap().find().is_some() {
        moments.push("containerd-shim");
    }
    let both = [Signal::SIGINT, Signal::SIGKILL];
    for (signal, word) in both
        .into_iter()
        .flat_map(|s| moments.iter().map(move |w| (s, *w)))
    {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_harness"))
            .args(["bench", "stay", "--runs", "60"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let place = PathBuf::from(format!("/var/tmp/drydock-bench-{}", bench.id()));
        let end = Instant::now() + Duration::from_secs(120);
        let is_monitor = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(word)
        };
        while !monitors(&place).iter().any(is_monitor) {
            assert!(Instant::now() < end && bench.try_wait().unwrap().is_none());
            sleep(Duration::from_millis(10));
        }
        kill(Pid::from_raw(bench.id() as i32), signal).unwrap();
        bench.wait().unwrap();
        if signal == Signal::SIGKILL {
            drop(Session::begin(2).unwrap());
        }
        let ended = wait_for(|| monitors(&place).is_empty().then_some(()));
        assert!(ended.is_some(), "{signal}: {:?}", monitors(&place));
        assert!(!place.exists(), "{signal}: {}", place.display());
        assert_eq!(groups(bench.id()), Vec::<PathBuf>::new(), "{signal}");
    }
}

#[test]
#[serial]
fn what_a_killed_bench_leaves_is_removed_by_the_next() {
    built().unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["bench", "density", "--containers", "1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let place = PathBuf::from(format!("/var/tmp/drydock-bench-{}", bench.id()));
    let end = Instant::now() + Duration::from_secs(120);
    // There are groups from the beginning: this waits for a container's.
    let in_use = |group: &PathBuf| {
        let entries = group.read_dir().into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.path().is_dir())
    };
    while !groups(bench.id()).iter().any(in_use) {
        assert!(Instant::now() < end && bench.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(10));
    }
    bench.kill().unwrap();
    bench.wait().unwrap();
    assert!(place.exists(), "nothing to remove");
    drop(Session::begin(2).unwrap());
    assert!(!place.exists(), "{}", fs::exists(&place).unwrap());
    assert_eq!(groups(bench.id()), Vec::<PathBuf>::new());
}
