//! The order of an isolation's parts, and that `cleanup` runs on every way out.
//!
//! Real processes, no privileges. The launcher clones only from a process with
//! one thread, so these tests run on the main thread.
#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use kit::SignalNumber;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use process::{Command, Container, Exit, Failure, Gate, Isolation, gate};

/// Writes the name of each of its parts into a file, from both processes.
struct Recorder {
    name: &'static str,
    file: PathBuf,
    /// The part that fails, or panics, or sends a signal to the launcher.
    trouble: Option<(&'static str, Trouble)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    Error,
    Panic,
    Sigterm,
}

impl Recorder {
    fn part(&self, part: &str) -> Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.file)?;
        writeln!(file, "{part} {}", self.name)?;
        match self.trouble {
            Some((at, Trouble::Error)) if at == part => bail!("trouble"),
            Some((at, Trouble::Panic)) if at == part => panic!("trouble"),
            Some((at, Trouble::Sigterm)) if at == part => Ok(raise(Signal::SIGTERM)?),
            _ => Ok(()),
        }
    }
}

impl Isolation for Recorder {
    fn name(&self) -> &'static str {
        self.name
    }
    fn prepare(&mut self) -> Result<()> {
        self.part("prepare")
    }
    fn on_host(&mut self, child: Pid) -> Result<()> {
        assert!(child.as_raw() > 1);
        self.part("on_host")
    }
    fn in_container(&mut self) -> Result<()> {
        self.part("in_container")
    }
    fn adjust(&mut self, command: &mut Command) -> Result<()> {
        let adjusted = "ADJUSTED=";
        command
            .env
            .retain(|pair| !pair.as_encoded_bytes().starts_with(adjusted.as_bytes()));
        command.env.push(format!("{adjusted}{}", self.name).into());
        self.part("adjust")
    }
    fn before_exec(&mut self) -> Result<()> {
        self.part("before_exec")
    }
    fn seal(&mut self) -> Result<()> {
        self.part("seal")
    }
    fn signal(&mut self, signal: SignalNumber) -> Result<bool> {
        self.part("signal")?;
        Ok(signal == Signal::SIGUSR1.into() && self.name == "b")
    }
    fn cleanup(&mut self) -> Result<()> {
        self.part("cleanup")
    }
}

/// Runs `argv` through the isolations a, b and c, of which b meets the
/// trouble, and returns the end and the parts in their order.
fn run(argv: &[&str], trouble: Option<(&'static str, Trouble)>) -> (Result<Exit>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("parts");
    let recorder = |name, trouble| Recorder {
        name,
        file: file.clone(),
        trouble,
    };
    let exit = Container::new(Command::new(argv.iter().map(Into::into).collect()))
        .with(recorder("a", None))
        .with(recorder("b", trouble))
        .with(recorder("c", None))
        .run();
    let parts = fs::read_to_string(&file).unwrap();
    (exit, parts.lines().map(String::from).collect())
}

const CLEANUP: [&str; 3] = ["cleanup c", "cleanup b", "cleanup a"];

fn every_part_in_its_order() -> Result<(), Failed> {
    let (exit, parts) = run(&["sh", "-c", "exit 7"], None);
    assert_eq!(exit?, Exit::Code(7));
    let mut expected = Vec::new();
    for part in [
        "prepare",
        "on_host",
        "in_container",
        "adjust",
        "before_exec",
        "seal",
    ] {
        expected.extend(["a", "b", "c"].map(|name| format!("{part} {name}")));
    }
    expected.extend(CLEANUP.map(String::from));
    assert_eq!(parts, expected);
    Ok(())
}

fn the_last_adjustment_is_what_is_executed() -> Result<(), Failed> {
    let (exit, _) = run(&["sh", "-c", "test $ADJUSTED = c"], None);
    assert_eq!(exit?, Exit::Code(0));
    Ok(())
}

fn a_signal_that_an_isolation_takes_is_not_passed_on() -> Result<(), Failed> {
    // Untaken, the first would end the shell by status 3.
    let script = "trap 'exit 3' USR1; trap 'exit 4' USR2; kill -USR1 $PPID; sleep 0.2; \
                  kill -USR2 $PPID; while :; do sleep 0.1; done";
    let (exit, parts) = run(&["sh", "-c", script], None);
    assert_eq!(exit?, Exit::Code(4));
    let asked: Vec<_> = parts.iter().filter(|p| p.starts_with("signal")).collect();
    assert_eq!(
        asked,
        ["signal a", "signal b", "signal a", "signal b", "signal c"]
    );
    Ok(())
}

fn a_failed_prepare_is_cleaned_up_with_those_before_it() -> Result<(), Failed> {
    let (exit, parts) = run(&["true"], Some(("prepare", Trouble::Error)));
    assert_eq!(format!("{:#}", exit.unwrap_err()), "b: trouble");
    assert_eq!(parts, ["prepare a", "prepare b", "cleanup b", "cleanup a"]);
    Ok(())
}

fn whatever_fails_everything_is_cleaned_up() -> Result<(), Failed> {
    for part in ["on_host", "in_container", "adjust", "before_exec"] {
        let (exit, parts) = run(&["true"], Some((part, Trouble::Error)));
        assert_eq!(format!("{:#}", exit.unwrap_err()), "b: trouble", "{part}");
        assert_eq!(parts[parts.len() - 3..], CLEANUP, "{part}");
        assert!(!parts.contains(&format!("{part} c")), "{part}");
    }
    Ok(())
}

/// Says for each part whether its process can be looked into, and leaves a
/// descriptor open where it is told to.
struct Watcher {
    file: PathBuf,
    opens_child: bool,
    leaks_in: &'static str,
    kept: Option<std::fs::File>,
}

impl Watcher {
    fn part(&mut self, part: &str) -> Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.file)?;
        writeln!(file, "{part} {}", nix::sys::prctl::get_dumpable()?)?;
        if part == self.leaks_in {
            std::mem::forget(file);
        }
        Ok(())
    }
}

