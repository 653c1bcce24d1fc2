//! Requests to one registry.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use kit::say;
use kit::say::printable;
use serde_json::Value;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, Body, SendBody};

use crate::credentials::Login;
use crate::http::agent::agent;
use crate::http::pace::Paced;
use crate::http::url::{Scheme, Url};
use crate::reference::is_loopback;

/// The most redirects that are followed.
const MOST_REDIRECTS: usize = 5;
/// How often a request is repeated that was refused for who we are: a password
/// that is wrong does not become right.
const MOST_REFUSALS: usize = 2;
/// How often a request is repeated that a busy server has put off.
const MOST_WAITS: u32 = 5;
/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The largest text of an error that is read, in bytes.
const LARGEST_ERROR: u64 = 64 << 10;

/// What a request carries. It may be sent more than once.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(&'a [u8]),
    /// A part of a file.
    Part {
        /// The file.
        file: &'a File,
        /// Where the part begins, in bytes.
        offset: u64,
        /// Its bytes.
        length: u64,
    },
}

/// A registry that is spoken to.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    pub(super) base: Url,
    pub(super) login: Option<Login>,
    pub(super) insecure: bool,
    pub(super) patience: Duration,
    /// By their scopes, the values of `Authorization` that were accepted last.
    authorizations: Mutex<HashMap<String, String>>,
}

/// An answer that means an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: u16,
    /// The code of the first error, such as `MANIFEST_UNKNOWN`; or empty.
    pub code: String,
    /// What the server says about it.
    pub message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.code, &*self.message) {
            ("", "") => write!(f, "the registry answers {}", self.status),
            ("", message) => write!(f, "the registry answers {}: {message}", self.status),
            // As Docker shows it.
            (code, message) => write!(f, "{}: {message}", code.to_lowercase().replace('_', " ")),
        }
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// The refusal in an error, if it is one.
    pub fn of(error: &Error) -> Option<&Self> {
        error.downcast_ref()
    }
}

/// A connection that has failed, or taken too long: another attempt may succeed.
#[derive(Debug)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

impl Client {
    /// Connects to the registry `host`, by TLS. Plain HTTP is tried with a
    /// registry on this machine, and with one that is `insecure`.
    // ANCHOR: connect
    pub fn connect(
        host: &str,
        insecure: bool,
        login: Option<Login>,
        patience: Duration,
    ) -> Result<Self> {
        let schemes: &[Scheme] = match (is_loopback(host), insecure) {
            // Nobody listens in between; and a server of TLS says that it is one.
            (true, _) => &[Scheme::Http, Scheme::Https],
            (false, true) => &[Scheme::Https, Scheme::Http],
            (false, false) => &[Scheme::Https],
        };
        let mut failed = None;
        for scheme in schemes {
            let client = Client {
                agent: agent(host, *scheme, insecure, patience)?,
                base: Url::new(*scheme, host, "/"),
                login: login.clone(),
                insecure,
                patience,
                authorizations: Mutex::new(HashMap::new()),
            };
            let url = client.url("/v2/");
            match client.once(&Method::GET, &url, &[], &Payload::None) {
                // Go's servers of TLS answer so to those who do not speak it.
                Ok(response) if *scheme == Scheme::Http && response.status() == 400 => {
                    failed = Some(anyhow!("{url}: the registry answers 400"));
                }
                Ok(response) if response.status().is_success() || response.status() == 401 => {
                    return Ok(client);
                }
                Ok(response) => {
                    return Err(error_of(response, patience)
                        .context(format!("{host} does not look like a registry: {url}")));
                }
                Err(error) => failed = Some(error),
            }
        }
        let hint = match (is_loopback(host), insecure) {
            (false, false) => " (plain HTTP needs --insecure-registry)",
            _ => "",
        };
        Err(failed.unwrap_or_else(|| anyhow!("no way to it")))
            .with_context(|| format!("the registry {host} cannot be reached{hint}"))
    }
    // ANCHOR_END: connect

    /// The URL of a path of the registry.
    pub fn url(&self, path: &str) -> Url {
        Url::new(self.base.scheme, &self.base.host, path)
    }

    /// The registry, `HOST[:PORT]`.
    pub fn host(&self) -> &str {
        &self.base.host
    }

