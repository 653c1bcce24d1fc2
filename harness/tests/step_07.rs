//! Checks of step 07: control groups, on v1, v2 and hosts that have both.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use check::cgroup::{self, Groups};
use check::check::open_to_all;
use check::prelude::*;

const MIB: u64 = 1 << 20;

fn groups(held: &Held) -> Result<Groups> {
    cgroup::of(held.pid()?)
}

fn own_groups() -> Result<Groups> {
    cgroup::of(std::process::id() as i32)
}

fn number(what: &str, text: &str) -> Result<u64> {
    text.parse()
        .map_err(|_| failed(format!("a number in {what}"), format!("{text:?}")))
}

/// The last CPU of this machine that is online.
fn last_cpu() -> Result<u32> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").context("read online")?;
    let last = text.trim().rsplit([',', '-']).next().unwrap_or("0");
    last.parse().context("the last CPU online")
}

/// CPU time of a process so far, in clock ticks.
fn cpu_ticks(pid: i32) -> Result<u64> {
    let file = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut times = fields.split_whitespace().skip(11);
    let mut next = || times.next().and_then(|n| n.parse::<u64>().ok());
    next()
        .zip(next())
        .map(|(user, system)| user + system)
        .context("CPU time in stat")
}

/// The PID of a container's first process, once it computes.
fn computing(held: &Held) -> Result<i32> {
    wait_for(|| {
        let pid = held.pid().ok()?;
        (cpu_ticks(pid).ok()? > 5).then_some(pid)
    })
    .ok_or_else(|| {
        failed(
            "a container that computes",
            "none: its first process has not begun within ten seconds, or could not",
        )
    })
}

fn kill(pid: i32) -> Result<()> {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL)
        .with_context(|| format!("kill {pid}"))
}

/// Where a process is in the hierarchy of a controller, by lines of
/// /proc/self/cgroup that it has seen itself.
fn path_in<'a>(lines: &'a [String], controller: &str) -> &'a str {
    let of = |wanted: &dyn Fn(&str) -> bool| {
        lines.iter().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            wanted(fields.next()?).then(|| fields.next())?
        })
    };
    of(&|list| list.split(',').any(|word| word == controller))
        .or_else(|| of(&|list| list.is_empty()))
        .unwrap_or("none")
}

/// The step's program in a directory that everybody may enter, with the probe
/// beside it, called by an ordinary user: the checkout may be in somebody's home.
fn called_by(c: &Check, uid: u32, dir: Option<&Path>) -> Result<Step> {
    let bin = c.dir().join("bin");
    if !bin.exists() {
        open_to_all(c.dir())?;
        fs::create_dir(&bin).context("mkdir")?;
        open_to_all(&bin)?;
        for (from, to) in [
            (c.step().command(), "step-07"),
            (c.other_program("probe").command(), "probe"),
        ] {
            fs::copy(from.get_program(), bin.join(to)).context("copy a program")?;
        }
    }
    let mut step = c.other_program("probe");
    if let Some(dir) = dir {
        step = step.args(["in-group".as_ref(), dir.as_os_str(), "--".as_ref()]);
        step = step.args([bin.join("probe")]);
    }
    Ok(step
        .args(["as", "--uid", &uid.to_string(), "--"])
        .args([bin.join("step-07")])
        .env(
            "PATH",
            format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()),
        ))
}

/// A group that a check makes, in the root of v2, and that goes with it.
struct Made(PathBuf);

impl Made {
    fn in_v2(name: &str) -> Result<Self> {
        let dir = Path::new("/sys/fs/cgroup").join(name);
        fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
        Ok(Made(dir))
    }

    /// Gives the group, as far as delegation goes (cgroups(7)), to a user.
    fn delegate(&self, uid: u32) -> Result<()> {
        for file in [
            "",
            "cgroup.procs",
            "cgroup.subtree_control",
            "cgroup.threads",
        ] {
            std::os::unix::fs::chown(self.0.join(file), Some(uid), Some(uid))
                .with_context(|| format!("chown {file} of {}", self.0.display()))?;
        }
        Ok(())
    }

    fn groups_in_it(&self) -> Result<BTreeSet<String>> {
        let list = fs::read_dir(&self.0).context("list the group")?;
        Ok(list
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect())
    }

    fn subtree_control(&self) -> Result<String> {
        let text = fs::read_to_string(self.0.join("cgroup.subtree_control"))
            .context("read cgroup.subtree_control")?;
        Ok(text.trim().to_owned())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // What is left in it is the guard's to find.
        if let Err(e) = fs::remove_dir(&self.0) {
            eprintln!("rmdir {}: {e}", self.0.display());
        }
    }
}

/// A loop device over a file of the check's, that goes with it.
struct Loop(String);

impl Loop {
    fn new(c: &Check, mib: u64) -> Result<Self> {
        let file = c.dir().join(c.word("disk"));
        fs::File::create(&file)
            .and_then(|file| file.set_len(mib * MIB))
            .context("make a disk image")?;
        let output = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(&file)
            .output()
            .context("run losetup")?;
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || device.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(unsupported(format!("no loop device: {said}")));
        }
        Ok(Loop(device))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(e) = Command::new("losetup").args(["-d", &self.0]).status() {
            eprintln!("losetup -d {}: {e}", self.0);
        }
    }
}

