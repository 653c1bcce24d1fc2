//! The running check: what the test functions in `tests/step_NN.rs` are written
//! with.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::draws::{Draws, WORD};
use crate::expect::failed;
use crate::guard::{CHECK_DIR, Snapshot, reap_left_behind};
use crate::outcome::{Failed, Outcome, Record, Unsupported};
use crate::step::{self, Step, said};
use crate::{build, host, workspace};

/// Environment variable, set if standard input is a socket to the runner, which
/// sends [`Orders`] and receives the [`Record`]. A hostile program under test
/// could get hold of a file or a pipe, but not of a socket.
pub const RUNNER: &str = "DRYDOCK_RUNNER";
/// Environment variable: the program under test. Default: `bin/step-NN`.
pub const PROGRAM: &str = "DRYDOCK_PROGRAM";
/// Environment variable: the seed of the names and numbers that checks draw,
/// for a check without a runner.
pub const SEED: &str = "DRYDOCK_SEED";

/// The runner's orders to a check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    /// Number of the step, two digits.
    pub step: String,
    /// Name of the check.
    pub check: String,
    /// Seed of the names and numbers that the check draws.
    pub seed: u64,
    /// Whether the program under test may be hostile. If so, its claims about
    /// the machine are not trusted.
    #[serde(default)]
    pub untrusted: bool,
}

/// A running check. It draws names and numbers, makes files and starts
/// programs.
pub struct Check {
    step: String,
    seed: u64,
    draws: RefCell<Draws>,
    dir: TempDir,
}

/// One check at a time: each compares the host before and after it.
static TURN: Mutex<()> = Mutex::new(());

/// Runs `body` between two snapshots of the host. Every check calls it.
///
/// Passes if `body` returns `Ok` and the host is unchanged. A process, mount,
/// cgroup or IPC object that is left behind fails the check and is then
/// removed.
///
/// # Panics
/// If the check does not pass: a panic is how Rust's test harness learns of it.
pub fn check<F: FnOnce(&Check) -> Result<()>>(body: F) {
    // A plain `cargo test` starts several at once.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut runner = runner();
    let orders = match orders(&mut runner) {
        Ok(orders) => orders,
        Err(error) => panic!("{error:#}"),
    };
    let mut record = Record::new(&orders.step, &orders.check, orders.seed);
    let start = Instant::now();
    let mut result = guarded(&mut record, body);
    // A check that asks the program which features are missing here would cost
    // fewer points than one that fails.
    if orders.untrusted && step::started() {
        result = result.map_err(not_to_be_had);
    }
    if result.is_err() || record.host.is_empty() {
        record.judge(&result);
    } else {
        record.outcome = Outcome::Fail;
    }
    let said = said::take();
    if record.is_open() {
        record.said = said;
    }
    record.millis = start.elapsed().as_millis() as u64;
    report(&record, runner);
}

fn not_to_be_had(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Unsupported>() {
        Ok(missing) => failed("the program to do it here", missing),
        Err(error) => error,
    }
}

fn guarded<F: FnOnce(&Check) -> Result<()>>(record: &mut Record, body: F) -> Result<()> {
    // Discard what the previous check in this process has left.
    drop(said::take());
    set_child_subreaper(true).context("prctl(PR_SET_CHILD_SUBREAPER)")?;
    let before = Snapshot::take()?;
    let check = Check {
        step: record.step.clone(),
        seed: record.seed,
        draws: RefCell::new(Draws::new(record.seed)),
        dir: tempfile::Builder::new()
            .prefix(CHECK_DIR)
            .tempdir()
            .context("make a temporary directory")?,
    };
    let path = check.dir.path().to_path_buf();
    let before = before.of_check(&path);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&check)));
    let result = result.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("the check panicked");
        Err(Failed(text.to_owned()).into())
    });
    record.host = reap_left_behind()?;
    record.host.extend(before.settled_differences()?);
    if !record.host.is_empty() {
        for failed in before.restore() {
            eprintln!("could not restore the host: {failed}");
        }
    }
    drop(check);
    // Dropping `check` may have left something in the directory.
    if path.exists() {
        remove(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    result
}

/// Removes a directory with all that is in it. The standard library holds a
/// descriptor for each level, and a check may have made thousands.
fn remove(path: &Path) -> Result<()> {
    const LEVELS: u64 = 20_000;
    match fs::remove_dir_all(path) {
        Err(error) if error.raw_os_error() == Some(Errno::EMFILE as i32) => {
            setrlimit(Resource::RLIMIT_NOFILE, LEVELS, LEVELS).context("setrlimit")?;
            Ok(fs::remove_dir_all(path)?)
        }
        removed => Ok(removed?),
    }
}

/// Takes the socket to the runner from standard input, if there is one, so that
/// the programs that the check starts do not inherit it.
fn runner() -> Option<UnixStream> {
    std::env::var_os(RUNNER)?;
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).ok()?;
    let null = fs::File::open("/dev/null").ok()?;
    rustix::stdio::dup2_stdin(null).ok()?;
    Some(socket.into())
}

fn orders(runner: &mut Option<UnixStream>) -> Result<Orders> {
    let Some(runner) = runner else {
        return without_runner();
    };
    let mut line = String::new();
    BufReader::new(runner)
        .read_line(&mut line)
        .context("read the runner's orders")?;
    serde_json::from_str(&line).context("parse the runner's orders")
}

