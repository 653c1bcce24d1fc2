//! Registries and images between drydock and the others: Debian's
//! docker-registry, docker, podman, skopeo. What one of them pushes, the others
//! pull with the same digest and the same ID.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use check::workspace;
use serial_test::serial;

use crate::place::{Ended, Place};

/// Plain HTTP: everybody takes that from loopback.
const PLAIN: &str = "127.0.0.1:5000";
/// TLS, and users: nobody takes a name with a dot for loopback, so that the
/// certificate is verified.
const GUARDED: &str = "registry.test:5001";
/// The line of htpasswd(1) for `dock` with this password.
const USERS: &str = r"dock:$2y$05$drydockdrydockdrydockubd9ZM1UhbmzozgecHV4nCKFOs37K6dy";
const PASSWORD: &str = "wordpass";

/// The engines in one place, each with its own state, all with one home.
struct Engines<'a> {
    place: &'a Place,
    docker: String,
}

impl Engines<'_> {
    /// Runs a script. `$OURS`, `$DOCKER`, `$PODMAN` and `$SKOPEO` are the clients.
    fn run(&self, script: &str) -> Result<Ended> {
        let dir = self.place.dir().display();
        let step = workspace::bin().join("step-13");
        let clients = format!(
            "export HOME={dir}/home SSL_CERT_FILE={dir}/tls.crt
             unset DOCKER_CONFIG DRYDOCK_REGISTRY
             export REGISTRY_AUTH_FILE={dir}/home/.docker/config.json DRYDOCK_STATE={dir}/net
             export XDG_RUNTIME_DIR={dir}/run XDG_CONFIG_HOME={dir}/home/.config
             OURS='{} --root {dir}/root'
             DOCKER='docker --host {}'
             PODMAN='podman --root {dir}/podman --runroot {dir}/podman-run --tmpdir {dir}/podman-tmp \
                     --cgroup-manager cgroupfs --events-backend none --storage-driver vfs'
             SKOPEO='skopeo --tmpdir {dir}'\n",
            step.display(),
            self.docker
        );
        let script = format!("{clients}{script}");
        let mut ended = self.place.run(&["sh", "-c", &script])?;
        // The rest is the same for all.
        ended.call = script[clients.len()..].to_owned();
        Ok(ended)
    }

    /// What a script prints, which succeeds.
    fn said(&self, script: &str) -> Result<String> {
        Ok(self.run(script)?.status(0)?.stdout)
    }

    /// Has everybody pull an image, and expects the digest and the ID.
    fn all_pull(&self, name: &str, digest: &str, id: &str) -> Result<()> {
        let insecure = match name.starts_with(PLAIN) {
            true => "--tls-verify=false",
            false => "--tls-verify=true",
        };
        let text = self.said(&format!("$DOCKER pull {name}"))?;
        equal(name, "docker pull", line(&text, "Digest: ")?, digest)?;
        let inspect = format!("$DOCKER image inspect --format '{{{{.Id}}}}' {name}");
        equal(name, "docker image inspect", &self.said(&inspect)?, id)?;
        let pull = format!("$PODMAN pull --quiet {insecure} {name}");
        let podman = self.said(&pull)?;
        equal(name, "podman pull", &format!("sha256:{podman}"), id)?;
        let inspect = format!("$PODMAN image inspect --format '{{{{.Digest}}}}' {name}");
        equal(name, "podman image inspect", &self.said(&inspect)?, digest)?;
        let inspect =
            format!("$SKOPEO inspect {insecure} --format '{{{{.Digest}}}}' docker://{name}");
        equal(name, "skopeo inspect", &self.said(&inspect)?, digest)?;
        // All bytes go through its hands.
        let copy = format!(
            "rm -rf {0}/layout && $SKOPEO copy --quiet {1} docker://{name} oci:{0}/layout:x && \
             $SKOPEO inspect --format '{{{{.Digest}}}}' oci:{0}/layout:x",
            self.place.dir().display(),
            insecure.replace("--tls", "--src-tls"),
        );
        let copied = self.said(&copy)?;
        // A layout holds OCI's types only: what has Docker's is converted.
        if self
            .said(&raw(insecure, name))?
            .contains("oci.image.manifest")
        {
            equal(name, "skopeo copy", &copied, digest)?;
        }
        Ok(())
    }

    /// Pulls an image with ours, runs it, and expects the digest and the ID, here
    /// and after a push of it to another name.
    fn we_pull(&self, name: &str, digest: &str, id: &str) -> Result<()> {
        let text = self.said(&format!("$OURS pull {name}"))?;
        equal(name, "drydock pull", line(&text, "Digest: ")?, digest)?;
        let inspect = format!("$OURS image inspect --format '{{{{.Id}}}}' {name}");
        equal(name, "drydock image inspect", &self.said(&inspect)?, id)?;
        self.run(&format!(
            "$OURS run --rm --network none --pull never {name} sh -c 'echo hello'"
        ))?
        .prints("hello")?;
        let again = name.replace("/from", "/again");
        let text = self.said(&format!("$OURS tag {name} {again} && $OURS push {again}"))?;
        equal(name, "drydock push", pushed(&text)?, digest)
    }
}