#[test]
fn the_container_has_a_group_of_its_own() {
    check(|c| {
        let one = c.step().args(["-m", "64m", "--pids-limit", "50"]).hold()?;
        let two = c.step().args(["-m", "64m", "--pids-limit", "50"]).hold()?;
        // Whether it is there in time is another question.
        let settled = |held: &Held| {
            wait_for(|| {
                groups(held)
                    .ok()
                    .filter(|all| all.controller("memory").is_some())
            })
            .map_or_else(|| groups(held), Ok)
        };
        let (first, second, own) = (settled(&one)?, settled(&two)?, own_groups()?);
        for controller in ["memory", "pids"] {
            let Some(dir) = first.controller(controller) else {
                return Err(failed(
                    format!("the container in a group of the {controller} controller"),
                    "it in the root group, or the controller not switched on for its group",
                ));
            };
            expect(
                Some(dir) != own.controller(controller),
                format!("a {controller} group of the container's own"),
                "the launcher's",
            )?;
            expect(
                Some(dir) != second.controller(controller),
                format!("a {controller} group for each container"),
                "one for two",
            )?;
            let inside = cgroup::pids(&dir.join("cgroup.procs"))?;
            expect_eq("the processes in the group", inside, vec![one.pid()?])?;
        }
        let dirs: Vec<PathBuf> = first.dirs().into_iter().map(PathBuf::from).collect();
        one.end()?.success()?;
        let own: Vec<PathBuf> = own.dirs().into_iter().map(PathBuf::from).collect();
        for dir in dirs.iter().filter(|dir| !own.contains(dir)) {
            expect(
                !dir.exists(),
                "the group to be gone with the container",
                format!("{} left behind", dir.display()),
            )?;
        }
        two.end()?.success()?;
        Ok(())
    });
}

