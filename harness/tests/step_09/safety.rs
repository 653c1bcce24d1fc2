//! What a container may not, unless it is privileged.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use check::prelude::*;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::engine::Engine;

/// Docker's fourteen.
const KEPT: u64 = 0xa804_25fb;

#[test]
fn capabilities_are_dropped_from_every_set() {
    check(|c| {
        let engine = Engine::new(c)?;
        for init in [&[][..], &["--init"]] {
            let held = engine.run(init).args([engine.image()]).hold()?;
            for (set, expected) in [
                ("CapBnd", KEPT),
                ("CapPrm", KEPT),
                ("CapEff", KEPT),
                ("CapInh", 0),
                ("CapAmb", 0),
            ] {
                let found = held.seen().capabilities.get(set).copied().unwrap_or(!0);
                expect(
                    found == expected,
                    format!("{set} to be {expected:016x}"),
                    format!("{found:016x}: what is in one set comes back into others by execve"),
                )?;
                // With --init this is the init, without it the probe.
                let first = host::status_field(held.pid()?, set).unwrap_or_default();
                expect_eq(
                    &format!("{set} of the container's first process"),
                    u64::from_str_radix(&first, 16).ok(),
                    Some(expected),
                )?;
            }
            held.end()?.success()?;
        }
        let seen = engine.run(&["-u", "1000"]).args([engine.image()]).probe()?;
        let found = |set: &str| seen.capabilities.get(set).copied();
        expect_eq("CapEff of a user", found("CapEff"), Some(0))?;
        expect_eq("CapBnd of a user", found("CapBnd"), Some(KEPT))
    });
}

#[test]
fn there_are_no_new_privileges() {
    check(|c| {
        let engine = Engine::new(c)?;
        let held = engine.run(&[]).args([engine.image()]).hold()?;
        expect_eq(
            "NoNewPrivs",
            host::status_field(held.pid()?, "NoNewPrivs").as_deref(),
            Some("1"),
        )?;
        held.end()?.success()?;
        Ok(())
    });
}

#[test]
fn the_kernel_is_masked_and_read_only() {
    check(|c| {
        let engine = Engine::new(c)?;
        let mut held = engine.run(&[]).args([engine.image()]).hold()?;
        let kcore: Attempt = held.ask(&["read", "/proc/kcore"])?;
        expect(
            kcore.text.is_empty(),
            "/proc/kcore to be covered",
            "the memory of the kernel",
        )?;
        for path in [
            "/proc/sys/kernel/core_pattern",
            "/proc/irq/default_smp_affinity",
        ] {
            let written: Attempt = held.ask(&["open", path, "w"])?;
            expect_eq(
                &format!("what comes of writing to {path}"),
                written.errno.as_str(),
                "EROFS",
            )?;
        }
        let sys = held.seen().mount("/sys").map(|sys| sys.options.clone());
        expect(
            sys.as_ref().is_some_and(|o| o.iter().any(|o| o == "ro")),
            "/sys to be read-only",
            format!("{sys:?}"),
        )?;
        let mounted: Attempt = held.ask(&["mount", "/tmp"])?;
        expect(!mounted.allowed, "mount(2) to be refused", "that it is not")?;
        held.end()?.success()?;
        Ok(())
    });
}

/// The nodes of devices in the host's /dev, except the console's, of which a
/// container with a terminal has its own.
fn host_devices() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/dev").context("read /dev")? {
        let entry = entry.context("read /dev")?;
        let kind = entry.file_type().context("stat in /dev")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if (kind.is_char_device() || kind.is_block_device()) && name != "console" {
            names.push(name);
        }
    }
    Ok(names)
}

#[test]
fn privileged_lifts_it_all() {
    check(|c| {
        let engine = Engine::new(c)?;
        let mut held = engine
            .run(&["--privileged"])
            .args([engine.image()])
            .hold()?;
        let own = host::status_field(std::process::id() as i32, "CapEff").unwrap_or_default();
        let first = host::status_field(held.pid()?, "CapEff").unwrap_or_default();
        expect_eq("CapEff", first, own)?;
        expect_eq(
            "NoNewPrivs",
            host::status_field(held.pid()?, "NoNewPrivs").as_deref(),
            Some("0"),
        )?;
        let mounted: Attempt = held.ask(&["mount", "/tmp"])?;
        expect(mounted.allowed, "mount(2) to be allowed", &mounted.errno)?;
        let sys = held.seen().mount("/sys").map(|sys| sys.options.clone());
        expect(
            sys.as_ref().is_some_and(|o| o.iter().any(|o| o == "rw")),
            "/sys to be writable",
            format!("{sys:?}"),
        )?;
        held.end()?.success()?;
        let listed = engine
            .run(&["--privileged"])
            .args([engine.image(), "ls", "/dev"])
            .run()?
            .success()?
            .stdout;
        let theirs: Vec<&str> = listed.lines().collect();
        let missing: Vec<String> = host_devices()?
            .into_iter()
            .filter(|name| !theirs.contains(&name.as_str()))
            .collect();
        expect(
            missing.is_empty(),
            "the nodes of all devices of the host in /dev",
            format!("all but {missing:?}"),
        )?;
        Ok(())
    });
}