fn raw(insecure: &str, name: &str) -> String {
    format!("$SKOPEO inspect {insecure} --raw docker://{name}")
}

fn equal(name: &str, what: &str, found: &str, expected: &str) -> Result<()> {
    ensure!(
        found == expected,
        "{name}: {what} says {found}, expected {expected}"
    );
    Ok(())
}

/// What follows `head` in the line that begins with it.
fn line<'a>(text: &'a str, head: &str) -> Result<&'a str> {
    let found = text.lines().find_map(|line| line.strip_prefix(head));
    found.with_context(|| format!("no line {head:?} in {text}"))
}

/// The digest in the last line of a push: `TAG: digest: DIGEST size: BYTES`.
fn pushed(text: &str) -> Result<&str> {
    let found = text.lines().find_map(|line| line.split_once("digest: "));
    let digest = found.and_then(|(_, rest)| rest.split(' ').next());
    digest.with_context(|| format!("no digest in {text}"))
}

/// Starts a registry, with TLS and users if it is the guarded one.
fn registry(place: &mut Place, host: &str) -> Result<()> {
    let dir = place.dir().display().to_string();
    let (_, port) = host.split_once(':').context("a host without a port")?;
    let mut text = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {dir}/storage-{port}}}}}\n"
    );
    text += &match host {
        GUARDED => format!(
            "auth: {{htpasswd: {{realm: drydock, path: {dir}/users}}}}\n\
             http: {{addr: '127.0.0.1:{port}', tls: {{certificate: {dir}/tls.crt, key: {dir}/tls.key}}}}\n"
        ),
        _ => format!("http: {{addr: '127.0.0.1:{port}'}}\n"),
    };
    let config = place.path(&format!("registry-{port}.yml"));
    fs::write(&config, text).context("write")?;
    let port = port.parse().context("a port")?;
    place.start_listening(
        &format!("registry-{port}"),
        &["docker-registry", "serve", &config],
        port,
    )
}

/// A certificate for the guarded registry, which is its own authority; its users;
/// and its name in the place's /etc/hosts.
fn guarded(place: &mut Place) -> Result<()> {
    let (name, _) = GUARDED.split_once(':').context("a host without a port")?;
    let san = format!("subjectAltName=DNS:{name}");
    let (key, certificate) = (place.path("tls.key"), place.path("tls.crt"));
    let words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-noenc",
        "-days",
        "2",
        "-subj",
        "/CN=drydock",
        "-addext",
        &san,
        "-addext",
        "basicConstraints=critical,CA:false",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ];
    place.run(&words)?.status(0)?;
    fs::write(place.path("users"), format!("{USERS}\n")).context("write")?;
    let hosts = place.path("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost {name}\n")).context("write")?;
    place
        .run(&["mount", "--bind", &hosts, "/etc/hosts"])?
        .status(0)?;
    registry(place, GUARDED)
}

/// Starts dockerd, which trusts the certificate, and returns its address.
fn dockerd(place: &mut Place, trusted: &str) -> Result<String> {
    let socket = place.dir().join("docker.sock");
    let host = format!("unix://{}", socket.display());
    let variable = format!("SSL_CERT_FILE={trusted}");
    let paths = ["data", "exec", "docker.pid"].map(|name| place.path(name));
    let group = place.group.clone();
    let words = [
        &["env", &variable, "dockerd", "--host", &host][..],
        &["--data-root", &paths[0], "--exec-root", &paths[1]],
        &["--pidfile", &paths[2], "--cgroup-parent", &group],
        &[
            "--storage-driver",
            "vfs",
            "--bridge",
            "none",
            "--iptables=false",
        ],
    ];
    place.start("dockerd", &words.concat(), &socket)?;
    Ok(host)
}

/// A place with the programs, and a policy for what podman and skopeo take: Debian
/// leaves that to a package that they only recommend.
fn place() -> Result<Place> {
    let step = workspace::bin().join("step-13");
    ensure!(step.exists(), "{step:?} is missing: run ./just build first");
    let place = Place::new(&[
        ("docker-registry", "docker-registry"),
        ("dockerd", "docker.io"),
        ("docker", "docker.io"),
        ("podman", "podman"),
        ("skopeo", "skopeo"),
        ("openssl", "openssl"),
    ])?;
    for name in ["home/.docker", "home/.config/containers", "run"] {
        fs::create_dir_all(place.dir().join(name)).context("mkdir")?;
    }
    // podman insists on the file that it is told.
    fs::write(place.path("home/.docker/config.json"), "{}").context("write")?;
    let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    fs::write(place.path("home/.config/containers/policy.json"), policy).context("write")?;
    Ok(place)
}

