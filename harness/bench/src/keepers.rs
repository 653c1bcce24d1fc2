//! The engines whose containers stay when their command line has ended, each
//! with the process that stays with the container: its monitor.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::contenders::podman;
use super::dockerd::{self, Dockerd};
use super::hyperfine::line;
use super::machine::kib;
use super::peers::IMAGE;
use super::session::Session;
use super::tools::{named, output};
use check::check::wait_for;
use check::{host, workspace};

/// The program of step 12, in `bin/`.
const OURS: &str = "step-12";

/// The keepers, in the order of the tables.
pub const KEEPERS: [&str; 3] = ["drydock", "podman", "docker"];

/// Limits that root without CAP_SYS_RESOURCE may set, as podman's and docker's
/// defaults are not.
const ULIMITS: [&str; 4] = [
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=1024:1024",
];

/// The memory of processes, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// Private pages that were written to: what one more of them costs.
    pub own: f64,
    /// The proportional set size, with a share of the program's pages.
    pub pss: f64,
}

/// An engine that keeps containers. Dropping it removes its containers.
pub struct Keeper {
    /// The name in tables.
    pub name: &'static str,
    /// The first words of every command line.
    words: Vec<String>,
    /// The options of each `run`.
    options: Vec<String>,
    /// What the command lines of its processes contain, and nobody else's.
    place: String,
    /// docker's daemon.
    dockerd: Option<Dockerd>,
}

