//! Checks of step 08: layers, and a container's view of them.

#[path = "step_08/archives.rs"]
mod archives;
#[path = "step_08/documents.rs"]
mod documents;
#[path = "step_08/drivers.rs"]
mod drivers;
#[path = "step_08/interrupted.rs"]
mod interrupted;
#[path = "step_08/lineage.rs"]
mod lineage;
#[path = "step_08/names.rs"]
mod names;
#[path = "step_08/tarball.rs"]
mod tarball;

#[allow(dead_code)]
mod layers;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use check::prelude::*;
use layers::{DRIVERS, Store};

#[test]
fn files_of_the_runtime_are_no_changes() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        for store in Store::all(c)? {
            store.image("base", &rootfs)?;
            let name = c.word("box");
            let read =
                "cat /etc/hostname; grep -c box /etc/hosts; echo nameserver >> /etc/resolv.conf";
            let ran = store
                .container(&["--layer", "base", "--name", "one", "--keep"])
                .args(["--hostname", &name, "sh", "-c", read])
                .run()?
                .success()?;
            expect_eq(
                &format!("the names that a container of {} finds", store.driver),
                ran.stdout,
                format!("{name}\n1\n"),
            )?;
            let diff = store.tool(["layer", "diff", "one"]).run()?.success()?;
            // Its root is shown by the drivers that keep changes only.
            expect(
                diff.stdout.lines().all(|line| line == "+ /"),
                "no change of a container that has changed nothing of its own",
                diff.stdout.trim(),
            )?;
        }
        Ok(())
    });
}

#[test]
fn twenty_containers_leave_the_image_alone() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        for store in Store::all(c)? {
            store.image("base", &rootfs)?;
            let before = fs::read(store.tar("base")?)?;
            let mut held = Vec::new();
            // Twenty of the first; fewer where each is a copy or a device of its
            // own, because an emulated machine has to do this in time.
            let containers = if store.driver == "overlay2" { 20 } else { 3 };
            // All at once.
            for _ in 0..containers {
                held.push(store.container(&["--layer", "base"]).start_holding()?);
            }
            for container in &mut held {
                container.wait_until_held()?;
            }
            for (n, container) in held.iter_mut().enumerate() {
                let mine = format!("written by container {n}\n");
                for path in ["/data/keep", "/bin/mine"] {
                    let wrote: Attempt = container.ask(&["write", path, &mine])?;
                    expect(wrote.allowed, "a container to write its files", wrote.errno)?;
                }
            }
            for (n, container) in held.iter_mut().enumerate() {
                let read: Attempt = container.ask(&["read", "/data/keep"])?;
                expect_eq(
                    &format!("the file of container {n} with {}", store.driver),
                    read.text,
                    format!("written by container {n}\n"),
                )?;
            }
            for container in &mut held {
                container.let_go();
            }
            for container in held {
                container.wait()?.success()?;
            }
            expect(
                before == fs::read(store.tar("base")?)?,
                format!("the image of {} to be unchanged", store.driver),
                "it changed: a container has written to a layer below its own",
            )?;
            expect_eq(
                "the layers that are left",
                store.layers()?,
                vec!["base".to_owned()],
            )?;
            // The next driver needs the space.
            fs::remove_dir_all(&store.root).context("remove the store")?;
        }
        Ok(())
    });
}