/// The orders of a check that a person has started: under cargo, or under a
/// debugger.
fn without_runner() -> Result<Orders> {
    let program = std::env::current_exe().context("readlink /proc/self/exe")?;
    let step = build::step_of(&program)
        .with_context(|| format!("{} is not named after a step", program.display()))?;
    let given = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |age| age.as_nanos() as u64 & 0xffff_ffff)
    });
    Ok(Orders {
        step,
        // Only a runner reads the record.
        check: String::new(),
        seed,
        untrusted: false,
    })
}

fn report(record: &Record, runner: Option<UnixStream>) {
    let sent = match runner {
        Some(mut runner) => serde_json::to_vec(record)
            .context("write the record as JSON")
            .and_then(|json| runner.write_all(&json).context("send the record")),
        None => Ok(()),
    };
    if let Err(error) = sent {
        panic!("{error:#}");
    }
    if record.outcome != Outcome::Pass {
        let more = [&record.host[..], &record.said].concat().join("\n");
        panic!("{}: {}\n{more}", record.outcome, record.message);
    }
}

impl Check {
    /// The step's program, without arguments.
    pub fn step(&self) -> Step {
        let program = std::env::var_os(PROGRAM).map_or_else(
            || workspace::bin().join(workspace::program(&self.step)),
            PathBuf::from,
        );
        Step::new(program)
    }

    /// Another program of `bin/`: the probe, or an earlier step.
    pub fn other_program(&self, name: &str) -> Step {
        Step::new(workspace::bin().join(name))
    }

    /// An empty directory, which is removed with the check.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Draws a number below `bound`, which depends on the seed.
    pub fn number(&self, bound: u64) -> u64 {
        self.draws.borrow_mut().number(bound)
    }

    /// Draws a name that no solution can know beforehand: `prefix-` and random
    /// letters.
    pub fn word(&self, prefix: &str) -> String {
        let letters = self.draws.borrow_mut().letters(WORD);
        format!("{prefix}-{letters}")
    }

    /// A directory that everybody may enter, with the step's program and the
    /// probe in it: the checkout may be in somebody's home.
    pub fn programs_for_all(&self) -> Result<PathBuf> {
        let bin = self.dir().join("bin");
        if bin.exists() {
            return Ok(bin);
        }
        open_to_all(self.dir())?;
        fs::create_dir(&bin).context("mkdir")?;
        open_to_all(&bin)?;
        for (from, to) in [
            (self.step().command(), &*workspace::program(&self.step)),
            (self.other_program("probe").command(), "probe"),
        ] {
            fs::copy(from.get_program(), bin.join(to)).context("copy a program")?;
        }
        Ok(bin)
    }

    /// Makes a fresh root file system of busybox and the probe, which the check
    /// may change. Needs `just rootfs busybox`.
    pub fn rootfs(&self) -> Result<PathBuf> {
        let from = workspace::rootfs("busybox");
        if !from.join("bin").is_dir() {
            bail!("{} is missing: ./just rootfs busybox", from.display());
        }
        let to = self.dir.path().join(self.word("rootfs"));
        let copy = std::process::Command::new("cp")
            .args(["-a", "--"])
            .arg(&from)
            .arg(&to)
            .status()
            .context("run cp -a")?;
        if !copy.success() {
            bail!("cp -a {} {}: {copy}", from.display(), to.display());
        }
        let probe = to.join("bin/probe");
        fs::copy(workspace::bin().join("probe"), &probe)
            .with_context(|| format!("copy the probe to {}", probe.display()))?;
        // mkdtemp(3) gives mode 0700; a container whose root is another user
        // must be able to enter.
        open_to_all(self.dir.path())?;
        Ok(to)
    }

    /// The root file system of Debian, shared by all checks. Checks must not
    /// write to it.
    ///
    /// # Errors
    /// [`Unsupported`] if it has not been made.
    pub fn debian(&self) -> Result<PathBuf> {
        let dir = workspace::rootfs("debian");
        if dir.join("usr/bin").is_dir() {
            Ok(dir)
        } else {
            Err(Unsupported(format!(
                "{} is missing: ./just rootfs debian",
                dir.display()
            ))
            .into())
        }
    }

    /// The seed of this run.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// Lets every user enter and list a directory.
pub fn open_to_all(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("chmod 755 {}", dir.display()))
}

/// Polls until `done` returns a value; `None` after ten seconds. For changes in
/// other processes, which nothing announces.
pub fn wait_for<T>(done: impl Fn() -> Option<T>) -> Option<T> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match done() {
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            found => return found,
        }
    }
}

/// Waits for a launcher to end, ten seconds at most. Returns its exit status;
/// `None` if it had to be killed, with its children.
pub fn wait_or_kill(launcher: &mut Child) -> Result<Option<i32>> {
    let pid = launcher.id() as i32;
    if wait_for(|| {
        host::process(pid)
            .is_none_or(|p| p.state == 'Z')
            .then_some(())
    })
    .is_none()
    {
        for child in host::children(pid)? {
            kill(Pid::from_raw(child.pid), Signal::SIGKILL).ok();
        }
        launcher.kill().context("kill the launcher")?;
    }
    Ok(launcher.wait().context("wait for the launcher")?.code())
}
