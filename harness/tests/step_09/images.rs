//! What an image may be, and what comes of it.

use std::fs;
use std::path::Path;

use check::prelude::*;
use serde_json::json;

use crate::layouts::{
    Layout, State, bytes_of, file, gzip, packed_by, small_root, tar, tar_of, tool, zstd,
};

#[test]
fn image_is_a_directory_where_it_is() {
    check(|c| {
        let state = State::new(c)?;
        let rootfs = c.rootfs()?;
        fs::write(rootfs.join("mark"), "one\n")?;
        let name = rootfs.to_string_lossy().into_owned();
        let script = "cat /mark; echo two > /mark; rm /bin/vi; cat /mark";
        let ran = state.run(&name, script)?.success()?;
        expect_eq("what the container sees", ran.stdout, "one\ntwo\n".into())?;
        expect(
            fs::read_to_string(rootfs.join("mark"))? == "one\n" && rootfs.join("bin/vi").exists(),
            "the directory to be as before",
            "it changed: the container wrote to the image",
        )?;
        fs::write(rootfs.join("mark"), "three\n")?;
        let ran = state.run(&name, "cat /mark")?.success()?;
        expect_eq("what the next one sees", ran.stdout, "three\n".into())?;
        let (taken, all) = (bytes_of(&state.root)?, bytes_of(&rootfs)?);
        expect(
            taken < all / 4,
            format!("the state directory to take much less than the {all} bytes of the image"),
            format!("{taken} bytes: the directory was copied"),
        )?;
        for driver in ["vfs", "aufs"] {
            let run = [
                "run",
                "--rm",
                "--network",
                "none",
                "--storage-driver",
                driver,
            ];
            let call = |script: &str| {
                let call = state.drydock(&run).args([&*name, "sh", "-c", script]);
                call.run()?.success()
            };
            call("rm /mark")?;
            fs::write(rootfs.join("mark"), driver)?;
            expect_eq(
                "what changed since",
                call("cat /mark")?.stdout,
                driver.into(),
            )?;
        }
        Ok(())
    });
}

#[test]
fn image_is_a_tar_of_a_root_file_system() {
    check(|c| {
        let state = State::new(c)?;
        let rootfs = c.rootfs()?;
        fs::write(rootfs.join("mark"), "one\n")?;
        let plain = tar_of(&rootfs)?;
        for (name, bytes) in [
            ("root.tar", plain.clone()),
            ("root.tar.gz", gzip(&plain)?),
            ("root.tar.zst", zstd(&plain)),
            ("root.tar.bz2", packed_by(c, "bzip2", &plain)?),
            ("root.tar.xz", packed_by(c, "xz", &plain)?),
        ] {
            let path = c.dir().join(name);
            fs::write(&path, bytes)?;
            let path = path.to_string_lossy().into_owned();
            let ran = state.run(&path, "cat /mark")?.success()?;
            expect_eq(&format!("/mark of {name}"), ran.stdout, "one\n".into())?;
        }
        expect_eq(
            "the layers, with one content in five packings",
            state.layers("overlay2").len(),
            1,
        )?;
        // The file is another one now.
        fs::write(rootfs.join("mark"), "two\n")?;
        let path = c.dir().join("root.tar");
        fs::write(&path, tar_of(&rootfs)?)?;
        let path = path.to_string_lossy().into_owned();
        let ran = state.run(&path, "cat /mark")?.success()?;
        expect_eq("/mark of the changed file", ran.stdout, "two\n".into())?;
        let import = ["import", "-", "box:1", "--env", "WHO=me", "--cmd", "env"];
        state
            .drydock(&import)
            .stdin(zstd(&plain))
            .run()?
            .success()?;
        let ran = state
            .drydock(&["run", "--rm", "--network", "none", "box:1"])
            .run()?
            .success()?;
        expect(
            ran.stdout.lines().any(|line| line == "WHO=me"),
            "the environment of the imported image",
            ran.stdout,
        )
    });
}

/// What all ways of packing one image must show.
const LOOK: &str = "cat /data/keep; ls /data /data/open; stat -c %a:%u:%g /data/su; echo $WHO; pwd";
const SEEN: &str = "below /data: keep open su /data/open: new 4755:7:7 me /data";

fn expect_seen(state: &State<'_>, image: &str) -> Result<()> {
    let ran = state.run(image, LOOK)?.success()?;
    let words: Vec<&str> = ran.stdout.split_whitespace().collect();
    expect_eq(
        &format!("what is seen in {image}"),
        words.join(" "),
        SEEN.into(),
    )
}

