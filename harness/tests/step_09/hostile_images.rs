//! Images that would reach the host, and whose files are whose.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use check::prelude::*;

use crate::engine::Engine;

#[test]
fn a_hostile_image_reaches_nothing() {
    check(|c| {
        let engine = Engine::new(c)?;
        let mark = c.dir().join(c.word("outside"));
        fs::create_dir(&mark).context("mkdir")?;
        let up = format!("{}{}", "../".repeat(12), mark.display());
        let refused = |options: &[&str], directory: &str| -> Result<()> {
            let ran = engine
                .run(&[options, &["-w", directory]].concat())
                .args([engine.image(), "true"])
                .run()?;
            expect(
                ran.status == 125 && fs::read_dir(&mark).context("list")?.next().is_none(),
                format!("the working directory {directory} to be refused, and not made"),
                format!("status {}, {:?}", ran.status, ran.stderr),
            )
        };
        for start in [
            "/proc/self/fd/N",
            "/proc/thread-self/fd/N",
            "/dev/fd/N",
            "/proc/1/fd/N",
        ] {
            for n in 3..9 {
                let directory = format!("{}/{up}/made", start.replace('N', &n.to_string()));
                refused(&[], &directory)?;
            }
        }
        // With the host's processes in sight, each has a way to the host's root.
        let root = format!("/proc/{}/root", std::process::id());
        let directory = format!("{root}{}/made", mark.display());
        refused(&["--pid", "host"], &directory)?;
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