#[test]
fn no_descriptor_of_the_host_gets_in() {
    check(|c| {
        let engine = Engine::new(c)?;
        // As a careless caller leaves one behind: open, and not close-on-exec.
        let directory = File::open("/").context("open(/)")?;
        fcntl(&directory, FcntlArg::F_SETFD(FdFlag::empty())).context("fcntl(F_SETFD)")?;
        let number = directory.as_raw_fd();
        let seen = engine.run(&[]).args([engine.image()]).probe()?;
        let fds: Vec<i32> = seen.fds.keys().copied().collect();
        expect(
            fds == [0, 1, 2],
            "the three standard streams and no other descriptor",
            format!("{:?}", seen.fds),
        )?;
        // And as an image would ask for it (CVE-2024-21626).
        let path = format!("/proc/self/fd/{number}");
        let ran = engine
            .run(&["-w", &path])
            .args([engine.image(), "ls"])
            .run()?;
        expect(
            ran.status == 125 && !ran.stdout.contains("lost+found"),
            "a working directory outside of the container to be refused",
            format!("status {}, {:?}", ran.status, ran.stdout),
        )
    });
}

#[test]
fn limits_on_a_process_are_set() {
    check(|c| {
        let engine = Engine::new(c)?;
        let ran = engine
            .run(&["--ulimit", "nofile=123:456", "--ulimit", "core=0"])
            .args([
                engine.image(),
                "sh",
                "-c",
                "ulimit -n; ulimit -Hn; ulimit -c",
            ])
            .run()?
            .success()?;
        expect_eq(
            "the limits",
            ran.stdout.split_whitespace().collect::<Vec<_>>(),
            vec!["123", "456", "0"],
        )?;
        engine
            .run(&["--ulimit", "files=1"])
            .args([engine.image(), "true"])
            .run()?
            .expect_status(125)?;
        Ok(())
    });
}

#[test]
fn a_limit_cannot_be_lifted_from_inside() {
    check(|c| {
        let engine = Engine::new(c)?;
        // Root in a new user namespace may mount its own control group,
        // writable, and is the owner of the files in it.
        for init in [&[][..], &["--init"]] {
            let options = [&["-m", "64m"], init].concat();
            let mut held = engine.run(&options).args([engine.image()]).hold()?;
            let made: Attempt = held.ask(&["unshare-user"])?;
            expect(
                !made.allowed && made.errno == "EPERM",
                "a user namespace to be refused in a container (EPERM)",
                format!(
                    "{:?}: with a cgroup namespace in it root inside lifts every limit",
                    made.errno
                ),
            )?;
            expect_eq(
                "Seccomp of the container's first process",
                host::status_field(held.pid()?, "Seccomp").as_deref(),
                Some("2"),
            )?;
            held.end()?.success()?;
        }
        for options in [
            &["--privileged"][..],
            &["--security-opt", "seccomp=unconfined"],
        ] {
            let mut held = engine.run(options).args([engine.image()]).hold()?;
            let made: Attempt = held.ask(&["unshare-user"])?;
            expect(
                made.allowed,
                format!("one to be allowed with {options:?}"),
                made.errno,
            )?;
            held.end()?.success()?;
        }
        Ok(())
    });
}

