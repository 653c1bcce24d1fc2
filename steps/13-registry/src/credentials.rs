//! Names and passwords, where everybody keeps them.
//!
//! They are looked for in podman's `auth.json`, then in Docker's `config.json`;
//! there by a helper program (`credHelpers`, `credsStore`), else as base64 in
//! `auths`. `drydock login` writes them to `config.json` as `docker login` does.
//! Nothing here is ever an argument of a program, and no error shows it.

use std::env;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use data_encoding::BASE64;
use kit::atomic_file::write_file;
use kit::lock::{Turn, wait};
use serde_json::{Map, Value, json};

/// Who somebody is for a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// An identity token: the token server takes it for a password.
    Token(String),
}

/// Shows no secret.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Login::Password { user, .. } => write!(f, "the password of {user:?}"),
            Login::Token(_) => f.write_str("an identity token"),
        }
    }
}

/// The name by which helpers and identity tokens say that there is no name.
const TOKEN_USER: &str = "<token>";

/// Docker's `config.json`.
fn docker_file() -> Option<PathBuf> {
    let directory = env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty());
    let directory = directory.map(PathBuf::from);
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".docker"));
    Some(directory.or_else(home)?.join("config.json"))
}

/// All files that may know a password, in the order in which they are asked.
fn files() -> Vec<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file.into()];
    }
    let runtime = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let user = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")));
    let podman = [runtime, user].into_iter().flatten();
    let podman = podman.map(|directory| directory.join("containers/auth.json"));
    podman.chain(docker_file()).collect()
}

/// The login for a repository of the registry `host`, if there is one.
///
/// # Errors
/// If a file is damaged, or a helper fails.
// ANCHOR: find
pub fn find(host: &str, path: &str) -> Result<Option<Login>> {
    for file in files() {
        let Some(config) = read(&file)? else {
            continue;
        };
        let helper =
            text(&config, &["credHelpers", host]).or_else(|| text(&config, &["credsStore"]));
        if let Some(helper) = helper
            && let Some(login) = ask(helper, host)?
        {
            return Ok(Some(login));
        }
        let auths = config.get("auths").and_then(Value::as_object);
        if let Some(entry) = auths.and_then(|auths| entry(auths, host, path)) {
            return of_entry(entry).with_context(|| format!("{file:?}: auths of {host}"));
        }
    }
    Ok(None)
}
// ANCHOR_END: find

/// The entry for a repository: podman's may be for a part of a registry. Old
/// ones are URLs.
fn entry<'a>(auths: &'a Map<String, Value>, host: &str, path: &str) -> Option<&'a Value> {
    let mut key = format!("{host}/{path}");
    loop {
        let url = || {
            auths
                .iter()
                .find(|(name, _)| is_url_of(name, &key))
                .map(|(_, entry)| entry)
        };
        if let Some(entry) = auths.get(&key).or_else(url) {
            return Some(entry);
        }
        key.truncate(key.rfind('/')?);
    }
}

/// Whether `name` is a URL with that host and an old version of the protocol.
fn is_url_of(name: &str, host: &str) -> bool {
    let Some((_, rest)) = name.split_once("://") else {
        return false;
    };
    let rest = rest.trim_end_matches('/');
    let rest = rest
        .strip_suffix("/v1")
        .or(rest.strip_suffix("/v2"))
        .unwrap_or(rest);
    rest == host
}

fn of_entry(entry: &Value) -> Result<Option<Login>> {
    if let Some(token) = text(entry, &["identitytoken"]) {
        return Ok(Some(Login::Token(token.to_owned())));
    }
    let Some(auth) = text(entry, &["auth"]) else {
        let (user, password) = (text(entry, &["username"]), text(entry, &["password"]));
        let both = user.zip(password);
        return Ok(both.map(|(user, password)| Login::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        }));
    };
    // No word of what is in it may be shown.
    let decoded = BASE64.decode(auth.as_bytes()).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.context("it is not base64 of a name and a password")?;
    let (user, password) = decoded.split_once(':').context("it holds no colon")?;
    Ok(Some(Login::Password {
        user: user.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
    }))
}

fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    let found = path.iter().try_fold(value, |value, part| value.get(part))?;
    found.as_str().filter(|text| !text.is_empty())
}

fn read(file: &Path) -> Result<Option<Value>> {
    match fs::read(file) {
        Ok(json) if json.trim_ascii().is_empty() => Ok(None),
        // The library's errors quote nothing of a string.
        Ok(json) => serde_json::from_slice(&json)
            .with_context(|| format!("{file:?} is damaged"))
            .map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {file:?}")),
    }
}

/// Runs a helper: `docker-credential-NAME ACTION`, with `input` on its standard
/// input. Returns what it prints; `None` if it knows nothing.
fn run_helper(name: &str, action: &str, input: &str) -> Result<Option<Vec<u8>>> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    ensure!(
        name.chars().all(is_plain),
        "{name:?} is not the name of a credential helper"
    );
    let program = format!("docker-credential-{name}");
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("execute {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // It has ended, and its status says why.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written.with_context(|| format!("write to {program}"))?,
        }
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("wait for {program}"))?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    if said.contains("credentials not found") {
        return Ok(None);
    }
    // What it prints may hold what it was given.
    bail!("{program} {action}: {}", output.status)
}