#[test]
fn image_by_umoci_and_skopeo() {
    check(|c| {
        let state = State::new(c)?;
        let work = c.dir().to_string_lossy().into_owned();
        let at = |name: &str| format!("{work}/{name}");
        let oci = at("oci");
        umoci_image(c, &oci)?;
        let image = format!("{oci}:box");
        let skopeo = |to: &str| {
            let temporary = ["--insecure-policy", "--tmpdir", &work];
            let copy = ["copy", "-q", &format!("oci:{image}"), to];
            tool("skopeo", &[&temporary[..], &copy].concat())
        };
        skopeo(&format!(
            "docker-archive:{}:place/team/box:1",
            at("docker.tar")
        ))?;
        skopeo(&format!("oci-archive:{}:box", at("oci.tar")))?;
        for from in [&image, &at("docker.tar"), &at("oci.tar")] {
            expect_seen(&state, from)?;
        }
        for (from, name) in [(&oci, "a"), (&at("docker.tar"), "b"), (&at("oci.tar"), "c")] {
            state
                .drydock(&["load", "-i", from, name])
                .run()?
                .success()?;
        }
        state
            .drydock(&["load", "-i", &at("docker.tar")])
            .run()?
            .success()?;
        // Packed once more, and over a pipe.
        let packed = gzip(&fs::read(at("docker.tar"))?)?;
        state
            .drydock(&["load", "d:2"])
            .stdin(packed)
            .run()?
            .success()?;
        let images = state.images()?;
        let names: Vec<&str> = images.iter().map(|(name, _)| &**name).collect();
        let expected = ["a:latest", "b:latest", "c:latest", "d:2"];
        let last = names.last().copied().unwrap_or_default();
        expect(
            names.starts_with(&expected) && last.ends_with("place/team/box:1"),
            format!("the names {expected:?}, and that of the archive"),
            format!("{names:?}"),
        )?;
        expect(
            images.iter().all(|(_, id)| *id == images[0].1),
            "one id, that of the configuration, for every way of loading",
            format!("{images:?}"),
        )?;
        expect_eq(
            "the layers, unpacked once",
            state.layers("overlay2").len(),
            5,
        )?;
        for name in ["d:2", "team/box:1", &images[0].1] {
            expect_seen(&state, name)?;
        }
        for driver in ["vfs", "aufs"] {
            let ran = state
                .drydock(&[
                    "run",
                    "--rm",
                    "--network",
                    "none",
                    "--storage-driver",
                    driver,
                ])
                .args(["a", "sh", "-c", LOOK])
                .run()?
                .success()?;
            let words: Vec<&str> = ran.stdout.split_whitespace().collect();
            expect_eq(
                &format!("what is seen with {driver}"),
                words.join(" "),
                SEEN.into(),
            )?;
        }
        Ok(())
    });
}

/// Five layers: a root, files, a whiteout, an opaque directory, a set-user-ID
/// program.
fn umoci_image(c: &Check, oci: &str) -> Result<()> {
    let image = format!("{oci}:box");
    let from = |name: &str, files: &[(&str, &str)]| -> Result<String> {
        let directory = c.dir().join(name);
        for (path, content) in files {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            fs::write(path, content)?;
        }
        Ok(directory.to_string_lossy().into_owned())
    };
    let rootfs = c.rootfs()?.to_string_lossy().into_owned();
    let data = [("keep", "below\n"), ("gone", "x"), ("open/old", "x")];
    let data = from("data", &data)?;
    let open = from("opaque", &[("new", "n")])?;
    let su = from("bin", &[("su", "")])? + "/su";
    std::os::unix::fs::chown(&su, Some(7), Some(7))?;
    tool("chmod", &["4755", &su])?;
    let umoci = |args: &[&str]| tool("umoci", args);
    umoci(&["init", "--layout", oci])?;
    umoci(&["new", "--image", &image])?;
    umoci(&["insert", "--image", &image, &rootfs, "/"])?;
    umoci(&["insert", "--image", &image, &data, "/data"])?;
    umoci(&["insert", "--image", &image, "--whiteout", "/data/gone"])?;
    umoci(&["insert", "--image", &image, "--opaque", &open, "/data/open"])?;
    umoci(&["insert", "--image", &image, &su, "/data/su"])?;
    let config = ["--config.env", "WHO=me", "--config.workingdir", "/data"];
    umoci(&[&["config", "--image", &image][..], &config].concat())?;
    Ok(())
}