#[test]
fn nothing_of_the_caller_gets_in() {
    check(|c| {
        let engine = Engine::new(c)?;
        let key = c.word("key");
        let odd = |step: &Step| {
            let launcher = step.command();
            let mut odd = c
                .other_program("probe")
                .args(["odd-caller", &key, "--"])
                .args([launcher.get_program()])
                .args(launcher.get_args());
            for (name, value) in launcher.get_envs() {
                odd = odd.env(name, value.unwrap_or_default());
            }
            odd
        };
        let made = c.dir().join("made");
        let bind = format!("{}:/made", made.display());
        let script = "umask; cat /proc/self/oom_score_adj /proc/self/personality; \
                      stat -c %a /made /volume /work /work/dir; cat /proc/self/status; true";
        let options = ["-v", &bind, "-v", "/volume", "-w", "/work/dir"];
        let run = engine.run(&options);
        let ran = odd(&run.args([engine.image(), "sh", "-c", script]))
            .run()?
            .success()?;
        let lines: Vec<&str> = ran.stdout.lines().collect();
        for (line, (what, expected)) in lines.iter().zip([
            ("the umask", "0022"),
            ("oom_score_adj", "0"),
            ("the personality", "00000000"),
            ("the mode of a directory that was made on the host", "755"),
            ("the mode of a volume", "755"),
            ("the mode of a directory above the working directory", "755"),
            ("the mode of the working directory", "755"),
        ]) {
            expect(
                *line == expected,
                format!("{what} to be {expected}, whoever calls"),
                format!("{line}, the caller's"),
            )?;
        }
        for field in ["SigIgn", "SigBlk", "CapInh", "CapAmb"] {
            let found = lines.iter().find_map(|line| line.strip_prefix(field));
            expect_eq(field, found, Some(":\t0000000000000000"))?;
        }
        // The keyring: with all rights, so that the kernel answers.
        for options in [
            &["--privileged"][..],
            &["--security-opt", "seccomp=unconfined"],
        ] {
            let run = engine.run(options);
            let run = run.args([engine.image(), "probe", "find-key", &key]);
            let found: Attempt = odd(&run).run()?.success()?.json()?;
            expect(
                !found.allowed && found.errno == "ENOKEY",
                format!("another session keyring than the caller's with {options:?}"),
                format!(
                    "{:?}: fork(2) and execve(2) hand the caller's on",
                    found.errno
                ),
            )?;
        }
        let run = engine
            .run(&[])
            .args([engine.image(), "probe", "find-key", &key]);
        let found: Attempt = odd(&run).run()?.success()?.json()?;
        expect_eq("keyctl(2) in a container", found.errno.as_str(), "EPERM")
    });
}

#[test]
fn a_keyring_that_cannot_be_left_is_an_error() {
    check(|c| {
        let engine = Engine::new(c)?;
        let run = |options: &[&str]| {
            let step = engine.run(options).args([engine.image(), "true"]).command();
            let mut without = c
                .other_program("probe")
                .args(["without-keyctl", "--"])
                .args([step.get_program()])
                .args(step.get_args());
            for (name, value) in step.get_envs() {
                without = without.env(name, value.unwrap_or_default());
            }
            without.run()
        };
        let ran = run(&[])?;
        expect(
            ran.status == 125,
            "no container where its own session keyring is refused",
            format!(
                "status {:?}: the caller's keys are within reach, and nobody was told",
                ran.status
            ),
        )?;
        ran.expect_error(125, &["keyctl", "--no-new-keyring"])?;
        run(&["--no-new-keyring"])?.success()?;
        Ok(())
    });
}

/// The parts of the launch, from -v, with what the child holds after each.
fn held_after(stderr: &str) -> Vec<(String, Vec<String>)> {
    let mut part = String::from("birth");
    let mut found = Vec::new();
    for line in stderr
        .lines()
        .filter_map(|line| line.split_once("] "))
        .map(|(_, said)| said)
    {
        if let Some(name) = line.strip_prefix("in_container ") {
            part = name.to_owned();
        } else if line == "start" {
            part = "before_exec".to_owned();
        } else if let Some(list) = line.strip_prefix("holds ") {
            let names = list
                .split(", ")
                .filter_map(|fd| Some(fd.split_once(' ')?.1.to_owned()));
            found.push((part.clone(), names.collect()));
        }
    }
    found
}

#[test]
fn nothing_of_the_host_is_held_when_the_image_has_a_say() {
    check(|c| {
        let engine = Engine::new(c)?;
        let (image, volume) = (engine.image(), c.word("volume"));
        let mount = format!("{volume}:/data");
        let ways: [&[&str]; 4] = [
            &["-m", "64m"],
            &["--init", "-v", &mount],
            &["--privileged", "--pid", "host"],
            &["-t"],
        ];
        for options in ways {
            let ran = engine
                .tool(["--verbose", "run", "--rm", "--network", "none"])
                .args(options)
                .args([image, "true"])
                .run()?
                .success()?;
            // With a terminal the child's last words are in that.
            let parts = held_after(&(ran.stderr + &ran.stdout));
            let own = |name: &String| {
                ["pipe:", "socket:", "/memfd:", "/dev/pts/"]
                    .iter()
                    .any(|kind| name.starts_with(kind))
            };
            // The layers are the container's: a mount that is not in the host's
            // tree. The v1 files are entered first, and end there.
            let explained = |name: &String| own(name) || name == "/" || name.ends_with("/tasks");
            let after = parts
                .iter()
                .position(|(part, _)| part == "union")
                .unwrap_or_default();
            expect(
                parts.len() > 10 && after > 0,
                "-v to say what the child holds after each part",
                format!("{parts:?}"),
            )?;
            for (n, (part, names)) in parts.iter().enumerate() {
                let wrong: Vec<&String> = names
                    .iter()
                    .filter(|name| {
                        !if n < after {
                            explained(name)
                        } else {
                            own(name)
                        }
                    })
                    .collect();
                expect(
                    wrong.is_empty(),
                    format!("the child to hold nothing of the host with {options:?}"),
                    format!("after {part:?} {wrong:?}: the image may reach it by /proc/self/fd"),
                )?;
            }
            let last = parts.last().map(|(_, names)| names.len());
            expect_eq("how many descriptors are left for execve", last, Some(2))?;
        }
        engine.tool(["volume", "rm", &volume]).run()?.success()?;
        Ok(())
    });
}