impl Isolation for Watcher {
    fn name(&self) -> &'static str {
        "watcher"
    }
    fn opens_child(&self) -> bool {
        self.opens_child
    }
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        self.kept.iter().map(AsFd::as_fd).collect()
    }
    fn prepare(&mut self) -> Result<()> {
        self.kept = Some(std::fs::File::open("/")?);
        Ok(())
    }
    fn on_host(&mut self, child: Pid) -> Result<()> {
        let mut held = Vec::new();
        // It may be a moment behind.
        for _ in 0..500 {
            held = fs::read_dir(format!("/proc/{child}/fd"))?
                .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
                .collect();
            if held.len() == 6 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let roots = held.iter().filter(|path| path.as_os_str() == "/").count();
        let mut file = OpenOptions::new().append(true).open(&self.file)?;
        Ok(writeln!(file, "waiting {} {roots}", held.len())?)
    }
    fn in_container(&mut self) -> Result<()> {
        self.part("in_container")
    }
    fn before_exec(&mut self) -> Result<()> {
        // Whoever changes its credentials becomes what /proc/sys/fs/suid_dumpable says.
        nix::sys::prctl::set_dumpable(true)?;
        self.kept = None;
        self.part("before_exec")
    }
}

fn the_child_is_closed_to_others_and_holds_what_is_explained() -> Result<(), Failed> {
    let watch = |opens_child, leaks_in| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("parts");
        fs::write(&file, "").unwrap();
        let exit = Container::new(Command::new(vec!["true".into()]))
            .with(Watcher {
                file: file.clone(),
                opens_child,
                leaks_in,
                kept: None,
            })
            .run();
        (exit, fs::read_to_string(&file).unwrap())
    };
    for opens_child in [true, false] {
        let (exit, parts) = watch(opens_child, "");
        assert_eq!(exit?, Exit::Code(0));
        // The streams, two pipes, and the directory that is kept.
        let expected = "waiting 6 1\nin_container false\nbefore_exec true\n";
        assert_eq!(parts, expected);
    }
    for part in ["in_container", "before_exec"] {
        let (exit, _) = watch(false, part);
        let error = format!("{:#}", exit.unwrap_err());
        assert!(
            error.starts_with("watcher: refused to go on with descriptors"),
            "{error}"
        );
        assert!(error.contains("/parts"), "{error}");
    }
    Ok(())
}

fn a_panic_in_the_child_stays_in_the_child() -> Result<(), Failed> {
    let (exit, parts) = run(&["true"], Some(("in_container", Trouble::Panic)));
    assert!(exit.unwrap_err().to_string().contains("panicked"));
    // Once: the child must not clean up what is the launcher's.
    assert_eq!(
        parts
            .iter()
            .filter(|part| part.starts_with("cleanup"))
            .count(),
        3
    );
    Ok(())
}