#[test]
fn image_by_buildah() {
    check(|c| {
        let state = State::new(c)?;
        let work = c.dir().to_string_lossy().into_owned();
        let at = |name: &str| format!("{work}/{name}");
        let accept = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        fs::write(at("policy.json"), accept)?;
        let (graph, run) = (at("graph"), at("run"));
        let buildah = |args: &[&str]| {
            let places = [
                "--root",
                &graph,
                "--runroot",
                &run,
                "--storage-driver",
                "vfs",
            ];
            tool("buildah", &[&places[..], args].concat())
        };
        // It keeps notes about blobs there, wherever its store is.
        let caches = ["/var/lib/containers", "/var/cache/containers"];
        let new: Vec<_> = caches
            .iter()
            .filter(|path| !Path::new(path).exists())
            .collect();
        let rootfs = c.rootfs()?.to_string_lossy().into_owned();
        let built = (|| -> Result<()> {
            let container = buildah(&["from", "scratch"])?;
            buildah(&["copy", &container, &rootfs, "/"])?;
            let policy = ["--signature-policy", &at("policy.json")];
            let commit = |container: &str, to: &str| {
                buildah(&[&["commit", "-q"][..], &policy, &[container, to]].concat())
            };
            commit(&container, &format!("oci-archive:{}:base", at("base.tar")))?;
            commit(&container, "base")?;
            let base = ["--pull=never", "localhost/base"];
            let container = buildah(&[&["from"][..], &policy, &base].concat())?;
            let mounted = buildah(&["mount", &container])?;
            fs::remove_file(format!("{mounted}/bin/vi"))?;
            fs::remove_dir_all(format!("{mounted}/etc"))?;
            fs::create_dir(format!("{mounted}/etc"))?;
            fs::write(format!("{mounted}/etc/new"), "n")?;
            buildah(&["config", "--env", "WHO=me", "--cmd", "env", &container])?;
            let to = format!("docker-archive:{}:team/app:1", at("app.tar"));
            commit(&container, &to)?;
            buildah(&["umount", &container])?;
            Ok(())
        })();
        for path in new {
            if Path::new(path).exists() {
                fs::remove_dir_all(path)?;
            }
        }
        built?;
        state
            .drydock(&["load", "-i", &at("app.tar")])
            .run()?
            .success()?;
        let ran = state.run("app:1", "ls /etc; ls /bin/vi")?;
        expect_eq("what is seen in /etc", ran.stdout.contains("new"), true)?;
        expect(
            ran.stderr.contains("No such file"),
            "/bin/vi to be gone",
            ran.stderr,
        )?;
        let ran = state
            .run(&at("base.tar"), "ls /bin/vi; ls /etc/passwd")?
            .success()?;
        expect(
            ran.stdout.contains("/bin/vi"),
            "/bin/vi in the base",
            ran.stdout,
        )?;
        let ran = state
            .drydock(&["run", "--rm", "--network", "none", "team/app:1"])
            .run()?
            .success()?;
        expect(
            ran.stdout.contains("WHO=me"),
            "WHO=me of the image",
            ran.stdout,
        )
    });
}

#[test]
fn image_config_is_followed() {
    check(|c| {
        let state = State::new(c)?;
        let account = file(
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\nada:x:7:8::/home/ada:/bin/sh\n",
        );
        let layers = [small_root()?, tar(&[account])?];
        let config = json!({
            "User": "ada", "Env": ["WHO=image", "PATH=/bin"], "WorkingDir": "/work/here",
            "Entrypoint": ["sh", "-c", "id -u; id -g; pwd; echo $WHO $0 $1"], "Cmd": ["a", "b"],
            "Labels": null, "Volumes": null,
        });
        let layout = Layout::new(c.dir().join("layout"), "box", &layers, config)?;
        let image = layout.name();
        let run = |more: &[&str]| {
            let call = state.drydock(&["run", "--rm", "--network", "none"]);
            let ran = call.args(more).run()?.success()?;
            let words: Vec<&str> = ran.stdout.split_whitespace().collect();
            Ok::<_, anyhow::Error>(words.join(" "))
        };
        expect_eq(
            "user, group, directory, environment and arguments of the image",
            run(&[&image])?,
            "7 8 /work/here image a b".into(),
        )?;
        expect_eq(
            "those of the caller in place of the image's",
            run(&["-e", "WHO=me", "-w", "/", "-u", "0:0", &image, "c"])?,
            "0 0 / me c".into(),
        )?;
        let config = json!({
            "User": "7:8:9", "Env": ["WHO=image", "PATH=/bin"], "Entrypoint": [""],
            "Cmd": ["sh", "-c", "id -u; echo ${WHO-nobody}"], "Healthcheck": {"Interval": -1},
        });
        let layers = [small_root()?];
        let layout = Layout::new(c.dir().join("odd"), "box", &layers, config)?;
        expect_eq(
            "the output of an image whose entrypoint is one empty word, and whose variable WHO \
             the caller asks for without having it",
            run(&["-e", "WHO", &layout.name()])?,
            "7 nobody".into(),
        )
    });
}