#[test]
fn an_ordinary_user_has_layers_too() {
    check(|c| {
        let rootfs = layers::rootfs(c)?;
        // An ordinary user can copy only what an ordinary user may read.
        fs::set_permissions(rootfs.join("root"), fs::Permissions::from_mode(0o755))?;
        for driver in ["overlay2", "vfs"] {
            let root = c.dir().join(c.word("rootless"));
            fs::create_dir(&root)?;
            chown(&root, Some(1000), Some(1000))?;
            fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
            let root = root.to_string_lossy().into_owned();
            let store = ["--driver", driver, "--root", &root];
            let listed = c
                .step()
                .user(1000)
                .args(["drivers"])
                .args(store)
                .run()?
                .success()?;
            expect(
                !listed.stdout.contains("unsupported: "),
                format!("{driver} to work without root"),
                listed.stdout.trim(),
            )?;
            let call = |args: &[&str]| c.step().user(1000).args(args).args(store);
            let from = rootfs.to_string_lossy().into_owned();
            call(&["layer", "create", "base", "--from", &from])
                .run()?
                .success()?;
            let script = "id -u; rm /data/gone; rm -r /data/open; mkdir /data/open; cat /data/keep";
            let ran = call(&["union", "run", "--layer", "base", "--name", "one", "--keep"])
                .args(["sh", "-c", script])
                .run()?
                .success()?;
            expect_eq("what root inside saw", ran.stdout, "0\nbelow\n".into())?;
            let look = "ls /data /data/open | tr '\\n' ' '";
            let again = call(&["union", "run", "--name", "one"])
                .args(["sh", "-c", look])
                .run()?
                .success()?;
            expect_eq(
                "what the container sees when it is started again",
                again.stdout.trim().to_owned(),
                "/data: dir keep open  /data/open:".into(),
            )?;
            let left = call(&["layer", "ls"]).run()?.success()?.stdout;
            expect_eq("the layers that are left", left.lines().count(), 2)?;
            call(&["layer", "rm", "base"]).run()?.success()?;
        }
        Ok(())
    });
}

#[test]
fn compare_measures_every_driver() {
    check(|c| {
        let root = c.dir().join("state");
        let table = c
            .step()
            .args(["compare", "--size", "4", "--containers", "2", "--root"])
            .args([&root])
            .run()?
            .success()?
            .stdout;
        for driver in DRIVERS {
            let line = table
                .lines()
                .find(|line| line.starts_with(driver))
                .ok_or_else(|| failed(format!("a line for {driver}"), &table))?;
            expect(
                line.contains("unsupported: ") || line.contains(" ms "),
                format!("figures or a reason for {driver}"),
                line,
            )?;
        }
        // The figures are those of the mechanism: a copied file, or a block.
        let copied = |driver: &str| -> Option<f64> {
            let line = table.lines().find(|line| line.starts_with(driver))?;
            line.split_whitespace().nth(5)?.parse().ok()
        };
        if let Some(bytes) = copied("overlay2") {
            expect(
                bytes >= 3.9,
                "overlay2 to copy the whole file",
                format!("{bytes} MB"),
            )?;
        }
        if let Some(bytes) = copied("btrfs") {
            expect(
                bytes < 2.0,
                "btrfs to copy what is written only",
                format!("{bytes} MB"),
            )?;
        }
        Ok(())
    });
}

#[test]
fn bad_input_is_refused_in_one_line() {
    check(|c| {
        let root = c.dir().join("state");
        let root = root.to_string_lossy().into_owned();
        let long = "x".repeat(129);
        let cases: [(&[&str], &[&str]); 7] = [
            (&["union", "run", "true"], &["--layer", "--rootfs"]),
            (
                &["union", "run", "--layer", "none", "true"],
                &["no layer none"],
            ),
            (
                &["union", "run", "--layer", "a", "--rootfs", "/x", "true"],
                &["--layer", "--rootfs"],
            ),
            (
                &["union", "run", "--rootfs", "/nowhere", "true"],
                &["/nowhere"],
            ),
            (
                &["layer", "create", "x", "--parent", "none"],
                &["no layer none"],
            ),
            (&["layer", "rm", "none"], &["no layer none"]),
            (&["where", "/x", "--layer", "none"], &["no layer none"]),
        ];
        for (args, words) in cases {
            let at = args.len() - usize::from(args.last() == Some(&"true"));
            c.step()
                .args(&args[..at])
                .args(["--driver", "overlay2", "--root", &root])
                .args(&args[at..])
                .run()?
                .expect_error(125, words)?;
        }
        for id in ["..", "a/b", "a,b", "a:b", long.as_str()] {
            let ran = c
                .step()
                .args(["layer", "create", id, "--driver", "vfs", "--root", &root])
                .run()?;
            expect(
                ran.status == 125,
                format!("{id:?} to be refused as a name"),
                ran.status,
            )?;
        }
        Ok(())
    });
}