    /// How long this registry may keep us waiting.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Sends a request, and answers what the registry asks in return: who we
    /// are, later, elsewhere. `scopes` are the rights that the request needs.
    ///
    /// # Errors
    /// If there is no answer. An answer that means an error is returned as an
    /// answer.
    // ANCHOR: send
    pub fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &[(&str, &str)],
        payload: &Payload<'_>,
        scopes: &[String],
    ) -> Result<Response<Body>> {
        let mut url = url.clone();
        let (mut redirects, mut waits, mut refusals) = (0, 0, 0);
        loop {
            // Whoever the registry sends us to learns nothing about us.
            let at_home = url.is_same_origin(&self.base);
            let authorization = at_home.then(|| self.authorization(scopes)).flatten();
            let mut all = headers.to_vec();
            all.extend(
                authorization
                    .iter()
                    .map(|value| ("authorization", value.as_str())),
            );
            let response = self.once(method, &url, &all, payload)?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && at_home && refusals < MOST_REFUSALS {
                refusals += 1;
                // The token has expired, or there was none yet. Another thread
                // may have a new one already.
                if self.authorization(scopes) == authorization {
                    let demands = values(&response, "www-authenticate");
                    let authorization = self.authorize(&demands, scopes)?;
                    self.remember(scopes, authorization);
                }
            } else if is_later(status) && waits < MOST_WAITS {
                let wait = wait_of(&response, waits);
                say!("{url}: {status}, again in {wait:?}");
                sleep(wait);
                waits += 1;
            } else if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
                redirects += 1;
                ensure!(redirects <= MOST_REDIRECTS, "{url}: too many redirects");
                let location = values(&response, "location").pop();
                let location = location.with_context(|| format!("{url}: a redirect to nowhere"))?;
                let target = url
                    .join(&location)
                    .with_context(|| format!("{url}: a redirect"))?;
                self.check_target(&target)?;
                say!("{url}: on to {target}");
                url = target;
            } else {
                return Ok(response);
            }
        }
    }
    // ANCHOR_END: send

    /// Refuses a way that is less safe than the registry itself: a URL without
    /// encryption.
    pub fn check_target(&self, target: &Url) -> Result<()> {
        let is_safe = target.scheme == Scheme::Https
            || self.base.scheme == Scheme::Http && (is_loopback(&target.host) || self.insecure);
        ensure!(
            is_safe,
            "the registry leads to {target}, without encryption: refused"
        );
        Ok(())
    }

    /// Sends a request once, as it is.
    pub(super) fn once(
        &self,
        method: &Method,
        url: &Url,
        headers: &[(&str, &str)],
        payload: &Payload<'_>,
    ) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(url.whole());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let invalid = || format!("{url}: the request is not valid");
        let sent = match payload {
            Payload::None if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
                self.agent.run(request.body(&[][..]).with_context(invalid)?)
            }
            Payload::None => self.agent.run(request.body(()).with_context(invalid)?),
            Payload::Bytes(bytes) => self.agent.run(request.body(*bytes).with_context(invalid)?),
            Payload::Part {
                file,
                offset,
                length,
            } => {
                let mut part = Part {
                    file,
                    at: *offset,
                    left: *length,
                };
                let body = SendBody::from_reader(&mut part);
                let request = request.header("content-length", length.to_string());
                self.agent.run(request.body(body).with_context(invalid)?)
            }
        };
        sent.map_err(|error| Error::new(Broken(printable(&format!("{url}: {error}")))))
    }

    fn authorization(&self, scopes: &[String]) -> Option<String> {
        let known = self
            .authorizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.get(&scopes.join(" ")).cloned()
    }

    fn remember(&self, scopes: &[String], authorization: String) {
        let mut known = self
            .authorizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.insert(scopes.join(" "), authorization);
    }

    /// Whether the registry accepts who we are.
    ///
    /// # Errors
    /// If it does not, with its reason.
    pub fn check_login(&self) -> Result<()> {
        let response = self.send(&Method::GET, &self.url("/v2/"), &[], &Payload::None, &[])?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(error_of(response, self.patience)),
        }
    }
}

/// The values of a header.
pub fn values(response: &Response<Body>, name: &str) -> Vec<String> {
    let values = response.headers().get_all(name).iter();
    values
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect()
}

/// The value of a header; the first, if there are several.
pub fn value(response: &Response<Body>, name: &str) -> Option<String> {
    values(response, name).into_iter().next()
}

/// Whether a status asks to come back later.
fn is_later(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 503)
}

/// How long to wait before the same request: what `Retry-After` says, in
/// seconds, else longer each time.
fn wait_of(response: &Response<Body>, waits: u32) -> Duration {
    let said = value(response, "retry-after").and_then(|text| text.trim().parse().ok());
    said.map_or(Duration::from_millis(250 << waits), Duration::from_secs)
        .min(LONGEST_WAIT)
}

/// What is wrong, from an answer that means an error.
pub fn error_of(response: Response<Body>, patience: Duration) -> Error {
    let status = response.status().as_u16();
    let mut refused = Refused {
        status,
        code: String::new(),
        message: String::new(),
    };
    let text = read_small(response, LARGEST_ERROR, patience).unwrap_or_default();
    if let Ok(value) = serde_json::from_slice::<Value>(&text) {
        let first = value.pointer("/errors/0");
        let part = |name: &str| {
            first
                .and_then(|first| first.get(name))
                .and_then(Value::as_str)
        };
        let shown = |text: &str| printable(&text.chars().take(300).collect::<String>());
        refused.code = part("code").map(shown).unwrap_or_default();
        let message = part("message").or_else(|| value.get("details").and_then(Value::as_str));
        refused.message = message.map(shown).unwrap_or_default();
    }
    Error::new(refused)
}

/// Reads an answer of at most `most` bytes.
pub fn read_small(response: Response<Body>, most: u64, patience: Duration) -> Result<Vec<u8>> {
    if let Some(said) = value(&response, "content-length").and_then(|text| text.parse::<u64>().ok())
        && said > most
    {
        bail!("the answer has {said} bytes, and at most {most} are read");
    }
    let reader = response
        .into_body()
        .into_with_config()
        .limit(u64::MAX)
        .reader();
    let mut bytes = Vec::new();
    Paced::new(reader, patience)
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new(Broken(format!("the answer breaks off: {error}"))))?;
    ensure!(
        bytes.len() as u64 <= most,
        "the answer has more than {most} bytes"
    );
    Ok(bytes)
}

/// A part of a file, as a stream.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..length], self.at)?;
        if read == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
