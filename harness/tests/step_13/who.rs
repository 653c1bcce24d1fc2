//! Who we are for a registry: tokens and passwords, and who must not see them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use check::prelude::*;
use serde_json::{Value, json};

use crate::server::{Answer, Server};
use crate::site::Site;

/// Debian's registry, on loopback.
pub(crate) struct Registry {
    pub(crate) host: String,
    child: Child,
}

impl Registry {
    /// Starts one, with a file of users if there is one.
    pub(crate) fn start(c: &Check, users: Option<&Path>) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a free port")?;
        let host = listener.local_addr().context("the address")?.to_string();
        drop(listener);
        let data = c.dir().join("registry");
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": data}},
            "http": {"addr": host},
        });
        if let Some(users) = users {
            config["auth"] = json!({"htpasswd": {"realm": "registry", "path": users}});
        }
        let file = c.dir().join("registry.yml");
        fs::write(&file, config.to_string()).context("write its configuration")?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start docker-registry")?;
        let registry = Registry { host, child };
        let listens = wait_for(|| std::net::TcpStream::connect(&registry.host).ok());
        expect(
            listens.is_some(),
            "docker-registry to listen",
            "it does not",
        )?;
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// `user:password` as `Authorization` has it.
fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three
            .iter()
            .fold(0u32, |number, byte| number << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for n in 0..4 {
            match n <= three.len() {
                true => text.push(char::from(DIGITS[(number >> (18 - 6 * n)) as usize & 63])),
                false => text.push('='),
            }
        }
    }
    text
}

/// Has the registry ask for tokens, which are good for `uses` requests each, and
/// which only `user` gets.
fn with_tokens(server: &Server, user: &str, password: &str, uses: usize) -> Arc<AtomicUsize> {
    let given = Arc::new(AtomicUsize::new(0));
    let counted = given.clone();
    let used: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let wanted = basic(user, password);
    let host = server.host();
    server.rule(move |request, answer| {
        let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
        if request.path == "/token" {
            if request.header("authorization") != wanted {
                return Answer::new(
                    401,
                    "{\"details\":\"incorrect username or password\"}",
                );
            }
            let n = counted.fetch_add(1, Ordering::Relaxed) + 1;
            used.insert(format!("Bearer token{n}"), 0);
            return Answer::new(200, json!({"token": format!("token{n}")}).to_string());
        }
        if let Some(used) = used.get_mut(request.header("authorization"))
            && *used < uses
        {
            *used += 1;
            return answer;
        }
        let repository = request.path.strip_prefix("/v2/").unwrap_or_default();
        let repository = repository.split("/manifests/").next().unwrap_or_default();
        let repository = repository.split("/blobs/").next().unwrap_or_default();
        let demand = format!(
            "Bearer realm=\"http://{host}/token\",service=\"reg\",scope=\"repository:{repository}:pull\""
        );
        Answer::new(401, "").with("www-authenticate", &demand)
    });
    given
}

/// Expects that a word is in nothing that a program says or leaves, but for one
/// file.
fn expect_secret(ran: &Ran, secret: &str, what: &str) -> Result<()> {
    let said = format!("{}{}", ran.stdout, ran.stderr);
    let shown = [
        secret.to_owned(),
        base64(format!("user:{secret}").as_bytes()),
    ];
    expect(
        !shown.iter().any(|one| said.contains(one)),
        format!("{what} to show no password"),
        said.replace(secret, "(the password)"),
    )
}