#[test]
fn it_is_there_before_its_first_instruction() {
    check(|c| {
        let own = own_groups()?;
        for _ in 0..8 {
            let held = c
                .step()
                .args(["--cgroupns", "host", "-m", "64m", "--pids-limit", "50"])
                .hold()?;
            // What the probe saw before anything else, not what is now.
            for controller in ["memory", "pids"] {
                let then = path_in(&held.seen().cgroup, controller).to_owned();
                let dir = own.controller(controller).map(Path::to_owned);
                let launchers = dir.is_some_and(|dir| dir.ends_with(then.trim_start_matches('/')));
                expect(
                    then != "/" && !launchers,
                    format!("the command in its {controller} group from the start"),
                    format!("{then}: it was moved there when it already ran"),
                )?;
            }
            let limit = groups(&held)?.read("pids.max", "pids.max")?;
            expect_eq(
                "pids.max when the command has just started",
                limit.as_str(),
                "50",
            )?;
            held.end()?.success()?;
        }
        // Where clone3(2) is missing, clone(2) cannot be given a group.
        let program = c.step().command().get_program().to_owned();
        let held = c
            .other_program("probe")
            .args(["without-clone3", "38", "--"])
            .args([program])
            .args(["--cgroupns", "host", "--pids-limit", "50"])
            .hold()?;
        let then = path_in(&held.seen().cgroup, "pids").to_owned();
        let now = groups(&held)?.controller("pids").map(Path::to_owned);
        expect(
            now.is_some_and(|dir| dir.ends_with(then.trim_start_matches('/'))) && then != "/",
            "the command in its pids group from the start without clone3(2) as well",
            then,
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn memory_limits_are_in_the_files() {
    check(|c| {
        let held = c
            .step()
            .args(["-m", "128m", "--memory-reservation", "32m"])
            .hold()?;
        let groups = groups(&held)?;
        let limit = groups.read("memory.limit_in_bytes", "memory.max")?;
        expect_eq("the limit", number("the limit", &limit)?, 128 * MIB)?;
        let kept = groups.read("memory.soft_limit_in_bytes", "memory.low")?;
        expect_eq(
            "the reservation",
            number("the reservation", &kept)?,
            32 * MIB,
        )?;
        let usage = groups.read("memory.usage_in_bytes", "memory.current")?;
        let usage = number("the usage", &usage)?;
        expect(
            usage > 0 && usage <= 128 * MIB,
            "a usage between 0 and the limit",
            usage,
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn swap_is_limited_with_memory() {
    check(|c| {
        for (option, v1, v2) in [
            (None, 128 * MIB, "67108864"),
            (Some("64m"), 64 * MIB, "0"),
            (Some("96m"), 96 * MIB, "33554432"),
            (Some("-1"), u64::MAX, "max"),
        ] {
            let mut args = vec!["-m", "64m"];
            args.extend(option.iter().flat_map(|swap| ["--memory-swap", swap]));
            let held = c.step().args(&args).hold()?;
            let groups = groups(&held)?;
            let dir = groups.controller("memory").map(Path::to_owned);
            let has = |name: &str| dir.as_ref().is_some_and(|dir| dir.join(name).exists());
            if !has("memory.memsw.limit_in_bytes") && !has("memory.swap.max") {
                return Err(unsupported("the kernel does not account for swap"));
            }
            let said = groups.read("memory.memsw.limit_in_bytes", "memory.swap.max")?;
            let what = format!("the limit on swap with {}", args.join(" "));
            if !groups.on_v1("memory") {
                expect_eq(&what, said.as_str(), v2)?;
            } else if v1 == u64::MAX {
                expect(number(&what, &said)? > 1 << 60, format!("no {what}"), said)?;
            } else {
                expect_eq(&what, number(&what, &said)?, v1)?;
            }
            held.end()?.success()?;
        }
        Ok(())
    });
}

#[test]
fn beyond_its_memory_it_is_killed() {
    check(|c| {
        for (limit, asked) in [("100m", "200"), ("50m", "60")] {
            let ran = c
                .step()
                .args(["-m", limit, "--memory-swap", limit, "probe", "alloc", asked])
                .run()?;
            expect(
                ran.status == 137,
                format!("{asked} MiB in a group of {limit} to be killed"),
                format!(
                    "status {}: {}{}",
                    ran.status,
                    ran.stdout.trim(),
                    ran.stderr.trim()
                ),
            )?;
        }
        let ran = c
            .step()
            .args(["-m", "100m", "probe", "alloc", "60"])
            .run()?;
        let attempt: Attempt = ran.success()?.json()?;
        expect_eq("what fits under the limit", attempt.text.as_str(), "60 MiB")
    });
}

#[test]
fn the_oom_killer_is_named() {
    check(|c| {
        let killed = c
            .step()
            .args(["-m", "48m", "--memory-swap", "48m", "probe", "alloc", "80"])
            .run()?
            .expect_status(137)?;
        for word in ["memory", "48m"] {
            expect(
                killed.stderr.contains(word),
                format!("the launcher to say why the command was killed: {word}"),
                format!(
                    "{:?}: 137 alone could be anybody's SIGKILL",
                    killed.stderr.trim()
                ),
            )?;
        }
        let held = c.step().args(["-m", "48m"]).hold()?;
        kill(held.pid()?)?;
        let ran = held.wait()?.expect_status(137)?;
        expect(
            !ran.stderr.contains("memory"),
            "nothing about memory where somebody else sent SIGKILL",
            format!("{:?}", ran.stderr.trim()),
        )
    });
}

#[test]
fn a_reservation_is_kept() {
    check(|c| {
        // Room for 80 MiB, and page cache for more than that.
        let scarce = Made::in_v2(&c.word("scarce"))?;
        if !scarce.0.join("memory.max").exists() {
            return Err(unsupported(
                "the memory controller is not on in the root group of v2",
            ));
        }
        for (file, value) in [
            ("memory.max", "83886080"),
            ("memory.low", "83886080"),
            ("cgroup.subtree_control", "+memory"),
        ] {
            fs::write(scarce.0.join(file), value).with_context(|| format!("write {file}"))?;
        }
        let name = scarce.0.file_name().unwrap_or_default();
        let open = |disk: &Loop| fs::File::open(&disk.0).context("open the disk");
        let start = |disk: &Loop, more: &[&str]| {
            c.step()
                .args(["--cgroup-parent".as_ref(), name])
                .args(["--device", &disk.0])
                .args(more)
                .hold()
        };
        let left = |more: &[&str]| -> Result<u64> {
            // Disks of its own: what is cached already is charged to whoever
            // read it first.
            let (own, others) = (Loop::new(c, 36)?, Loop::new(c, 120)?);
            // The cache of a disk is dropped when nobody has it open any more.
            let _cached = (open(&own)?, open(&others)?);
            let mut one = start(&own, more)?;
            one.ask::<Attempt>(&["read-all", &own.0])?;
            let mut other = start(&others, &[])?;
            other.ask::<Attempt>(&["read-all", &others.0])?;
            let usage = groups(&one)?.read("memory.usage_in_bytes", "memory.current")?;
            one.end()?.success()?;
            other.end()?.success()?;
            Ok(number("the usage", &usage)? / MIB)
        };
        let (without, with) = (left(&[])?, left(&["--memory-reservation", "40m"])?);
        expect(
            with >= 28 && with > without + 8,
            "36 MiB of cache to stay where 40 MiB are reserved",
            format!("{with} MiB left of them, and {without} without a reservation"),
        )?;
        // Below zero nothing is protected, and the group is not ours.
        fs::write(scarce.0.join("memory.low"), "0").context("write memory.low")?;
        c.step()
            .args(["--cgroup-parent".as_ref(), name])
            .args(["--memory-reservation", "40m", "true"])
            .run()?
            .expect_error(125, &["--memory-reservation", "memory.low"])?;
        Ok(())
    });
}

#[test]
fn cpus_are_a_share_of_time() {
    check(|c| {
        let mut held = c.step().args(["--cpus", "0.25"]).hold()?;
        let set = groups(&held)?.read("cpu.cfs_quota_us", "cpu.max")?;
        let quota = set.split(' ').next().unwrap_or_default().to_owned();
        expect_eq("the quota of a period of 100000", quota.as_str(), "25000")?;
        let burnt: Attempt = held.ask(&["burn", "2000"])?;
        let used = number("the CPU time", &burnt.text)?;
        expect(
            (150..900).contains(&used),
            "about 500 ms of CPU time in 2000 ms",
            format!("{used} ms"),
        )?;
        let stat = groups(&held)?.read("cpu.stat", "cpu.stat")?;
        let throttled = stat
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "))
            .unwrap_or("0");
        expect(
            number("nr_throttled", throttled)? > 0,
            "a group that was throttled",
            &stat,
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn shares_divide_what_there_is() {
    check(|c| {
        for (shares, weight) in [("1024", "100"), ("2", "1"), ("262144", "10000")] {
            let held = c.step().args(["--cpu-shares", shares]).hold()?;
            let groups = groups(&held)?;
            let set = groups.read("cpu.shares", "cpu.weight")?;
            let expected = if groups.on_v1("cpu") { shares } else { weight };
            expect_eq(
                &format!("what --cpu-shares {shares} sets"),
                set.as_str(),
                expected,
            )?;
            held.end()?.success()?;
        }
        // Both want all of one CPU, for longer than anybody looks.
        let burn = |shares: &str| {
            c.step()
                .args(["--cpuset-cpus", "0", "--cpu-shares", shares])
                .args(["probe", "burn", "60000"])
                .start()
        };
        let (little, much) = (burn("128")?, burn("2048")?);
        let (little_pid, much_pid) = (computing(&little)?, computing(&much)?);
        let before = (cpu_ticks(little_pid)?, cpu_ticks(much_pid)?);
        std::thread::sleep(Duration::from_millis(2500));
        let little_used = cpu_ticks(little_pid)? - before.0;
        let much_used = cpu_ticks(much_pid)? - before.1;
        for (held, pid) in [(little, little_pid), (much, much_pid)] {
            kill(pid)?;
            held.wait()?.expect_status(137)?;
        }
        expect(
            much_used > little_used * 2,
            "2048 shares to get several times what 128 get",
            format!("{much_used} clock ticks against {little_used}"),
        )
    });
}

#[test]
fn a_cpuset_keeps_it_on_its_cpus() {
    check(|c| {
        let cpu = last_cpu()?.to_string();
        let held = c
            .step()
            .args(["--cpuset-cpus", &cpu, "--cpuset-mems", "0"])
            .hold()?;
        let groups = groups(&held)?;
        expect_eq(
            "cpuset.cpus",
            groups.read("cpuset.cpus", "cpuset.cpus")?.as_str(),
            cpu.as_str(),
        )?;
        let allowed = host::status_field(held.pid()?, "Cpus_allowed_list").unwrap_or_default();
        expect_eq("the CPUs of the process", allowed.as_str(), cpu.as_str())?;
        held.end()?.success()?;
        for (option, id) in [("--cpuset-cpus", "4000"), ("--cpuset-mems", "900")] {
            c.step()
                .args([option, id, "true"])
                .run()?
                .expect_error(125, &[option, id])?;
        }
        Ok(())
    });
}

#[test]
fn a_v1_cpuset_has_cpus_and_nodes() {
    check(|c| {
        if !own_groups()?.on_v1("cpuset") {
            return Err(unsupported(
                "the cpuset controller is not in a v1 hierarchy",
            ));
        }
        for (option, other) in [
            ("--cpuset-cpus", "cpuset.mems"),
            ("--cpuset-mems", "cpuset.cpus"),
        ] {
            let held = c.step().args([option, "0"]).hold()?;
            let groups = groups(&held)?;
            let dir = groups.controller("cpuset").context("a cpuset group")?;
            for dir in [Some(dir), dir.parent()].into_iter().flatten() {
                let text = fs::read_to_string(dir.join(other)).context("read the cpuset")?;
                expect(
                    !text.trim().is_empty(),
                    format!("{other} to be set with {option} 0"),
                    "nothing in it: no process may enter such a group (ENOSPC)",
                )?;
            }
            held.end()?.success()?;
        }
        Ok(())
    });
}

#[test]
fn fork_fails_at_the_limit_on_pids() {
    check(|c| {
        let ran = c
            .step()
            .args(["--pids-limit", "10", "probe", "fork", "40"])
            .run()?;
        let attempt: Attempt = ran.success()?.json()?;
        let forked = number("the forks", &attempt.text)?;
        expect(
            !attempt.allowed && attempt.errno == "EAGAIN" && (4..10).contains(&forked),
            "fork(2) to fail with EAGAIN before there are 10 children",
            format!("{forked} children, {:?}", attempt.errno),
        )?;
        let held = c.step().args(["--pids-limit", "-1"]).hold()?;
        if let Some(dir) = groups(&held)?.controller("pids") {
            let most = fs::read_to_string(dir.join("pids.max")).context("read pids.max")?;
            expect_eq("pids.max with --pids-limit -1", most.trim(), "max")?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn devices_are_denied_but_for_the_usual_ones() {
    check(|c| {
        let refused = |held: &mut Held, path: &str, why: &str| -> Result<()> {
            let attempt: Attempt = held.ask(&["open", path, "r"])?;
            expect(
                !attempt.allowed && attempt.errno == "EPERM",
                format!("{path} to be refused (EPERM)"),
                match attempt.allowed {
                    true => why,
                    false => &attempt.errno,
                },
            )
        };
        let mut held = c.step().hold()?;
        for (path, mode) in [
            ("/dev/null", "rw"),
            ("/dev/zero", "r"),
            ("/dev/urandom", "r"),
            ("/dev/full", "w"),
        ] {
            let attempt: Attempt = held.ask(&["open", path, mode])?;
            expect(
                attempt.allowed,
                format!("{path} to be opened"),
                attempt.errno,
            )?;
        }
        let why = "it open: a rule that allows denies nothing, as long as everything is allowed";
        refused(&mut held, "/dev/kmsg", why)?;
        held.end()?.success()?;
        // A node may be made; it is opening it that gives power. /dev of a new
        // root is the one place where nodes count.
        let rootfs = c.rootfs()?;
        let mut held = c.step().args(["--rootfs"]).args([&rootfs]).hold()?;
        let made: Attempt = held.ask(&["mknod", "/dev/disk"])?;
        expect(made.allowed, "mknod(2) of a disk to be allowed", made.errno)?;
        refused(
            &mut held,
            "/dev/disk",
            "a disk open for whoever can make its node",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_device_is_allowed_as_far_as_asked() {
    check(|c| {
        let ask = |held: &mut Held, path: &str, mode: &str, expected: bool| -> Result<()> {
            let attempt: Attempt = held.ask(&["open", path, mode])?;
            expect(
                attempt.allowed == expected,
                format!(
                    "open({path}, {mode}) to be {}",
                    if expected { "allowed" } else { "refused" }
                ),
                if attempt.allowed {
                    "it allowed"
                } else {
                    &attempt.errno
                },
            )
        };
        let mut held = c.step().args(["--device", "/dev/kmsg:r"]).hold()?;
        ask(&mut held, "/dev/kmsg", "r", true)?;
        ask(&mut held, "/dev/kmsg", "w", false)?;
        ask(&mut held, "/dev/null", "rw", true)?;
        held.end()?.success()?;
        let rootfs = c.rootfs()?;
        let mut held = c
            .step()
            .args([
                "--device",
                "/dev/kmsg:/dev/log-of-the-kernel:rw",
                "--rootfs",
            ])
            .args([&rootfs])
            .hold()?;
        ask(&mut held, "/dev/log-of-the-kernel", "rw", true)?;
        ask(&mut held, "/dev/kmsg", "r", false)?;
        held.end()?.success()?;
        let file = c.dir().join("file");
        fs::write(&file, "").context("write")?;
        for (device, word) in [
            (file.display().to_string(), "device"),
            ("/dev/none".into(), "/dev/none"),
        ] {
            c.step()
                .args(["--device", &device, "true"])
                .run()?
                .expect_error(125, &["--device", word])?;
        }
        Ok(())
    });
}

#[test]
fn disks_are_throttled() {
    check(|c| {
        let disk = Loop::new(c, 8)?;
        let took = |limit: &[&str], dd: &[&str]| -> Result<Duration> {
            let start = Instant::now();
            c.step()
                .args(["--device", &disk.0])
                .args(limit)
                .args(["dd"])
                .args(dd)
                .run()?
                .success()?;
            Ok(start.elapsed())
        };
        let (device, input) = (format!("of={}", disk.0), format!("if={}", disk.0));
        let (bps, iops) = (format!("{}:1m", disk.0), format!("{}:10", disk.0));
        let write = [
            "if=/dev/zero",
            &device,
            "bs=64k",
            "count=48",
            "oflag=direct",
        ];
        let read = [&input, "of=/dev/null", "bs=4k", "count=30", "iflag=direct"];
        for (limit, dd, what) in [
            (
                ["--device-write-bps", &bps],
                &write,
                "3 MiB at 1 MiB a second",
            ),
            (
                ["--device-read-iops", &iops],
                &read,
                "30 reads at 10 a second",
            ),
        ] {
            let without = took(&[], dd)?;
            let with = took(&limit, dd)?;
            expect(
                with > Duration::from_millis(1900) && with > without * 2,
                format!("{what} to take 2 seconds or more ({})", limit.join(" ")),
                format!("{with:?}, and without the limit {without:?}"),
            )?;
        }
        c.step()
            .args(["--device-read-bps", "/dev/null:1m", "true"])
            .run()?
            .expect_error(125, &["/dev/null", "block device"])?;
        Ok(())
    });
}

#[test]
fn a_paused_container_stands_still() {
    check(|c| {
        let burner = c.step().args(["probe", "burn", "60000"]).start()?;
        let pid = computing(&burner)?;
        let name = pid.to_string();
        c.step().args(["pause", &name]).run()?.success()?;
        let before = cpu_ticks(pid)?;
        std::thread::sleep(Duration::from_millis(500));
        expect_eq(
            "CPU time while paused, in ticks",
            cpu_ticks(pid)? - before,
            0,
        )?;
        let shown = c.step().args(["stats", &name]).run()?.success()?.stdout;
        expect(
            shown.contains("paused"),
            "stats to show that it is paused",
            shown,
        )?;
        c.step().args(["resume", &name]).run()?.success()?;
        expect(
            wait_for(|| (cpu_ticks(pid).ok()? > before + 2).then_some(())).is_some(),
            "it to go on when it is resumed",
            "no progress in ten seconds",
        )?;
        let own = std::process::id().to_string();
        c.step().args(["pause", &own]).run()?.expect_status(125)?;
        kill(pid)?;
        burner.wait()?.expect_status(137)?;
        Ok(())
    });
}

#[test]
fn stats_tell_what_was_used() {
    check(|c| {
        let mut held = c
            .step()
            .args(["-m", "64m", "--cpus", "0.25", "--pids-limit", "77"])
            .hold()?;
        held.ask::<Attempt>(&["burn", "1000"])?;
        let pid = held.pid()?.to_string();
        let text = c.step().args(["stats", &pid]).run()?.success()?.stdout;
        let line = |what: &str| -> Result<String> {
            text.lines()
                .find_map(|line| Some(line.strip_prefix(what)?.trim().to_owned()))
                .ok_or_else(|| failed(format!("a line on {what:?} from stats"), &text))
        };
        let memory = line("memory ")?;
        expect(
            memory.ends_with("of 67108864"),
            "the memory used, and its limit in bytes",
            memory,
        )?;
        let pids = line("pids ")?;
        expect(
            pids.ends_with("of 77"),
            "the processes, and their limit",
            pids,
        )?;
        let throttled = line("throttled ")?;
        expect(
            !throttled.starts_with("in 0 "),
            "how often it was throttled",
            throttled,
        )?;
        expect_eq("the OOM kills", line("oom kills ")?.as_str(), "0")?;
        let cpu = line("cpu ")?;
        let seconds: f64 = cpu.split(' ').next().unwrap_or("").parse().unwrap_or(0.0);
        expect(seconds > 0.05, "the CPU time in seconds", cpu)?;
        let name = line("group ")?;
        let table = c.step().args(["stats"]).run()?.success()?.stdout;
        expect(
            table.contains(&name),
            format!("{name} in the table of all"),
            table,
        )?;
        let top = c.step().args(["top"]).run()?.success()?.stdout;
        expect(top.contains(&name), format!("{name} in top, once"), top)?;
        c.step().args(["stats", &name]).run()?.success()?;
        c.step()
            .args(["stats", "no-such-group"])
            .run()?
            .expect_error(125, &["no-such-group"])?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn its_own_group_is_the_root_it_sees() {
    check(|c| {
        let private = c.step().args(["-m", "64m", "--pids-limit", "50"]).hold()?;
        let own = host::namespaces("self")?["cgroup"];
        expect(
            private.seen().namespaces["cgroup"] != own,
            "a cgroup namespace of its own",
            "the host's",
        )?;
        for controller in ["memory", "pids"] {
            let path = path_in(&private.seen().cgroup, controller);
            expect(
                path == "/",
                format!("/proc/self/cgroup to show / for {controller}"),
                format!("{path}: CLONE_NEWCGROUP takes the caller's group as the root"),
            )?;
        }
        let container = format!("container:{}", private.pid()?);
        let joined = c.step().args(["--cgroupns", &container]).probe()?;
        expect_eq(
            "the cgroup namespace with --cgroupns container:PID",
            joined.namespaces["cgroup"],
            private.seen().namespaces["cgroup"],
        )?;
        private.end()?.success()?;
        let shared = c.step().args(["--cgroupns", "host", "-m", "64m"]).hold()?;
        expect_eq(
            "the cgroup namespace with --cgroupns host",
            shared.seen().namespaces["cgroup"],
            own,
        )?;
        let path = path_in(&shared.seen().cgroup, "memory").to_owned();
        let groups = groups(&shared)?;
        let dir = groups
            .controller("memory")
            .map(Path::to_owned)
            .unwrap_or_default();
        expect(
            path != "/" && dir.ends_with(path.trim_start_matches('/')),
            "the group as the host sees it",
            path,
        )?;
        shared.end()?.success()?;
        Ok(())
    });
}

#[test]
fn it_sees_its_limits_and_cannot_change_them() {
    check(|c| {
        let rootfs = c.rootfs()?;
        let mut held = c
            .step()
            .args(["-m", "64m", "--rootfs"])
            .args([&rootfs])
            .hold()?;
        let v2_alone = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let file = match own_groups()?.on_v1("memory") {
            true => "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            false if v2_alone => "/sys/fs/cgroup/memory.max",
            false => "/sys/fs/cgroup/unified/memory.max",
        };
        let seen: Attempt = held.ask(&["read", file])?;
        expect(
            seen.text.trim() == "67108864",
            format!("its own limit in {file}"),
            format!("{:?} {}", seen.text.trim(), seen.errno),
        )?;
        let written: Attempt = held.ask(&["write", file, "134217728"])?;
        expect(
            !written.allowed,
            "its limit to be out of its reach",
            format!("{file} writable: /sys/fs/cgroup is to be mounted read-only"),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn what_is_left_in_the_group_is_ended() {
    check(|c| {
        let mut held = c.step().args(["--pid", "host"]).hold()?;
        let sleeper: Attempt = held.ask(&["sleeper"])?;
        let pid = number("the PID of the orphan", &sleeper.text)? as i32;
        let group = groups(&held)?;
        let dir = group.dirs().first().map(|dir| dir.join("cgroup.procs"));
        let in_group = dir
            .as_deref()
            .map(cgroup::pids)
            .transpose()?
            .unwrap_or_default();
        expect(
            in_group.contains(&pid),
            "a child in its parent's group",
            format!("{in_group:?} without {pid}"),
        )?;
        held.end()?.success()?;
        let state = host::process(pid).map(|process| process.state);
        expect(
            state.is_none_or(|state| state == 'Z'),
            "what the command left running to be ended with its group",
            format!("process {pid} in state {state:?}"),
        )
    });
}

#[test]
fn the_next_run_removes_what_a_killed_launcher_left() {
    check(|c| {
        // On v1 a hierarchy of its own, which the next run does not need.
        let held = c.step().args(["-m", "64m", "--cpuset-cpus", "0"]).hold()?;
        let other = c.step().args(["-m", "64m"]).hold()?;
        let its = groups(&held)?;
        let dirs = ["memory", "cpuset"].map(|name| its.controller(name).map(Path::to_owned));
        let others = groups(&other)?.controller("memory").map(Path::to_owned);
        let pid = held.pid()?;
        held.signal(Signal::SIGKILL)?;
        held.wait()?.expect_status(137)?;
        wait_for(|| {
            host::process(pid)
                .is_none_or(|p| p.state == 'Z')
                .then_some(())
        });
        c.step().args(["true"]).run()?.success()?;
        for dir in dirs {
            let dir = dir.ok_or_else(|| failed("a memory and a cpuset group", "none"))?;
            expect(
                !dir.exists(),
                "the next run to remove the groups of a launcher that was killed",
                format!("{} still there", dir.display()),
            )?;
        }
        expect(
            others.is_some_and(|dir| dir.exists()) && host::process(other.pid()?).is_some(),
            "a container whose launcher lives to be left alone",
            "its group gone",
        )?;
        other.end()?.success()?;
        Ok(())
    });
}

#[test]
fn a_limit_that_cannot_be_set_is_an_error() {
    check(|c| {
        let uid = 20_000 + c.number(20_000) as u32;
        called_by(c, uid, None)?
            .args(["-m", "64m", "true"])
            .run()?
            .expect_error(125, &["--memory"])?;
        called_by(c, uid, None)?.args(["true"]).run()?.success()?;
        let said = called_by(c, uid, None)?
            .args(["-v", "true"])
            .run()?
            .success()?;
        expect(
            said.stderr.contains("warning"),
            "a warning under -v that there is no control group",
            said.stderr,
        )?;
        let read_only = |args: &[&str]| {
            let program = c.step().command().get_program().to_owned();
            c.other_program("probe")
                .args(["read-only-groups", "--"])
                .args([program])
                .args(args)
                .run()
        };
        read_only(&["--pids-limit", "50", "true"])?
            .expect_error(125, &["--pids-limit 50", "read-only"])?;
        Ok(())
    });
}

#[test]
fn a_delegated_subtree_is_enough() {
    check(|c| {
        let uid = 20_000 + c.number(20_000) as u32;
        let given = Made::in_v2(&c.word("given"))?;
        given.delegate(uid)?;
        let has = fs::read_to_string(given.0.join("cgroup.controllers")).context("read")?;
        if !has.split_whitespace().any(|word| word == "memory") {
            return Err(unsupported(
                "the memory controller is not on in the root group of v2",
            ));
        }
        let held = called_by(c, uid, Some(&given.0))?
            .args(["-m", "64m"])
            .hold()?;
        let groups = groups(&held)?;
        let limit = groups.read("memory.limit_in_bytes", "memory.max")?;
        expect_eq(
            "the limit of an ordinary user's container",
            limit.as_str(),
            "67108864",
        )?;
        let dir = groups.v2().map(Path::to_owned).unwrap_or_default();
        expect(
            dir.starts_with(&given.0) && dir != given.0,
            format!("the group below {}", given.0.display()),
            dir.display(),
        )?;
        held.end()?.success()?;
        let left = given.groups_in_it()?;
        expect(
            left.is_empty(),
            "the subtree as it was",
            format!("{left:?} in it"),
        )?;
        let on = given.subtree_control()?;
        expect(
            on.is_empty(),
            "no controller switched on in it any more",
            format!("{on:?} in cgroup.subtree_control"),
        )
    });
}

#[test]
fn foreign_groups_are_left_alone() {
    check(|c| {
        let theirs = Made::in_v2(&c.word("theirs"))?;
        let name = theirs
            .0
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let ran = c
            .step()
            .args(["--cgroup-parent", &name, "--pids-limit", "50", "true"])
            .run()?;
        let on = theirs.subtree_control()?;
        expect(
            on.is_empty(),
            "cgroup.subtree_control of somebody else's group untouched",
            format!("{on:?} in it"),
        )?;
        ran.expect_error(125, &["pids", &name])?;
        let has = fs::read_to_string(theirs.0.join("cgroup.controllers")).context("read")?;
        if has.split_whitespace().any(|word| word == "pids") {
            fs::write(theirs.0.join("cgroup.subtree_control"), "+pids").context("+pids")?;
            let held = c
                .step()
                .args(["--cgroup-parent", &name, "--pids-limit", "50"])
                .hold()?;
            let dir = groups(&held)?.v2().map(Path::to_owned).unwrap_or_default();
            expect_eq(
                "the group above the container's",
                dir.parent(),
                Some(theirs.0.as_path()),
            )?;
            held.end()?.success()?;
            expect_eq(
                "what is on in it",
                theirs.subtree_control()?.as_str(),
                "pids",
            )?;
        }
        Ok(())
    });
}

#[test]
fn ten_containers_at_once() {
    check(|c| {
        let mut all = Vec::new();
        for n in 0..10 {
            let limit = (100 + n).to_string();
            all.push(c.step().args(["--pids-limit", &limit]).start_holding()?);
        }
        for (n, held) in all.iter_mut().enumerate() {
            held.wait_until_held()?;
            let most = groups(held)?.read("pids.max", "pids.max")?;
            expect_eq("the limit of each", most, (100 + n).to_string())?;
        }
        for held in all {
            held.end()?.success()?;
        }
        // Some begin while others end.
        for _ in 0..3 {
            let mut all = Vec::new();
            for _ in 0..6 {
                all.push(c.step().args(["true"]).start()?);
            }
            for held in all {
                held.end()?.success()?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_hierarchy_can_be_made_without_a_controller() {
    check(|c| {
        let name = c.word("learn");
        let run = |args: &[&str]| -> Result<String> {
            Ok(c.step()
                .args(["hierarchy"])
                .args(args)
                .run()?
                .success()?
                .stdout)
        };
        let place = |pid: i32| -> Result<String> {
            let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).context("read cgroup")?;
            let named = format!(":name={name}:");
            let line = text.lines().find_map(|line| line.split_once(&named));
            Ok(line.map_or("none", |(_, path)| path).to_owned())
        };
        // Started before it is made: a mount namespace that is made later would
        // have it too, and keep it.
        let mut held = c.step().args(["--pid", "host"]).hold()?;
        let pid = held.pid()?;
        let made = c.step().args(["hierarchy", "make", &name]).run()?;
        if made.stderr.contains("cgroup_no_v1") {
            return Err(unsupported(
                "v1 hierarchies are switched off (cgroup_no_v1)",
            ));
        }
        made.success()?;
        expect_eq(
            "where everybody is in a new hierarchy",
            place(pid)?.as_str(),
            "/",
        )?;
        run(&["group", &name, "a/b"])?;
        run(&["move", &name, "a", &pid.to_string()])?;
        expect_eq("where the process is", place(pid)?.as_str(), "/a")?;
        let child: Attempt = held.ask(&["sleeper"])?;
        let child = number("the child's PID", &child.text)? as i32;
        expect_eq("where its child begins", place(child)?.as_str(), "/a")?;
        run(&["move", &name, "/a/b", &child.to_string(), "--thread"])?;
        expect_eq(
            "where its child is moved to",
            place(child)?.as_str(),
            "/a/b",
        )?;
        expect_eq("where the process still is", place(pid)?.as_str(), "/a")?;
        let listed = run(&["ls", &name])?;
        expect(
            listed.lines().any(|line| line == format!("/a/b: {child}")),
            "the groups with their processes",
            listed,
        )?;
        run(&["rm", &name])?;
        expect_eq(
            "the hierarchy of the process afterwards",
            place(pid)?.as_str(),
            "none",
        )?;
        expect(
            host::process(child).is_some(),
            "the process to live on",
            "none",
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn the_four_rules_are_tried() {
    check(|c| {
        let before = fs::read_to_string("/proc/cgroups").context("read /proc/cgroups")?;
        let text = c
            .step()
            .args(["hierarchy", "rules"])
            .run()?
            .success()?
            .stdout;
        for rule in ["rule 1", "rule 2", "rule 3", "rule 4"] {
            expect(text.contains(rule), format!("{rule} to be tried"), &text)?;
        }
        for answer in ["allowed", "refused: EBUSY"] {
            expect(
                text.contains(answer),
                format!("the kernel's answer {answer:?}"),
                &text,
            )?;
        }
        let free = |text: &str| -> BTreeSet<String> {
            text.lines()
                .filter(|line| line.split_whitespace().nth(1) == Some("0"))
                .filter_map(|line| line.split_whitespace().next().map(String::from))
                .collect()
        };
        let after = wait_for(|| {
            let now = fs::read_to_string("/proc/cgroups").ok()?;
            (free(&now) == free(&before)).then_some(())
        });
        expect(
            after.is_some(),
            "the controllers to be free again",
            fs::read_to_string("/proc/cgroups").unwrap_or_default(),
        )?;
        let groups = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        let left: Vec<&str> = groups
            .lines()
            .filter(|line| line.contains("rules"))
            .collect();
        expect(
            left.is_empty(),
            "no hierarchy left behind",
            format!("{left:?}"),
        )?;
        let listed = c
            .step()
            .args(["hierarchy", "controllers"])
            .run()?
            .success()?
            .stdout;
        // Not memory: a kernel may have it for v2 only.
        for controller in ["pids", "cpu"] {
            expect(
                listed.contains(controller),
                format!("{controller} in the list"),
                &listed,
            )?;
        }
        Ok(())
    });
}

#[test]
fn what_makes_no_sense_is_refused() {
    check(|c| {
        let cpus = (last_cpu()? + 2).to_string();
        for (args, words) in [
            (vec!["-m", "1m"], ["--memory 1m", "6m"]),
            (
                vec!["-m", "64m", "--memory-swap", "32m"],
                ["--memory-swap 32m", "64m"],
            ),
            (vec!["--memory-swap", "64m"], ["--memory-swap", "--memory"]),
            (
                vec!["-m", "64m", "--memory-reservation", "65m"],
                ["--memory-reservation", "64m"],
            ),
            (vec!["--cpus", &cpus], ["--cpus", &cpus]),
            (vec!["--cpus", "0.001"], ["--cpus", "0.001"]),
            (vec!["--cpu-shares", "1"], ["--cpu-shares", "2"]),
            (vec!["--blkio-weight", "5"], ["--blkio-weight", "10"]),
            (vec!["--cgroup-parent", "../x"], ["--cgroup-parent", "../x"]),
        ] {
            c.step()
                .args(&args)
                .args(["true"])
                .run()?
                .expect_error(125, &words)?;
        }
        for args in [["-m", "much"], ["--cpus", "half"], ["--cpuset-cpus", "0-"]] {
            let ran = c
                .step()
                .args(args)
                .args(["true"])
                .run()?
                .expect_status(125)?;
            expect(
                ran.stderr.contains(args[1]),
                format!("the value {:?} to be named", args[1]),
                ran.stderr,
            )?;
        }
        Ok(())
    });
}

#[test]
fn devices_that_cannot_be_limited_are_an_error() {
    check(|c| {
        let read_only = |args: &[&str]| {
            let program = c.step().command().get_program().to_owned();
            c.other_program("probe")
                .args(["read-only-groups", "--"])
                .args([program])
                .args(args)
                .run()
        };
        let ran = read_only(&["true"])?;
        expect(
            ran.status == 125,
            "a launch without a devices group to be refused (125)",
            format!(
                "status {:?}: root inside may open every device of the host, and nobody was told",
                ran.status
            ),
        )?;
        ran.expect_error(125, &["devices", "--device-cgroup-rule"])?;
        let ran = read_only(&["--device-cgroup-rule", "a *:* rwm", "true"])?.success()?;
        expect(
            ran.stderr.contains("warning: cgroups: no control group"),
            "a warning, without -v, that there is no control group",
            ran.stderr,
        )?;
        let mut held = c.step().args(["--device-cgroup-rule", "c 1:11 r"]).hold()?;
        for (mode, allowed) in [("r", true), ("w", false)] {
            let kmsg: Attempt = held.ask(&["open", "/dev/kmsg", mode])?;
            expect_eq(
                &format!("whether /dev/kmsg opens with {mode}"),
                kmsg.allowed,
                allowed,
            )?;
        }
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn zero_is_no_limit() {
    check(|c| {
        for options in [
            &["-m", "0"][..],
            &["-m", "64m", "--memory-swap", "0"],
            &["-m", "0", "--memory-swap", "-1"],
            &["--memory-reservation", "0"],
            &["--cpus", "0"],
            &["--cpu-shares", "0"],
            &["--cpu-quota", "0", "--cpu-period", "0"],
            &["--cpu-quota", "-1"],
            &["--cpuset-cpus", ""],
            &["--pids-limit", "0"],
            &["--blkio-weight", "0"],
        ] {
            let ran = c.step().args(options).args(["true"]).run()?;
            expect(
                ran.status == 0,
                format!("{options:?} to be no limit, as compose files write it"),
                ran.stderr.trim(),
            )?;
        }
        c.step()
            .args(["-m", "0", "--memory-swap", "64m", "true"])
            .run()?
            .expect_error(125, &["--memory-swap"])?;
        Ok(())
    });
}

#[test]
fn what_a_dead_launcher_left_running_is_killed() {
    check(|c| {
        let mut held = c.step().hold()?;
        let group = groups(&held)?;
        let dirs: Vec<PathBuf> = group.dirs().into_iter().map(Path::to_owned).collect();
        // PR_SET_PDEATHSIG is not inherited: the sleeper outlives everybody.
        let _: Attempt = held.ask(&["sleeper"])?;
        let procs = dirs.first().context("no group")?.join("cgroup.procs");
        let inside = fs::read_to_string(&procs).with_context(|| format!("read {procs:?}"))?;
        // Frozen besides, as by `pause`: what is frozen does not die.
        let frozen = dirs
            .iter()
            .map(|dir| dir.join("freezer.state"))
            .find(|file| file.exists());
        let (file, word, thaw) = match (frozen, group.v2()) {
            (Some(file), _) => (file, "FROZEN", "THAWED"),
            (None, Some(v2)) => (v2.join("cgroup.freeze"), "1", "0"),
            (None, None) => return Err(failed("a group that can be frozen", "none")),
        };
        fs::write(&file, word).with_context(|| format!("write {file:?}"))?;
        let launcher = held.launcher();
        held.signal(Signal::SIGKILL)?;
        // Its pipes are open as long as those live who are frozen.
        wait_for(|| {
            let gone = host::process(launcher).is_none_or(|process| process.state == 'Z');
            gone.then_some(())
        });
        let next = c.step().args(["true"]).run();
        let alive: Vec<_> = inside
            .lines()
            .filter_map(|pid| host::process(pid.parse().ok()?))
            .filter(|process| process.state != 'Z')
            .map(|process| format!("{} {}", process.pid, process.comm))
            .collect();
        // Who is frozen cannot be waited for either.
        fs::write(&file, thaw).ok();
        expect(
            inside.lines().count() > 1 && alive.is_empty(),
            "the next run to kill what a dead launcher's group holds",
            format!("{alive:?} of {:?}", inside.split_whitespace()),
        )?;
        next?.success()?;
        let left: Vec<_> = dirs.iter().filter(|dir| dir.exists()).collect();
        expect(
            left.is_empty(),
            "its groups to be gone",
            format!("{left:?}"),
        )?;
        held.wait()?.expect_status(137).map(drop)
    });
}