#[test]
fn a_hostile_image_reaches_nothing() {
    check(|c| {
        let engine = Engine::new(c)?;
        let mark = c.dir().join(c.word("outside"));
        fs::create_dir(&mark).context("mkdir")?;
        let up = format!("{}{}", "../".repeat(12), mark.display());
        for start in [
            "/proc/self/fd/N",
            "/proc/thread-self/fd/N",
            "/dev/fd/N",
            "/proc/1/fd/N",
        ] {
            for n in 3..9 {
                let directory = format!("{}/{up}/made", start.replace('N', &n.to_string()));
                let ran = engine
                    .run(&["-w", &directory])
                    .args([engine.image(), "true"])
                    .run()?;
                expect(
                    ran.status == 125 && fs::read_dir(&mark).context("list")?.next().is_none(),
                    format!("the working directory {directory} to be refused, and not made"),
                    format!("status {}, {:?}", ran.status, ran.stderr),
                )?;
            }
        }
        // With the host's processes in sight, each has a way to the host's root.
        let root = format!("/proc/{}/root", std::process::id());
        let directory = format!("{root}{}/made", mark.display());
        let ran = engine
            .run(&["--pid", "host", "-w", &directory])
            .args([engine.image(), "true"])
            .run()?;
        expect(
            ran.status == 125 && fs::read_dir(&mark).context("list")?.next().is_none(),
            format!("the working directory {directory} to be refused, and not made"),
            format!("status {}, {:?}", ran.status, ran.stderr),
        )?;
        let program = format!("{root}/bin/sh");
        engine
            .run(&["--pid", "host", "--entrypoint", &program])
            .args([engine.image()])
            .run()?
            .expect_error(126, &[&program])?;
        for program in [
            "/proc/self/exe",
            "/proc/1/exe",
            "/proc/self/fd/0",
            "/proc/self/cwd/bin/sh",
        ] {
            engine
                .run(&["--entrypoint", program])
                .args([engine.image(), "--version"])
                .run()?
                .expect_error(126, &[program])?;
        }
        // A stream may be the host's null device, of which inside is the mode.
        let hosts = fs::metadata("/dev/null").context("stat /dev/null")?;
        let script = "chmod 600 /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2";
        let mut command = engine
            .run(&[])
            .args([engine.image(), "sh", "-c", script])
            .command();
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .context("run")?;
        let after = fs::metadata("/dev/null").context("stat /dev/null")?;
        fs::set_permissions("/dev/null", hosts.permissions()).context("chmod /dev/null")?;
        expect_eq(
            "the mode of the host's /dev/null after a chmod of the streams",
            after.permissions().mode() & 0o777,
            hosts.permissions().mode() & 0o777,
        )?;
        // What an image has at the places of the set-up: a link out.
        for place in [
            "dev/null",
            "dev/console",
            "etc/hosts",
            "sys/fs",
            "proc/self",
        ] {
            let path = engine.image.join(place);
            fs::create_dir_all(path.parent().context("no parent")?).context("mkdir")?;
            if path.exists() {
                fs::remove_file(&path).context("unlink")?;
            }
            let target = format!("/proc/self/fd/3/{up}");
            std::os::unix::fs::symlink(target, &path).context("symlink")?;
        }
        for options in [&[][..], &["-v", "/dev"], &["-v", "/sys"], &["-v", "/proc"]] {
            let run = engine
                .tool(["run", "--rm", "--network", "none"])
                .args(options);
            let ran = run
                .args([engine.image(), "cat", "/proc/self/mountinfo"])
                .run()?;
            let reached = fs::read_dir(&mark).context("list")?.next().is_some();
            expect(
                !reached && matches!(ran.status, 0 | 125),
                format!(
                    "an image with links of /proc at each place, run with {options:?}, to reach nothing"
                ),
                format!("status {}, {:?}", ran.status, ran.stderr),
            )?;
            if options == ["-v", "/proc"] || options == ["-v", "/dev"] {
                ran.expect_error(125, &[options[1]])?;
            }
        }
        Ok(())
    });
}