#[test]
fn a_token_is_asked_for_and_renewed() {
    check(|c| {
        let site = Site::new(c)?;
        let image = site.image("team/app", "1")?;
        let name = site.server.name("team/app:1");
        let secret = c.word("secret");
        let given = with_tokens(&site.server, "user", &secret, 2);
        let ran = site.call(&["pull", "-q", &name]).run()?;
        ran.expect_error(1, &["login"])?;
        let login = |password: &str| {
            let words = [
                "login",
                "-u",
                "user",
                "--password-stdin",
                &site.server.host(),
            ];
            site.call(&words).stdin(format!("{password}\n")).run()
        };
        let wrong = login("wrong")?;
        expect_eq(
            "the status of a login with a wrong password",
            wrong.status,
            1,
        )?;
        let file = site.home.join(".docker/config.json");
        fs::write(&file, r#"{"HttpHeaders":{"X":"y"}}"#).context("write config.json")?;
        let ran = login(&secret)?.success()?;
        expect(
            ran.stdout.contains("Login Succeeded"),
            "`Login Succeeded`",
            &ran.stdout,
        )?;
        expect_secret(&ran, &secret, "login")?;
        let config: Value = serde_json::from_slice(&fs::read(&file).context("read config.json")?)
            .context("config.json")?;
        let auth = config["auths"][site.server.host()]["auth"].as_str();
        expect_eq(
            "what config.json has of it",
            auth,
            Some(&*base64(format!("user:{secret}").as_bytes())),
        )?;
        expect_eq(
            "what was there before",
            config["HttpHeaders"]["X"].as_str(),
            Some("y"),
        )?;
        let mode = fs::metadata(&file).context("stat")?.permissions().mode() & 0o777;
        expect_eq("the mode of config.json", mode, 0o600)?;
        // A token that ends in the middle is renewed.
        let before = given.load(Ordering::Relaxed);
        site.server.asked();
        let ran = site.call(&["--verbose", "pull", &name]).run()?.success()?;
        expect_secret(&ran, &secret, "pull -v")?;
        let tokens = given.load(Ordering::Relaxed) - before;
        expect(
            tokens >= 2,
            "a token that has expired to be renewed",
            format!("{tokens} tokens"),
        )?;
        site.expect_runs(&name, &image.word)?;
        let asked = site.server.asked();
        let scopes: Vec<&str> = asked
            .iter()
            .filter(|one| one.path == "/token")
            .filter(|one| !one.query.contains("scope=repository%3Ateam/app%3Apull"))
            .map(|one| &*one.query)
            .collect();
        expect(
            scopes.is_empty(),
            "each token to be asked for with its scope",
            format!("{scopes:?}"),
        )?;
        let with_password = asked
            .iter()
            .find(|one| one.path != "/token" && one.header("authorization").starts_with("Basic"));
        expect(
            with_password.is_none(),
            "the password to go to the token server only",
            format!("{:?}", with_password.map(|one| &one.path)),
        )?;
        let out = site.said(&["logout", &site.server.host()])?;
        expect(
            out.contains("Removing login credentials"),
            "logout to say so",
            &out,
        )?;
        site.said(&["rmi", &name])?;
        let ran = site.call(&["pull", "-q", &name]).run()?;
        expect_eq("the status of a pull after logout", ran.status, 1)
    });
}

#[test]
fn a_redirect_learns_nothing() {
    check(|c| {
        let site = Site::new(c)?;
        let image = site.image("app", "1")?;
        let storage = Server::start()?;
        for layer in &image.layers {
            storage.blob("app", "", layer);
        }
        let (secret, signature) = (c.word("secret"), c.word("signature"));
        let auths = json!({"auths": {site.server.host(): {"auth": base64(format!("user:{secret}").as_bytes())}}});
        fs::write(site.home.join(".docker/config.json"), auths.to_string())
            .context("write config.json")?;
        let wanted = basic("user", &secret);
        let (to, signed) = (storage.host(), signature.clone());
        site.server.rule(move |request, answer| {
            if request.header("authorization") != wanted {
                return Answer::new(401, "").with("www-authenticate", "Basic realm=\"x\"");
            }
            match request.is_blob() {
                true => {
                    let target = format!("http://{to}{}?sig={signed}", request.path);
                    Answer::new(307, "").with("location", &target)
                }
                false => answer,
            }
        });
        let name = site.server.name("app:1");
        // The configuration is redirected, too.
        storage.blob("app", "", &image.config);
        let ran = site.call(&["--verbose", "pull", &name]).run()?.success()?;
        expect_secret(&ran, &secret, "pull -v")?;
        expect(
            !ran.stderr.contains(&signature),
            "pull -v to show no signature of a storage",
            &ran.stderr,
        )?;
        let asked = storage.asked();
        let told: Vec<&str> = asked
            .iter()
            .map(|one| one.header("authorization"))
            .filter(|one| !one.is_empty())
            .collect();
        expect(!asked.is_empty(), "the storage to be asked", "it is not")?;
        expect(
            told.is_empty(),
            "no Authorization for another server",
            format!("{} requests with one", told.len()),
        )?;
        site.expect_runs(&name, &image.word)?;
        // Redirects that lead nowhere, round and round, or out of HTTP.
        for (what, target) in [
            ("a redirect to itself", "/v2/app/manifests/1"),
            ("a redirect to a file", "file:///etc/passwd"),
            ("a redirect to no server", "http://"),
        ] {
            site.server
                .rule(move |request, answer| match request.is_manifest() {
                    true => Answer::new(302, "").with("location", target),
                    false => answer,
                });
            let ran = site.call(&["pull", "-q", &name]).run()?;
            expect_eq(&format!("the status of a pull with {what}"), ran.status, 1)?;
        }
        Ok(())
    });
}