/// An image of ours is pushed and pulled by everybody; then those of everybody
/// else by us.
fn both_ways(engines: &Engines<'_>, host: &str) -> Result<()> {
    let insecure = match host {
        PLAIN => "--tls-verify=false",
        _ => "--tls-verify=true",
    };
    let archive = engines.place.rootfs()?;
    let name = format!("{host}/from/drydock:1");
    engines.said(&format!("$OURS import {archive} {name}"))?;
    let text = engines.said(&format!("$OURS push {name}"))?;
    let id = engines.said(&format!("$OURS images --no-trunc -q {name}"))?;
    engines.all_pull(&name, pushed(&text)?, &id)?;

    let name = format!("{host}/from/docker:1");
    let id = engines.said(&format!(
        "$DOCKER import --change 'CMD sh' {archive} {name}"
    ))?;
    let text = engines.said(&format!("$DOCKER push {name}"))?;
    engines.we_pull(&name, pushed(&text)?, &id)?;

    let name = format!("{host}/from/podman:1");
    let file = engines.place.path("digest");
    let import = format!("$PODMAN import --quiet {archive} {name}");
    let id = engines.said(&import)?;
    let id = format!("sha256:{}", id.trim_start_matches("sha256:"));
    engines.said(&format!(
        "$PODMAN push --quiet {insecure} --digestfile {file} {name}"
    ))?;
    let digest = fs::read_to_string(&file).context("read")?;
    engines.we_pull(&name, digest.trim(), &id)?;

    // An archive of ours, which skopeo carries to the registry.
    let ours = format!("{host}/from/drydock:1");
    let name = format!("{host}/from/skopeo:1");
    let to = insecure.replace("--tls", "--dest-tls");
    let saved = engines.place.path("saved.tar");
    engines.said(&format!(
        "$OURS save -o {saved} {ours} && \
         $SKOPEO copy --quiet {to} --digestfile {file} oci-archive:{saved} docker://{name}"
    ))?;
    let id = engines.said(&format!("$OURS images --no-trunc -q {ours}"))?;
    let digest = fs::read_to_string(&file).context("read")?;
    equal(
        &name,
        "skopeo copy of an archive",
        digest.trim(),
        pushed(&text_of(engines, &ours)?)?,
    )?;
    engines.we_pull(&name, digest.trim(), &id)
}

/// What a push prints of an image that is there.
fn text_of(engines: &Engines<'_>, name: &str) -> Result<String> {
    engines.said(&format!("$OURS push {name}"))
}

#[test]
#[serial]
fn everybody_takes_what_others_pushed_to_a_plain_registry() -> Result<()> {
    let mut place = place()?;
    registry(&mut place, PLAIN)?;
    let docker = dockerd(&mut place, "/dev/null")?;
    let engines = Engines {
        place: &place,
        docker,
    };
    both_ways(&engines, PLAIN)?;
    place.end()
}

#[test]
#[serial]
fn a_login_is_everybodys() -> Result<()> {
    let mut place = place()?;
    guarded(&mut place)?;
    let trusted = place.path("tls.crt");
    let docker = dockerd(&mut place, &trusted)?;
    let engines = Engines {
        place: &place,
        docker,
    };
    let refused = |script: &str, words: &str| -> Result<()> {
        let ended = engines.run(script)?;
        ensure!(ended.status != 0, "{script}: it succeeds");
        ensure!(
            ended.stderr.contains(words),
            "{script}: expected {words:?}, found {:?}",
            ended.stderr
        );
        Ok(())
    };
    let pull = format!("$OURS pull {GUARDED}/from/drydock:1");
    refused(&pull, "drydock login")?;
    // A certificate of nobody that is known.
    refused(&format!("SSL_CERT_FILE=/dev/null {pull}"), "ertificate")?;
    let login = |client: &str, password: &str| {
        format!("echo {password} | {client} login -u dock --password-stdin {GUARDED}")
    };
    refused(&login("$OURS", "wrong"), "unauthorized")?;
    engines.said(&login("$OURS", PASSWORD))?;
    let file = place.dir().join("home/.docker/config.json");
    ensure!(knows(&file)?, "login has not written {file:?}");
    // Ours has logged in, and all others are.
    both_ways(&engines, GUARDED)?;
    engines.said(&format!("$OURS logout {GUARDED}"))?;
    ensure!(!knows(&file)?, "logout has left it in {file:?}");
    refused(&pull, "drydock login")?;
    // Of the others, each has logged in, and ours is.
    for client in ["$DOCKER", "$PODMAN", "$SKOPEO"] {
        engines.said(&login(client, PASSWORD))?;
        engines
            .said(&pull)
            .with_context(|| format!("after {client} login"))?;
        engines.said(&format!("{client} logout {GUARDED}"))?;
        refused(&pull, "drydock login")?;
    }
    place.end()
}

/// Whether there are credentials for the guarded registry in `config.json`.
fn knows(file: &Path) -> Result<bool> {
    Ok(fs::read_to_string(file).context("read")?.contains(GUARDED))
}
