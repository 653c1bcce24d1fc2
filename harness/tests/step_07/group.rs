//! The group of a container: made, left, swept.

use std::fs;
use std::path::{Path, PathBuf};

use check::cgroup;
use check::prelude::*;

use crate::common::{Made, groups, number, own_groups, path_in};

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
                    "it in the root group, or the controller not enabled for its group",
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
            "processes that the command left running to be killed with its group",
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
        // A group of somebody else, whose name begins like ours.
        let like_ours = others
            .as_deref()
            .and_then(Path::parent)
            .map(|dir| dir.join("drydock-others"))
            .ok_or_else(|| failed("a group of the container", "none"))?;
        let like_ours = Made::at(like_ours)?;
        c.step().args(["true"]).run()?.success()?;
        expect(
            like_ours.0.exists(),
            "a group of somebody else, whose name begins like ours, to be left alone",
            format!("{} gone", like_ours.0.display()),
        )?;
        drop(like_ours);
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
            .collect();
        // Who is frozen cannot be waited for either.
        fs::write(&file, thaw).ok();
        expect(
            inside.lines().count() > 1 && alive.is_empty(),
            "the next run to kill what a dead launcher's group holds",
            format!("{} of its processes alive", alive.len()),
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
