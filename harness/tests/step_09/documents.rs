//! Checks of what images say, in the ways in which it is said.

use std::fs;
use std::ops::Range;

use check::prelude::*;
use check::workspace;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use tar::{Builder, EntryType, Header};

use super::layouts::{Layout, State, digest, file, gzip, small_root, tar, tar_of, zstd};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

const OURS: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else {
    "arm64"
};

/// Writes an archive of `docker save` with one layer and these two documents.
fn saved(c: &Check, config: &[u8], manifest: &str, layer: &[u8]) -> Result<String> {
    let archive = tar(&[
        (EntryType::Regular, "layer.tar", "", layer),
        (EntryType::Regular, "config.json", "", config),
        file("manifest.json", manifest),
    ])?;
    write(c, &archive)
}

fn write(c: &Check, archive: &[u8]) -> Result<String> {
    let path = c.dir().join(c.word("archive")).with_extension("tar");
    fs::write(&path, archive).context("write an archive")?;
    Ok(path.to_string_lossy().into_owned())
}

fn load(state: &State<'_>, path: &str) -> Result<Ran> {
    state.drydock(&["load", "-i", path]).run()
}

fn words(ran: &Ran) -> Vec<&str> {
    ran.stdout.split_whitespace().collect()
}

#[test]
fn image_documents_are_read_as_go_reads_them() {
    check(|c| {
        let state = State::new(c)?;
        let layer = small_root()?;
        let id = digest(&layer);
        let manifest = r#"[{"config":"config.json","REPOTAGS":["odd:1"],"Layers":["layer.tar"],
            "LayerSources":null,"repotags":["odd:2"]}] what follows"#;
        let config = format!(
            r#"{{"architecture":null,"OS":"windows","os":"linux","created":null,"history":null,
            "Config":{{"Cmd":["false"],"CMD":"pwd","Entrypoint":null,"WORKINGDIR":"/bin","Env":null,
            "Labels":{{"a":null,"b":"\ud800"}},"Volumes":null,"ExposedPorts":null,"StopSignal":null,
            "Unknown":{{"x":[1.5e3,null]}}}},"config":{{"User":null,"OnBuild":null}},
            "rootfs":{{"type":"layers","Diff_IDs":["{id}"]}},"comment":"kept é"}}"#
        );
        // Latin-1: no UTF-8.
        let config: Vec<u8> = config.chars().map(|c| c as u8).collect();
        let good = saved(c, &config, manifest, &layer)?;
        let ran = load(&state, &good)?;
        expect(
            ran.status == 0,
            "an odd document to be read as Go reads it",
            format!("status {}: {}", ran.status, ran.stderr),
        )?;
        expect_eq(
            "what was loaded",
            ran.stdout,
            "Loaded image: odd:2\n".into(),
        )?;
        let ran = state
            .drydock(&["run", "--rm", "--network", "none", "odd:2"])
            .run()?;
        expect(
            ran.status == 0 && ran.stdout == "/bin\n",
            "the last command, a text, in the image's directory to be read as Go reads it",
            format!("status {}: {}{}", ran.status, ran.stdout, ran.stderr),
        )?;
        let kept = state
            .root
            .join("images/config")
            .join(&digest(&config)["sha256:".len()..]);
        expect_eq(
            "the configuration that is stored, complete",
            fs::read(kept)?,
            config,
        )?;

        let bare = r#"{"os":"linux","config":null,"rootfs":{"diff_ids":null}}"#;
        let none = r#"[{"Config":"config.json","RepoTags":null,"Layers":null}]"#;
        let bare = saved(c, bare.as_bytes(), none, &[])?;
        load(&state, &bare)?.success()?;

        let manifest = r#"[{"Config":"config.json","Layers":["layer.tar"]}]"#;
        let rootfs = format!(r#""rootfs":{{"diff_ids":["{id}"]}}"#);
        for refused in [
            format!("\u{feff}{{{rootfs}}}"),
            format!("{{{rootfs}}} x"),
            format!(r#"{{"config":{{"Cmd":1}},{rootfs}}}"#),
            format!(r#"{{"config":{{"Env":"A=1"}},{rootfs}}}"#),
            format!(r#"{{"x":{},{rootfs}}}"#, "[".repeat(50_000)),
            "{}".into(),
        ] {
            let ran = load(&state, &saved(c, refused.as_bytes(), manifest, &layer)?)?;
            ran.expect_error(125, &["configuration"])?;
        }
        one_name_in_four_spellings(c)
    });
}

/// Whoever writes an archive spells Docker's host out, or not: the second image
/// has the name of the first.
fn one_name_in_four_spellings(c: &Check) -> Result<()> {
    let state = State::new(c)?;
    let layer = small_root()?;
    let named = |name: &str, says: &str| -> Result<()> {
        let config = json!({
            "os": "linux", "config": {"Cmd": ["echo", says]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let manifest = json!([
            {"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}
        ]);
        let (config, manifest) = (config.to_string(), manifest.to_string());
        load(&state, &saved(c, config.as_bytes(), &manifest, &layer)?)?.success()?;
        Ok(())
    };
    named("box:1", "first")?;
    for name in [
        "docker.io/library/box:1",
        "docker.io/box:1",
        "index.docker.io/library/box:1",
    ] {
        named(name, name)?;
        for image in ["box:1", "docker.io/library/box:1", "docker.io/box:1"] {
            let call = state.drydock(&["run", "--rm", "--network", "none", image]);
            expect_eq(
                &format!("what {image} says, which was loaded as {name}"),
                call.run()?.success()?.stdout,
                format!("{name}\n"),
            )?;
        }
    }
    let images = state.images()?;
    let named: Vec<&str> = images.iter().map(|(name, _)| &**name).collect();
    expect(
        named.iter().filter(|name| **name == "box:1").count() == 1
            && !named.iter().any(|name| name.contains("docker.io")),
        "one image to be called box:1",
        format!("{named:?}"),
    )?;
    let call = state.drydock(&["import", "-", "docker.io/library/BAD"]);
    let ran = call.stdin(layer).run()?;
    expect(
        ran.status != 0 && ran.stderr.contains("must be lowercase"),
        "a name with capitals to be refused as Docker refuses it",
        &ran.stderr,
    )
}

/// A descriptor of a manifest for a platform, perhaps of none that is there.
fn for_platform(mut descriptor: Value, os: &str, architecture: &str) -> Value {
    descriptor["platform"] = json!({"os": os, "architecture": architecture});
    descriptor
}

fn manifest(layout: &Layout, config: &Value, layers: &[Value]) -> Result<Value> {
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    layout.blob(MANIFEST, manifest.to_string().as_bytes())
}

fn index(manifests: &[Value]) -> Vec<u8> {
    let index = json!({"schemaVersion": 2, "manifests": manifests, "annotations": null});
    index.to_string().into_bytes()
}

#[test]
fn image_is_found_among_what_is_none() {
    check(|c| {
        let state = State::new(c)?;
        let layers = [
            small_root()?,
            tar(&[file("second", "2")])?,
            tar(&[file("third", "3")])?,
        ];
        let layout = Layout::new(c.dir().join("layout"), "box", &layers, json!({}))?;
        let config = layout.read_manifest()?["config"].clone();

        // One layer by SHA-512, one that is not to be distributed, one by zstd.
        let packed = gzip(&layers[0])?;
        let hex: String = Sha512::digest(&packed)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        fs::create_dir_all(layout.directory.join("blobs/sha512"))?;
        fs::write(layout.directory.join("blobs/sha512").join(&hex), &packed)?;
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let mut second = layout.blob(foreign, &gzip(&layers[1])?)?;
        second["urls"] = json!(["https://example.org/layer"]);
        let oci = "application/vnd.oci.image.layer.v1.tar";
        let third = layout.blob(&format!("{oci}+zstd"), &zstd(&layers[2]))?;
        let first = json!({
            "mediaType": format!("{oci}+gzip"), "digest": format!("sha512:{hex}"),
            "size": packed.len(),
        });
        let ours = manifest(&layout, &config, &[first, second, third])?;

        let absent = json!({
            "mediaType": MANIFEST, "size": 2, "digest": digest(b"is not there"),
        });
        let strange = json!({"mediaType": MANIFEST, "size": 2, "digest": "blake3:00"});
        // What buildkit and cosign put beside an image, and an artifact.
        let statement = layout.blob("application/vnd.in-toto+json", b"{}")?;
        let mut attestation = manifest(&layout, &config, &[statement])?;
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        let attestation = for_platform(attestation, "unknown", "unknown");
        let signed = layout.blob("application/vnd.dev.cosign.simplesigning.v1+json", b"{}")?;
        let signature = manifest(&layout, &config, &[signed])?;
        let empty = layout.blob("application/vnd.oci.empty.v1+json", b"{}")?;
        let artifact = manifest(&layout, &empty, std::slice::from_ref(&empty))?;

        let inner = index(&[
            for_platform(absent.clone(), "windows", OURS),
            for_platform(absent.clone(), "linux", "s390x"),
            attestation.clone(),
            for_platform(ours, "linux", OURS),
        ]);
        let inner = layout.blob(INDEX, &inner)?;
        let elsewhere = layout.blob(
            INDEX,
            &index(&[for_platform(absent.clone(), "linux", "s390x")]),
        )?;
        let mut image = layout.blob(INDEX, &index(&[strange.clone(), elsewhere, inner]))?;
        image["annotations"] =
            json!({"io.containerd.image.name": "example.org/box:1", "more": null});
        let write = |manifests: &[Value]| {
            fs::write(layout.directory.join("index.json"), index(manifests))
                .context("write an index")
        };
        write(&[strange, attestation, signature, artifact, image])?;
        let ran = load(&state, &layout.name())?.success()?;
        expect_eq(
            "what was loaded",
            words(&ran),
            vec!["Loaded", "image:", "example.org/box:1"],
        )?;
        for word in [
            "blake3",
            "attestation-manifest",
            "simplesigning",
            "oci.empty",
            "linux/s390x",
        ] {
            expect(
                ran.stderr.contains(word),
                format!("a message about {word}, which was skipped"),
                &ran.stderr,
            )?;
        }
        let ran = state.run("box:1", "cat /second /third")?.success()?;
        expect_eq("the files of all layers", ran.stdout.as_str(), "23")?;

        let others = ["s390x", "riscv64"].map(|other| for_platform(absent.clone(), "linux", other));
        write(&others)?;
        load(&state, &layout.name())?.expect_error(125, &["linux/s390x"])?;
        // The only one, of which nothing else is known.
        let packed: Vec<Value> = layers
            .iter()
            .map(|layer| layer_of(&layout, layer))
            .collect::<Result<_>>()?;
        let only = manifest(&layout, &config, &packed)?;
        for (what, value) in [
            ("platform", json!({})),
            ("platform", json!({"architecture": OURS})),
            ("platform", json!({"os": "linux", "architecture": "s390x"})),
            (
                "artifactType",
                json!("application/vnd.oci.image.config.v1+json"),
            ),
            ("size", json!(-1)),
            ("mediaType", Value::Null),
        ] {
            let mut descriptor = only.clone();
            descriptor[what] = value.clone();
            write(&[descriptor])?;
            if what == "mediaType" {
                fs::remove_file(layout.directory.join("oci-layout"))?;
            }
            let ran = load(&state, &layout.name())?;
            expect(
                ran.status == 0,
                format!("the only image, with {what} {value}, to be loaded"),
                &ran.stderr,
            )?;
        }
        names_of_two_lists(c)
    });
}

fn layer_of(layout: &Layout, tar: &[u8]) -> Result<Value> {
    layout.blob("application/vnd.oci.image.layer.v1.tar+gzip", &gzip(tar)?)
}

/// An archive with the lists of both kinds, of which only Docker's has names:
/// that of the other is the tag only.
fn names_of_two_lists(c: &Check) -> Result<()> {
    let state = State::new(c)?;
    let layer = small_root()?;
    let layout = Layout::new(c.dir().join("two"), "7", &[layer], json!({}))?;
    let of = layout.read_manifest()?;
    let path = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        format!("blobs/{}", digest.replace(':', "/"))
    };
    let list = json!([{
        "Config": path(&of["config"]), "Layers": [path(&of["layers"][0])],
        "RepoTags": ["team/app:7", "docker.io/team/app:new"],
    }]);
    fs::write(layout.directory.join("manifest.json"), list.to_string())?;
    load(&state, &format!("{}:new", layout.name()))?.success()?;
    load(&state, &layout.name())?.success()?;
    let images = state.images()?;
    let names: Vec<&str> = images.iter().map(|(name, _)| &**name).collect();
    expect_eq(
        "the names, which manifest.json has and index.json has not",
        names,
        vec!["team/app:7", "team/app:new"],
    )
}

#[test]
fn image_paths_begin_at_its_root() {
    check(|c| {
        let state = State::new(c)?;
        let config = json!({
            "Volumes": {"data": {}, "d/../logs/": {}, ".": {}}, "WorkingDir": "work/../srv",
            "StopSignal": "NONSENSE", "Env": ["PATH=/bin", "ODD", "=x", "A=1", "A=2"],
            "ExposedPorts": {"http": {}}, "Entrypoint": [],
            "Cmd": ["sh", "-c", "pwd; echo $A; cat /proc/self/mountinfo"],
        });
        let layout = Layout::new(c.dir().join("layout"), "box", &[small_root()?], config)?;
        let call = state.drydock(&["run", "--rm", "--network", "none", &layout.name()]);
        let ran = call.run()?.success()?;
        let said = words(&ran);
        expect_eq("directory and environment", &said[..2], &["/srv", "2"])?;
        for target in ["/data", "/logs"] {
            expect(
                said.contains(&target),
                format!("a volume at {target}"),
                "none",
            )?;
        }
        Ok(())
    });
}

/// An archive that was unpacked, and packed again by `tar --sparse`, in both of
/// GNU tar's formats: of its layer the most is zeroes, in a file and behind the
/// end.
fn a_layer_with_holes(c: &Check, below: &[u8]) -> Result<()> {
    let state = State::new(c)?;
    let content = [&[b'x'; 4096][..], &[0; 1 << 20], &[b'y'; 4096]].concat();
    let mut layer = tar(&[(EntryType::Regular, "hole", "", &content)])?;
    layer.resize(layer.len() + (70 << 20), 0);
    let diff_ids = [digest(below), digest(&layer)];
    let config = json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let list = json!([{
        "Config": "c.json", "RepoTags": ["holes:1"], "Layers": ["below.tar", "layer.tar"],
    }]);
    // All but the zeroes: a header and the first block of the file, its last
    // block and the end of the archive.
    let hole = 512 + 4096..512 + 4096 + (1 << 20);
    let end = layer.len() - (70 << 20);
    let extents = [0..hole.start, hole.end..end, layer.len()..layer.len()];
    for format in ["gnu", "posix"] {
        let mut archive = Builder::new(Vec::new());
        for (name, content) in [
            ("c.json", config.to_string().as_bytes()),
            ("manifest.json", list.to_string().as_bytes()),
            ("below.tar", below),
        ] {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content)?;
        }
        with_holes(&mut archive, format, &layer, &extents)?;
        let path = c.dir().join(format).to_string_lossy().into_owned();
        fs::write(&path, archive.into_inner()?)?;
        let ran = load(&state, &path)?;
        expect(
            ran.status == 0,
            format!("an archive with holes ({format}) to be loaded"),
            &ran.stderr,
        )?;
        let ran = state.run("holes:1", "sha256sum /hole")?.success()?;
        let expected = &digest(&content)["sha256:".len()..];
        expect_eq("the file with a hole", words(&ran)[0], expected)?;
        let ran = state.drydock(&["rmi", "holes:1"]).run()?.success()?;
        let expected = format!(
            "Untagged: holes:1\nDeleted: {}\n",
            digest(config.to_string().as_bytes())
        );
        expect_eq("what rmi prints, as Docker does", ran.stdout, expected)?;
    }
    Ok(())
}

/// Adds `layer.tar` with these parts of its content; the others are holes.
fn with_holes(
    archive: &mut Builder<Vec<u8>>,
    format: &str,
    layer: &[u8],
    extents: &[Range<usize>],
) -> Result<()> {
    let mut data = Vec::new();
    let mut header = Header::new_gnu();
    if format == "gnu" {
        header.set_entry_type(EntryType::GNUSparse);
        let gnu = header.as_gnu_mut().context("a header of GNU")?;
        gnu.set_real_size(layer.len() as u64);
        for (field, extent) in gnu.sparse.iter_mut().zip(extents) {
            let octal = |number: usize| format!("{number:011o}\0");
            field.offset.copy_from_slice(octal(extent.start).as_bytes());
            let length = octal(extent.len());
            field.numbytes.copy_from_slice(length.as_bytes());
        }
        header.set_path("layer.tar")?;
    } else {
        let size = layer.len().to_string();
        archive.append_pax_extensions([
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"layer.tar"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ])?;
        let mut map = format!("{}\n", extents.len());
        for extent in extents {
            map += &format!("{}\n{}\n", extent.start, extent.len());
        }
        data.extend_from_slice(map.as_bytes());
        data.resize(512, 0);
        header.set_path("GNUSparseFile.0/layer.tar")?;
    }
    for extent in extents {
        data.extend_from_slice(&layer[extent.clone()]);
    }
    header.set_size(data.len() as u64);
    header.set_cksum();
    archive.append(&header, &*data)?;
    Ok(())
}

/// An archive may omit a layer that another one has brought.
fn layers_that_are_there(c: &Check, below: &[u8], above: &[u8]) -> Result<()> {
    let state = State::new(c)?;
    let config = |layers: &[&[u8]]| {
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
        json!({"os": "linux", "rootfs": rootfs}).to_string()
    };
    let list = |layers: &[&str]| {
        json!([{"Config": "c.json", "RepoTags": ["thin:1"], "Layers": layers}]).to_string()
    };
    let thin = tar(&[
        file("c.json", &config(&[below, above])),
        (EntryType::Regular, "above.tar", "", above),
        file("manifest.json", &list(&["below.tar", "above.tar"])),
    ])?;
    let thin = write(c, &thin)?;
    load(&state, &thin)?.expect_error(125, &["below.tar", "is missing"])?;
    let first = tar(&[
        file("c.json", &config(&[below])),
        (EntryType::Regular, "below.tar", "", below),
        file("manifest.json", &list(&["below.tar"])),
    ])?;
    load(&state, &write(c, &first)?)?.success()?;
    let ran = load(&state, &thin)?;
    expect(
        ran.status == 0,
        "a layer that is there to be omitted",
        &ran.stderr,
    )?;
    let ran = state.run("thin:1", "cat /above")?.success()?;
    expect_eq("the file of its upper layer", ran.stdout.as_str(), "A")
}

/// A tree with a file that lists images elsewhere, and images beside a directory
/// that root file systems have.
fn the_verb_decides(c: &Check, state: &State<'_>) -> Result<()> {
    let site = c.dir().join("site");
    fs::create_dir(&site)?;
    fs::write(
        site.join("manifest.json"),
        r#"{"name":"a web application"}"#,
    )?;
    let tree = tar_of(&site)?;
    let site = site.to_string_lossy().into_owned();
    for (path, name) in [
        (site, "directory"),
        (write(c, &tree)?, "plain"),
        (write(c, &gzip(&tree)?)?, "packed"),
    ] {
        let ran = state.drydock(&["import", &path, name]).run()?;
        expect(
            ran.status == 0,
            format!("import to take a tree with manifest.json ({name})"),
            &ran.stderr,
        )?;
    }
    let layer = small_root()?;
    let config = json!({
        "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    // A name that is no digest any more, and links on the way to a layer.
    let edited = format!("{}.json", "0".repeat(64));
    let list = json!([
        {"Config": edited, "RepoTags": ["beside:1"], "Layers": ["0/layer.tar"]}
    ]);
    let archive = tar(&[
        file("etc/readme", "of the archive"),
        (EntryType::Symlink, "0", "/up/../real", b""),
        (EntryType::Regular, "real/inner.tar", "", &layer),
        (EntryType::Symlink, "real/layer.tar", "inner.tar", b""),
        file(&edited, &config.to_string()),
        file("manifest.json", &list.to_string()),
    ])?;
    for path in [write(c, &archive)?, write(c, &gzip(&archive)?)?] {
        let ran = load(state, &path)?;
        expect(
            ran.status == 0 && ran.stdout == "Loaded image: beside:1\n",
            "load to take images beside a directory etc, whatever their files are called",
            format!("{}{}", ran.stdout, ran.stderr),
        )?;
    }
    Ok(())
}

#[test]
fn image_may_come_in_an_odd_archive() {
    check(|c| {
        let state = State::new(c)?;
        let mut program = Builder::new(Vec::new());
        let busybox = workspace::rootfs("busybox").join("bin/busybox");
        program.append_path_with_name(busybox, "busybox")?;
        let program = write(c, &program.into_inner()?)?;
        state
            .drydock(&["import", &program, "program"])
            .run()?
            .success()?;
        let call = state.drydock(&["run", "--rm", "--network", "none", "program"]);
        let ran = call.args(["/busybox", "echo", "alone"]).run()?.success()?;
        expect_eq("what the only program says", ran.stdout.as_str(), "alone\n")?;
        for (name, empty) in [("blocks", vec![0; 1024]), ("nothing", Vec::new())] {
            let path = write(c, &empty)?;
            state.drydock(&["import", &path, name]).run()?.success()?;
        }
        the_verb_decides(c, &state)?;

        // As Docker 1.9 saved: a layer names the one below.
        let (below, above) = (small_root()?, tar(&[file("above", "A")])?);
        let config = r#"{"id":"bb","parent":"aa","os":"linux","config":{"Cmd":["cat","/above"]}}"#;
        let old = tar(&[
            file("repositories", r#"{"old/box":{"1":"bb"}}"#),
            file("aa/json", r#"{"id":"aa"}"#),
            (EntryType::Regular, "aa/layer.tar", "", &below),
            file("bb/json", config),
            (EntryType::Regular, "bb/layer.tar", "", &above),
        ])?;
        load(&state, &write(c, &gzip(&old)?)?)?.success()?;
        let call = state.drydock(&["run", "--rm", "--network", "none", "old/box:1"]);
        let ran = call.run()?.success()?;
        expect_eq("the file of the upper layer", ran.stdout.as_str(), "A")?;
        layers_that_are_there(c, &below, &above)?;
        a_layer_with_holes(c, &below)?;
        for endless in [
            r#"{"parent":"aa"}"#,
            r#"{"parent":"../etc"}"#,
            r#"{"parent":"bb"}"#,
        ] {
            let old = tar(&[
                file("repositories", r#"{"box":{"1":"aa"}}"#),
                file("aa/json", endless),
            ])?;
            load(&state, &write(c, &old)?)?.expect_error(125, &["box:1"])?;
        }
        Ok(())
    });
}