fn a_command_that_cannot_be_run_is_cleaned_up_after() -> Result<(), Failed> {
    let (exit, parts) = run(&["/no/such/command"], None);
    assert_eq!(Failure::status_of(&exit.unwrap_err()), 127);
    assert_eq!(parts[parts.len() - 3..], CLEANUP);
    Ok(())
}

fn a_signal_before_the_start_breaks_off_and_cleans_up() -> Result<(), Failed> {
    for part in ["prepare", "on_host"] {
        let (exit, parts) = run(&["true"], Some((part, Trouble::Sigterm)));
        assert_eq!(Failure::status_of(&exit.unwrap_err()), 128 + 15, "{part}");
        assert_eq!(parts[parts.len() - 3..], CLEANUP, "{part}");
        assert!(
            !parts.iter().any(|p| p.starts_with("before_exec")),
            "{part}"
        );
    }
    Ok(())
}

fn a_failed_cleanup_is_reported_and_the_others_run() -> Result<(), Failed> {
    let (exit, parts) = run(&["true"], Some(("cleanup", Trouble::Error)));
    assert_eq!(format!("{:#}", exit.unwrap_err()), "b: cleanup: trouble");
    assert_eq!(parts[parts.len() - 3..], CLEANUP);
    Ok(())
}

/// Creates a container in a process that then leaves it and ends. Returns the
/// status of that process.
fn create_and_leave(directory: &Path, argv: &[&str], trouble: Option<&'static str>) -> i32 {
    let launcher = match kit::sys::fork().unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let left = Gate::make(directory).and_then(|gate| {
                Container::new(Command::new(argv.iter().map(Into::into).collect()))
                    .keep_terminal()
                    .with(Recorder {
                        name: "a",
                        file: directory.join("parts"),
                        trouble: trouble.map(|part| (part, Trouble::Error)),
                    })
                    .started_through(gate)
                    .create()?
                    .leave()
            });
            let written =
                left.and_then(|pid| Ok(fs::write(directory.join("pid"), pid.to_string())?));
            kit::sys::exit(u8::from(written.is_err()));
        }
    };
    match waitpid(launcher, None).unwrap() {
        WaitStatus::Exited(_, status) => status,
        other => panic!("{other:?}"),
    }
}

fn another_process_starts_what_its_launcher_has_left() -> Result<(), Failed> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let dir = tempfile::tempdir()?;
    let parts = || fs::read_to_string(dir.path().join("parts")).unwrap();
    let argv = ["sh", "-c", "exit 7"];
    assert_eq!(create_and_leave(dir.path(), &argv, None), 0);
    // Its launcher is gone, and has cleaned nothing up.
    let pid = Pid::from_raw(fs::read_to_string(dir.path().join("pid"))?.parse()?);
    assert_eq!(parts(), "prepare a\non_host a\nin_container a\nadjust a\n");
    assert!(gate::waits(dir.path())?);
    gate::open_gate(dir.path())?;
    assert_eq!(waitpid(pid, None)?, WaitStatus::Exited(pid, 7));
    assert!(parts().ends_with("before_exec a\nseal a\n"));
    // It can be started once.
    assert!(!gate::waits(dir.path())?);
    assert!(gate::open_gate(dir.path()).is_err());
    Ok(())
}

fn who_opens_the_gate_gets_the_error() -> Result<(), Failed> {
    nix::sys::prctl::set_child_subreaper(true)?;
    for (argv, trouble, status) in [
        (["/no/such/command"], None, 127),
        (["true"], Some("before_exec"), 125),
    ] {
        let dir = tempfile::tempdir()?;
        assert_eq!(create_and_leave(dir.path(), &argv, trouble), 0);
        let pid = Pid::from_raw(fs::read_to_string(dir.path().join("pid"))?.parse()?);
        let error = gate::open_gate(dir.path()).unwrap_err();
        assert_eq!(Failure::status_of(&error), status, "{error:#}");
        waitpid(pid, None)?;
    }
    Ok(())
}

fn before_it_is_left_a_container_dies_with_its_launcher() -> Result<(), Failed> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let dir = tempfile::tempdir()?;
    let ForkResult::Parent { child: launcher } = kit::sys::fork()? else {
        let gate = Gate::make(dir.path()).unwrap();
        let container = Container::new(Command::new(vec!["true".into()]))
            .keep_terminal()
            .started_through(gate)
            .create();
        let pid = container.unwrap().pid();
        fs::write(dir.path().join("pid"), pid.to_string()).unwrap();
        raise(Signal::SIGKILL).unwrap();
        unreachable!();
    };
    waitpid(launcher, None)?;
    let pid = Pid::from_raw(fs::read_to_string(dir.path().join("pid"))?.parse()?);
    // It dies of the signal, or of the closed pipe, which may be noticed first.
    let end = waitpid(pid, None)?;
    assert_ne!(end, WaitStatus::Exited(pid, 0));
    assert!(!gate::waits(dir.path())?);
    Ok(())
}