/// An engine that does not take part, and the reason.
pub type Absent = (&'static str, String);

/// All engines that keep containers here, and those that do not.
pub fn all(session: &Session) -> Result<(Vec<Keeper>, Vec<Absent>)> {
    let (mut ready, mut absent) = (Vec::new(), Vec::new());
    for name in KEEPERS {
        let missing = match name {
            "drydock" => (!workspace::bin().join(OURS).exists())
                .then(|| "missing: step 12 is not here".to_owned()),
            "docker" => dockerd::absent()?,
            _ => {
                let tool = named(name)?;
                tool.find().is_none().then(|| tool.missing())
            }
        };
        if let Some(why) = missing {
            absent.push((name, why));
            continue;
        }
        match Keeper::new(session, name) {
            Ok(keeper) => ready.push(keeper),
            Err(error) => {
                session.scratch.stop.check()?;
                absent.push((name, format!("refused: {error:#}")));
            }
        }
    }
    Ok((ready, absent))
}

impl Keeper {
    /// Prepares an engine: imports the image, and tries a container.
    fn new(session: &Session, name: &'static str) -> Result<Keeper> {
        let group = ["--cgroup-parent".to_owned(), session.scratch.group()];
        let owned = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
        let mut keeper = Keeper {
            name,
            words: Vec::new(),
            options: owned(&["--network", "none"]),
            place: session.scratch.word(""),
            dockerd: None,
        };
        match name {
            "drydock" => {
                let program = workspace::bin().join(OURS).display().to_string();
                keeper.words = vec![program, "--root".to_owned(), session.scratch.word("stay")];
                keeper.options.extend(group);
            }
            "podman" => {
                keeper.words = podman(session);
                // logs -f learns from events that the container has ended. The
                // later of two values counts.
                let place = session.scratch.run().join("podman-tmp");
                keeper.words.extend(owned(&["--events-backend", "file"]));
                keeper
                    .words
                    .extend(["--tmpdir".to_owned(), place.display().to_string()]);
                // Its default may be the journal, which keeps what is not ours.
                keeper.options.extend(owned(&["--log-driver", "k8s-file"]));
                keeper.options.extend(owned(&ULIMITS));
                keeper.options.extend(group);
            }
            _ => {
                let daemon = Dockerd::start(session, "dockerd")?;
                keeper.words = daemon.words();
                keeper.options.extend(owned(&ULIMITS));
                keeper.dockerd = Some(daemon);
            }
        }
        let root = session.root.display().to_string();
        let import = format!(
            "tar -C {} -c . | {} import - {IMAGE}",
            line(&[root]),
            line(&keeper.words)
        );
        output(&["sh", "-c", &import]).context("import")?;
        keeper.run("bench-try", &[], &["/bin/obey"])?;
        keeper.call(&["exec", "bench-try", "true"])?;
        keeper.await_monitors(1)?;
        keeper.remove(&["bench-try".to_owned()])?;
        Ok(keeper)
    }

    /// A command line.
    pub fn argv(&self, args: &[&str]) -> Vec<String> {
        let args = args.iter().map(|&arg| arg.to_owned());
        self.words.iter().cloned().chain(args).collect()
    }

    /// Runs a command, and returns how long it took.
    ///
    /// # Errors
    /// If it fails, with its last words.
    pub fn call(&self, args: &[&str]) -> Result<Duration> {
        let argv = self.argv(args);
        let begun = Instant::now();
        output(&argv).with_context(|| format!("{} {}", self.name, args.join(" ")))?;
        Ok(begun.elapsed())
    }

    /// Runs a command in a new container in the background, and returns how long
    /// that took.
    pub fn run(&self, name: &str, options: &[&str], command: &[&str]) -> Result<Duration> {
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(self.options.iter().map(String::as_str));
        args.extend(options);
        args.push(IMAGE);
        args.extend(command);
        self.call(&args)
    }

    /// Removes containers, and waits until their monitors have ended.
    pub fn remove(&self, names: &[String]) -> Result<()> {
        let mut args = vec!["rm", "-f"];
        args.extend(names.iter().map(String::as_str));
        self.call(&args)?;
        self.await_monitors(0)
    }

    /// Waits until there are so many monitors, ten seconds at most: podman's exec
    /// has one of its own, which ends after its command line.
    pub fn await_monitors(&self, count: usize) -> Result<()> {
        let found = || self.monitors().map(|pids| pids.len());
        let there = wait_for(|| found().ok().filter(|there| *there == count));
        match there {
            Some(_) => Ok(()),
            None => bail!("{} monitors of {count} containers", found()?),
        }
    }

    /// Removes all its containers.
    pub fn remove_all(&self) -> Result<()> {
        let ids = output(&self.argv(&["ps", "-aq"])).context("ps")?;
        let ids = String::from_utf8_lossy(&ids).into_owned();
        let ids: Vec<String> = ids.split_whitespace().map(str::to_owned).collect();
        match ids.is_empty() {
            true => Ok(()),
            false => self.remove(&ids),
        }
    }

    /// The monitors of its containers. A command that runs at this moment is
    /// none.
    pub fn monitors(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for process in host::processes()? {
            // A process may end at any moment.
            let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
            if is_monitor(self.name, &line, &self.place) {
                pids.push(process.pid);
            }
        }
        Ok(pids)
    }

    /// The memory of all its monitors together.
    pub fn memory_of_monitors(&self) -> Result<Memory> {
        Ok(memory(&self.monitors()?))
    }

    /// The memory of its daemons together; `None` if it has none.
    pub fn memory_of_daemons(&self) -> Result<Option<Memory>> {
        let Some(dockerd) = &self.dockerd else {
            return Ok(None);
        };
        Ok(Some(memory(&dockerd.daemons()?)))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // What there is of docker's ends with its daemon.
        if self.dockerd.is_none()
            && let Err(error) = self.remove_all()
        {
            eprintln!("the end of the containers of {}: {error:#}", self.name);
        }
    }
}

/// Whether this command line, as in /proc/PID/cmdline, is that of a monitor of
/// this engine with its state in `place`.
fn is_monitor(engine: &str, line: &[u8], place: &str) -> bool {
    let line = String::from_utf8_lossy(line).into_owned();
    let words: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
    let program = words[0].rsplit('/').next().unwrap_or_default();
    let is_named = match engine {
        "drydock" => program == "drydock" && words.contains(&"monitor"),
        "podman" => program == "conmon",
        _ => program.starts_with("containerd-shim"),
    };
    is_named && words.iter().any(|word| word.contains(place))
}

/// The memory of processes together. One that has ended has none.
fn memory(pids: &[i32]) -> Memory {
    let texts = pids.iter().map(|pid| format!("/proc/{pid}/smaps_rollup"));
    texts
        .filter_map(|file| fs::read_to_string(file).ok())
        .fold(Memory::default(), |sum, text| Memory {
            own: sum.own + kib(&text, "Private_Dirty") as f64,
            pss: sum.pss + kib(&text, "Pss") as f64,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_is_known_by_its_command_line() {
        let line = |words: &str| format!("{}\0", words.replace(' ', "\0")).into_bytes();
        let place = "/var/tmp/x/";
        let is = |engine, words| is_monitor(engine, &line(words), place);
        assert!(is("drydock", "drydock --root /var/tmp/x/stay monitor 12ab"));
        assert!(!is("drydock", "/b/step-12 --root /var/tmp/x/stay ps -aq"));
        assert!(!is("drydock", "drydock --root /var/tmp/other monitor 12ab"));
        assert!(is(
            "podman",
            "/usr/bin/conmon -c 12 -b /var/tmp/x/podman-root/12"
        ));
        let shim = "/usr/bin/containerd-shim-runc-v2 -id 1 -address /var/tmp/x/d/c.sock";
        assert!(is("docker", shim));
        assert!(!is("podman", shim));
        assert!(!is(
            "docker",
            "containerd --config /var/tmp/x/d/containerd.toml"
        ));
        assert!(!is_monitor("docker", b"", place));
    }

    #[test]
    fn this_process_has_memory_of_its_own() {
        let here = memory(&[std::process::id() as i32]);
        assert!(here.own > 0.0 && here.pss >= here.own, "{here:?}");
        assert_eq!(memory(&[i32::MAX]), Memory::default());
    }
}