#[test]
fn an_image_belongs_to_the_users_of_the_map() {
    check(|c| {
        let engine = Engine::new(c)?;
        // Everybody goes through it.
        fs::set_permissions(c.dir(), fs::Permissions::from_mode(0o711)).context("chmod")?;
        // What /tmp is on may have no ID-mapped mounts.
        let disk = Disk::new(c, 256 << 20, 16 << 10)?;
        let script = "touch /made; mkdir /given; chown 33:44 /given; rm -r /home && \
                      stat -c '%n %u:%g' /bin /etc /made /given; tr -s ' ' </proc/self/uid_map";
        let (mut shown, mut refused) = (0, String::new());
        for driver in ["overlay2", "btrfs", "vfs"] {
            let root = disk.path().join(driver);
            let tool = |words: &[&str]| {
                c.step()
                    .env("DRYDOCK_STATE", c.dir().join("net"))
                    .args(["--root".as_ref(), root.as_os_str()])
                    .args(words)
            };
            let run = |options: &[&str], words: &[&str]| {
                tool(&["run", "--network", "none", "--storage-driver", driver])
                    .args(options)
                    .args([engine.image()])
                    .args(words)
                    .run()
            };
            let map = ["--rm", "--uid-map", "0:100000:65536"];
            let ran = run(&map, &["sh", "-c", script])?;
            // What a kernel or a file system cannot is said, and nothing is run.
            let cannot = ["MOUNT_ATTR_IDMAP", "before 6.8", "does not work here"];
            if ran.status == 125 && cannot.iter().any(|words| ran.stderr.contains(words)) {
                refused += &ran.stderr;
                continue;
            }
            shown += 1;
            let seen = ran.success()?.stdout;
            let seen: Vec<&str> = seen.lines().map(str::trim).collect();
            expect_eq(
                &format!("what users of the map see with {driver}"),
                seen,
                vec![
                    "/bin 0:0",
                    "/etc 0:0",
                    "/made 0:0",
                    "/given 33:44",
                    "0 100000 65536",
                ],
            )?;
            // The record holds the maps, and is read again.
            run(
                &["--name", "mapped", "--uid-map", "0:100000:65536"],
                &["true"],
            )?
            .success()?;
            let listed = tool(&["ps", "-a"]).run()?.success()?;
            expect(
                listed.stdout.contains("mapped") && listed.stderr.is_empty(),
                "ps to know the container with a map",
                format!("{:?}, saying {:?}", listed.stdout, listed.stderr),
            )?;
            tool(&["rm", "mapped"]).run()?.success()?;
            let refused = run(&["--rm", "--uid-map", "1000:100000:1000"], &["true"])?;
            refused.expect_error(125, &["--uid-map", "UID 0"])?;
            let volumes = [&map[..], &["-v", "kept:/etc", "-v", "/data"]].concat();
            let script = "echo new >/etc/new; chown 33:44 /etc/new; touch /data/file && \
                          stat -c '%n %u:%g' /etc /etc/passwd /etc/new /data /data/file";
            let ran = run(&volumes, &["sh", "-c", script])?.success()?;
            expect_eq(
                &format!("what users of the map see in volumes with {driver}"),
                ran.stdout.lines().collect(),
                vec![
                    "/etc 0:0",
                    "/etc/passwd 0:0",
                    "/etc/new 33:44",
                    "/data 0:0",
                    "/data/file 0:0",
                ],
            )?;
            // The next one has no map, and the volume is as if there never was one.
            let script = "stat -c '%n %u:%g' /etc /etc/passwd /etc/new; cat /etc/new";
            let ran = run(&["--rm", "-v", "kept:/etc"], &["sh", "-c", script])?.success()?;
            expect_eq(
                &format!("what root of the host sees in the volume with {driver}"),
                ran.stdout.lines().collect(),
                vec!["/etc 0:0", "/etc/passwd 0:0", "/etc/new 33:44", "new"],
            )?;
            let listed = tool(&["volume", "ls", "-q"]).run()?.success()?;
            expect_eq("the volumes that are left", listed.stdout.trim(), "kept")?;
        }
        disk.remove()?;
        if shown == 0 {
            return Err(unsupported(refused));
        }
        Ok(())
    });
}