fn ask(helper: &str, host: &str) -> Result<Option<Login>> {
    let Some(output) = run_helper(helper, "get", host)? else {
        return Ok(None);
    };
    let answer: Value = serde_json::from_slice(&output)
        .map_err(|_| anyhow!("docker-credential-{helper} get: its answer is no JSON"))?;
    let (user, secret) = (text(&answer, &["Username"]), text(&answer, &["Secret"]));
    Ok(match (user, secret) {
        (Some(TOKEN_USER), Some(secret)) => Some(Login::Token(secret.to_owned())),
        (Some(user), Some(secret)) => Some(Login::Password {
            user: user.to_owned(),
            password: secret.to_owned(),
        }),
        _ => None,
    })
}

/// Keeps a login for the registry `host`, in `config.json` or by its helper.
/// Returns the file if the password is in it, where anybody who may read it can
/// read the password.
pub fn keep(host: &str, user: &str, password: &str) -> Result<Option<PathBuf>> {
    change(|config, file| {
        if let Some(helper) = helper_of(config, host) {
            let input = json!({ "ServerURL": host, "Username": user, "Secret": password });
            run_helper(&helper, "store", &input.to_string())?
                .with_context(|| format!("docker-credential-{helper} store"))?;
            object(config, "auths")?.insert(host.to_owned(), json!({}));
            return Ok(None);
        }
        let auth = BASE64.encode(format!("{user}:{password}").as_bytes());
        object(config, "auths")?.insert(host.to_owned(), json!({ "auth": auth }));
        Ok(Some(file.to_owned()))
    })
}

/// Forgets the login for the registry `host`. Returns whether there was one.
pub fn forget(host: &str) -> Result<bool> {
    change(|config, _| {
        if let Some(helper) = helper_of(config, host) {
            run_helper(&helper, "erase", host)?;
        }
        Ok(object(config, "auths")?.remove(host).is_some())
    })
}

fn helper_of(config: &Value, host: &str) -> Option<String> {
    let of_host = text(config, &["credHelpers", host]);
    of_host
        .or_else(|| text(config, &["credsStore"]))
        .map(str::to_owned)
}

fn object<'a>(config: &'a mut Value, name: &str) -> Result<&'a mut Map<String, Value>> {
    let config = config
        .as_object_mut()
        .context("config.json is not an object")?;
    let value = config.entry(name).or_insert_with(|| json!({}));
    value
        .as_object_mut()
        .with_context(|| format!("{name} of config.json is not an object"))
}

/// Changes `config.json`, and keeps what it says of other things.
fn change<T>(change: impl FnOnce(&mut Value, &Path) -> Result<T>) -> Result<T> {
    let file = docker_file().context("neither DOCKER_CONFIG nor HOME is set")?;
    let directory = file.parent().context("the directory of config.json")?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("mkdir({directory:?})"))?;
    // Two logins at once.
    let open = File::open(directory).with_context(|| format!("open({directory:?})"))?;
    wait(&open, Turn::Judging, directory)?;
    let mut config = read(&file)?.unwrap_or_else(|| json!({}));
    let result = change(&mut config, &file)?;
    let json = serde_json::to_vec_pretty(&config).context("write config.json")?;
    // A link is kept: some people keep this file elsewhere.
    let target = fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
    write_file(&target, json)?;
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&target, mode).with_context(|| format!("chmod({target:?})"))?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_may_be_for_a_part_of_a_registry() {
        let auths = json!({"h.org": {"auth": "YTpi"}, "h.org/team": {"auth": "YzpkOmU="},
            "https://old.org/v1/": {"auth": "YTpi"}});
        let auths = auths.as_object().unwrap();
        let user = |host: &str, path: &str| match of_entry(entry(auths, host, path)?).unwrap()? {
            Login::Password { user, password } => Some(format!("{user} {password}")),
            Login::Token(_) => None,
        };
        assert_eq!(user("h.org", "app").unwrap(), "a b");
        assert_eq!(user("h.org", "team/app").unwrap(), "c d:e");
        assert_eq!(user("old.org", "team/app").unwrap(), "a b");
        assert_eq!(user("org", "h.org"), None);
        assert_eq!(user("h.org.evil", "app"), None);
    }

    #[test]
    fn no_error_shows_a_secret() {
        for bad in ["c2VjcmV0", "s3cret!"] {
            let error = format!("{:#}", of_entry(&json!({ "auth": bad })).unwrap_err());
            assert!(!error.contains("s3cret") && !error.contains("secret"));
        }
        let login = Login::Password {
            user: "u".into(),
            password: "s3cret".into(),
        };
        assert!(!format!("{login:?}").contains("s3cret"));
        assert!(!format!("{:?}", Login::Token("s3cret".into())).contains("s3cret"));
    }
}
