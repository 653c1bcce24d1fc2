//! Devices: which of them are allowed, and how fast disks are.

use std::fs;
use std::time::{Duration, Instant};

use check::prelude::*;

use crate::common::{Loop, read_only};

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
            "the disk open for whoever can make its node",
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
            "count=24",
            "oflag=direct",
        ];
        let read = [&input, "of=/dev/null", "bs=4k", "count=15", "iflag=direct"];
        for (limit, dd, what) in [
            (
                ["--device-write-bps", &bps],
                &write,
                "1.5 MiB at 1 MiB a second",
            ),
            (
                ["--device-read-iops", &iops],
                &read,
                "15 reads at 10 a second",
            ),
        ] {
            let without = took(&[], dd)?;
            let with = took(&limit, dd)?;
            expect(
                with > Duration::from_millis(900) && with > without * 2,
                format!("{what} to take a second or more ({})", limit.join(" ")),
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
fn devices_that_cannot_be_limited_are_an_error() {
    check(|c| {
        let ran = read_only(c, &["true"])?;
        expect(
            ran.status == 125,
            "a launch without a devices group to be refused (125)",
            format!(
                "status {:?}: root inside may open every device of the host, without a warning",
                ran.status
            ),
        )?;
        ran.expect_error(125, &["devices", "--device-cgroup-rule"])?;
        let ran = read_only(c, &["--device-cgroup-rule", "a *:* rwm", "true"])?.success()?;
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