fn an_ungated_child_dies_with_its_launcher() -> Result<(), Failed> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let dir = tempfile::tempdir()?;
    let ForkResult::Parent { child: launcher } = kit::sys::fork()? else {
        let argv = vec!["sleep".into(), "1000".into()];
        let container = Container::new(Command::new(argv)).keep_terminal();
        let running = container.create().unwrap().start().unwrap();
        fs::write(dir.path().join("pid"), running.pid().to_string()).unwrap();
        raise(Signal::SIGKILL).unwrap();
        unreachable!();
    };
    waitpid(launcher, None)?;
    let pid = Pid::from_raw(fs::read_to_string(dir.path().join("pid"))?.parse()?);
    let end = waitpid(pid, None)?;
    assert_eq!(end, WaitStatus::Signaled(pid, Signal::SIGKILL, false));
    Ok(())
}

fn a_child_that_is_to_outlive_its_launcher_does() -> Result<(), Failed> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let dir = tempfile::tempdir()?;
    let ForkResult::Parent { child: launcher } = kit::sys::fork()? else {
        let argv = vec!["sh".into(), "-c".into(), "kill -STOP $$; exit 7".into()];
        let container = Container::new(Command::new(argv)).keep_terminal();
        let container = container.outlive_launcher().create();
        let pid = container.unwrap().start().unwrap().leave();
        fs::write(dir.path().join("pid"), pid.to_string()).unwrap();
        raise(Signal::SIGKILL).unwrap();
        unreachable!();
    };
    waitpid(launcher, None)?;
    let pid = Pid::from_raw(fs::read_to_string(dir.path().join("pid"))?.parse()?);
    let end = waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
    assert_eq!(end, WaitStatus::Stopped(pid, Signal::SIGSTOP));
    kill(pid, Signal::SIGCONT)?;
    assert_eq!(waitpid(pid, None)?, WaitStatus::Exited(pid, 7));
    Ok(())
}

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trial = |name: &str, test: fn() -> Result<(), Failed>| Trial::test(name, test);
    let trials = vec![
        trial("every_part_in_its_order", every_part_in_its_order),
        trial(
            "the_last_adjustment_is_what_is_executed",
            the_last_adjustment_is_what_is_executed,
        ),
        trial(
            "a_signal_that_an_isolation_takes_is_not_passed_on",
            a_signal_that_an_isolation_takes_is_not_passed_on,
        ),
        trial(
            "a_failed_prepare_is_cleaned_up_with_those_before_it",
            a_failed_prepare_is_cleaned_up_with_those_before_it,
        ),
        trial(
            "whatever_fails_everything_is_cleaned_up",
            whatever_fails_everything_is_cleaned_up,
        ),
        trial(
            "the_child_is_closed_to_others_and_holds_what_is_explained",
            the_child_is_closed_to_others_and_holds_what_is_explained,
        ),
        trial(
            "a_panic_in_the_child_stays_in_the_child",
            a_panic_in_the_child_stays_in_the_child,
        ),
        trial(
            "a_command_that_cannot_be_run_is_cleaned_up_after",
            a_command_that_cannot_be_run_is_cleaned_up_after,
        ),
        trial(
            "a_signal_before_the_start_breaks_off_and_cleans_up",
            a_signal_before_the_start_breaks_off_and_cleans_up,
        ),
        trial(
            "a_failed_cleanup_is_reported_and_the_others_run",
            a_failed_cleanup_is_reported_and_the_others_run,
        ),
        trial(
            "another_process_starts_what_its_launcher_has_left",
            another_process_starts_what_its_launcher_has_left,
        ),
        trial(
            "who_opens_the_gate_gets_the_error",
            who_opens_the_gate_gets_the_error,
        ),
        trial(
            "before_it_is_left_a_container_dies_with_its_launcher",
            before_it_is_left_a_container_dies_with_its_launcher,
        ),
        trial(
            "an_ungated_child_dies_with_its_launcher",
            an_ungated_child_dies_with_its_launcher,
        ),
        trial(
            "a_child_that_is_to_outlive_its_launcher_does",
            a_child_that_is_to_outlive_its_launcher_does,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}
