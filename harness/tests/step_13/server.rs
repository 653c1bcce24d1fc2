//! A registry on loopback that does as it is told: it keeps what it gets, writes
//! down what it is asked, and lies where a check wants it to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use check::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The path, without the query.
    pub(crate) path: String,
    /// The query, without the `?`.
    pub(crate) query: String,
    /// The headers, their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Whether it asks for a blob.
    pub(crate) fn is_blob(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/sha256:")
    }

    /// Whether it asks for a manifest.
    pub(crate) fn is_manifest(&self) -> bool {
        self.method == "GET" && self.path.contains("/manifests/")
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) how: How,
}

/// How an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// As it should be.
    Whole,
    /// So many bytes of the body, then the connection ends.
    Cut(usize),
    /// The body again and again, without an end.
    Endless,
    /// The head, and then a byte now and then.
    Drip,
    /// Nothing at all.
    Silent,
    /// The end of the connection.
    Gone,
    /// The head, and so many bytes; the rest when [`Server::go_on`] says so.
    Held(usize),
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Answer {
            status,
            headers: Vec::new(),
            body: body.into(),
            how: How::Whole,
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn sent(mut self, how: How) -> Self {
        self.how = how;
        self
    }

    fn error(status: u16, code: &str) -> Self {
        let body = json!({"errors": [{"code": code, "message": code.to_lowercase()}]});
        Answer::new(status, body.to_string()).with("content-type", "application/json")
    }
}

/// What a check changes: the request, its number among its like, the honest
/// answer.
type Rule = Box<dyn Fn(&Request, Answer) -> Answer + Send + Sync>;

#[derive(Default)]
struct State {
    blobs: BTreeMap<(String, String), Vec<u8>>,
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// After how many bytes the next upload is torn off.
    tear: Option<usize>,
    asked: Vec<Request>,
}

struct Shared {
    state: Mutex<State>,
    rule: Mutex<Option<Arc<Rule>>>,
    stop: AtomicBool,
    go_on: AtomicBool,
}

/// The registry. It ends when it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The digest of `bytes`, as registries spell it.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes);
    let hex: String = hex.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
        let address = listener.local_addr().context("the address")?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            rule: Mutex::default(),
            stop: AtomicBool::new(false),
            go_on: AtomicBool::new(false),
        });
        let of_thread = shared.clone();
        let thread = thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming() {
                if of_thread.stop.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let shared = of_thread.clone();
                connections.push(thread::spawn(move || serve(&shared, &stream)));
            }
            for connection in connections {
                connection.join().ok();
            }
        });
        Ok(Server {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// The name of an image here.
    pub(crate) fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }

    /// From now on answers are changed so.
    pub(crate) fn rule(&self, rule: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static) {
        *locked(&self.shared.rule) = Some(Arc::new(Box::new(rule)));
    }

    /// From now on answers are honest.
    pub(crate) fn honest(&self) {
        *locked(&self.shared.rule) = None;
    }

    /// Lets answers go on that were [`How::Held`].
    pub(crate) fn go_on(&self) {
        self.shared.go_on.store(true, Ordering::Relaxed);
    }

    /// Takes so many bytes of the next upload that has more, and then the
    /// connection ends.
    pub(crate) fn tear(&self, bytes: usize) {
        locked(&self.shared.state).tear = Some(bytes);
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut locked(&self.shared.state).asked)
    }

    /// How often something was asked so far.
    pub(crate) fn count(&self, of: impl Fn(&Request) -> bool) -> usize {
        locked(&self.shared.state)
            .asked
            .iter()
            .filter(|one| of(one))
            .count()
    }

    /// Puts a blob into a repository. Returns its descriptor.
    pub(crate) fn blob(&self, repository: &str, kind: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let key = (repository.to_owned(), digest.clone());
        locked(&self.shared.state).blobs.insert(key, bytes.to_vec());
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    /// Puts a manifest into a repository, under a tag and its digest. Returns its
    /// descriptor.
    pub(crate) fn manifest(&self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let mut state = locked(&self.shared.state);
        for name in [tag, &digest] {
            let key = (repository.to_owned(), name.to_owned());
            state
                .manifests
                .insert(key, (kind.to_owned(), bytes.to_vec()));
        }
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    /// The manifest of a repository under this tag: its type and its bytes.
    pub(crate) fn stored(&self, repository: &str, tag: &str) -> Option<(String, Vec<u8>)> {
        let key = (repository.to_owned(), tag.to_owned());
        locked(&self.shared.state).manifests.get(&key).cloned()
    }

    /// Whether a repository has a blob.
    pub(crate) fn has(&self, repository: &str, digest: &str) -> bool {
        let key = (repository.to_owned(), digest.to_owned());
        locked(&self.shared.state).blobs.contains_key(&key)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.go_on();
        // To wake it.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// One request on one connection.
fn serve(shared: &Shared, stream: &TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok();
    stream.set_write_timeout(Some(Duration::from_secs(10))).ok();
    let mut reader = BufReader::new(stream);
    let Some(request) = read(&mut reader) else {
        return;
    };
    let honest = answer(shared, &request);
    locked(&shared.state).asked.push(request.clone());
    let rule = locked(&shared.rule).clone();
    let answer = match rule {
        Some(rule) => rule(&request, honest),
        None => honest,
    };
    // Whoever asked may have gone.
    send(shared, stream, &request, &answer).ok();
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body,
    })
}

/// The value of a parameter, decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query
        .split('&')
        .find_map(|one| one.strip_prefix(&format!("{name}=")))?;
    Some(value.replace("%3A", ":").replace("%2F", "/"))
}

/// What an honest registry answers.
fn answer(shared: &Shared, request: &Request) -> Answer {
    let mut state = locked(&shared.state);
    let Some(rest) = request.path.strip_prefix("/v2/") else {
        return Answer::error(404, "NOT_FOUND");
    };
    if rest.is_empty() {
        return Answer::new(200, "{}");
    }
    if let Some((repository, reference)) = rest.split_once("/manifests/") {
        let key = (repository.to_owned(), reference.to_owned());
        if request.method == "PUT" {
            let kind = request.header("content-type").to_owned();
            let digest = digest(&request.body);
            let by_digest = (repository.to_owned(), digest.clone());
            state
                .manifests
                .insert(key, (kind.clone(), request.body.clone()));
            state
                .manifests
                .insert(by_digest, (kind, request.body.clone()));
            return Answer::new(201, "").with("docker-content-digest", &digest);
        }
        return match state.manifests.get(&key) {
            Some((kind, bytes)) => Answer::new(200, bytes.clone())
                .with("content-type", kind)
                .with("docker-content-digest", &digest(bytes)),
            None => Answer::error(404, "MANIFEST_UNKNOWN"),
        };
    }
    if let Some((repository, upload)) = rest.split_once("/blobs/uploads/") {
        return uploaded(&mut state, request, repository, upload);
    }
    if let Some((repository, digest)) = rest.split_once("/blobs/") {
        let key = (repository.to_owned(), digest.to_owned());
        return match state.blobs.get(&key) {
            Some(bytes) => part(request, bytes),
            None => Answer::error(404, "BLOB_UNKNOWN"),
        };
    }
    Answer::error(404, "NOT_FOUND")
}

/// A blob, or the part of it that is asked for.
fn part(request: &Request, bytes: &[u8]) -> Answer {
    let range = request.header("range").strip_prefix("bytes=");
    let from = range.and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        None => Answer::new(200, bytes),
        Some(from) if from < bytes.len() => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Answer::new(206, &bytes[from..]).with("content-range", &range)
        }
        Some(_) => Answer::error(416, "RANGE_INVALID"),
    }
}

fn uploaded(state: &mut State, request: &Request, repository: &str, upload: &str) -> Answer {
    // Relative, and with its state in the query, as the specification allows.
    let at = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}?_state=a%3D{id}");
    let sends = matches!(&*request.method, "PATCH" | "PUT");
    if let Some(bytes) = state.tear.filter(|at| sends && *at < request.body.len()) {
        state.tear = None;
        let begun = state.uploads.entry(upload.to_owned()).or_default();
        begun.extend(&request.body[..bytes]);
        return Answer::new(500, "").sent(How::Gone);
    }
    match &*request.method {
        "POST" => {
            let mount = parameter(&request.query, "mount");
            if let (Some(digest), Some(from)) = (mount, parameter(&request.query, "from"))
                && let Some(bytes) = state.blobs.get(&(from, digest.clone())).cloned()
            {
                state.blobs.insert((repository.to_owned(), digest), bytes);
                return Answer::new(201, "");
            }
            let id = format!("u{}", state.uploads.len());
            state.uploads.insert(id.clone(), Vec::new());
            Answer::new(202, "").with("location", &at(&id))
        }
        _ if parameter(&request.query, "_state") != Some(format!("a%3D{upload}")) => {
            Answer::error(400, "BLOB_UPLOAD_INVALID")
        }
        "GET" => match state.uploads.get(upload) {
            Some(begun) => {
                let range = format!("0-{}", begun.len().saturating_sub(1));
                let answer = Answer::new(204, "").with("range", &range);
                answer.with("location", &at(upload))
            }
            None => Answer::error(404, "BLOB_UPLOAD_UNKNOWN"),
        },
        "PATCH" => {
            let upload_id = upload.to_owned();
            let begun = state.uploads.entry(upload_id).or_default();
            let first = request.header("content-range").split('-').next();
            if first != Some(&*begun.len().to_string()) {
                return Answer::error(416, "RANGE_INVALID");
            }
            begun.extend(&request.body);
            Answer::new(202, "").with("location", &at(upload))
        }
        "PUT" => {
            let mut bytes = state.uploads.remove(upload).unwrap_or_default();
            bytes.extend(&request.body);
            let said = parameter(&request.query, "digest").unwrap_or_default();
            if said != digest(&bytes) {
                return Answer::error(400, "DIGEST_INVALID");
            }
            state.blobs.insert((repository.to_owned(), said), bytes);
            Answer::new(201, "")
        }
        _ => Answer::new(204, ""),
    }
}

fn send(
    shared: &Shared,
    mut stream: &TcpStream,
    request: &Request,
    answer: &Answer,
) -> std::io::Result<()> {
    let pause = || {
        thread::sleep(Duration::from_millis(50));
        !shared.stop.load(Ordering::Relaxed)
    };
    if answer.how == How::Silent {
        while pause() {}
        return Ok(());
    }
    if answer.how == How::Gone {
        return Ok(());
    }
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let has_length = answer
        .headers
        .iter()
        .any(|(name, _)| name == "content-length");
    if answer.how != How::Endless && answer.status != 204 && !has_length {
        head += &format!("content-length: {}\r\n", answer.body.len());
    }
    head += "\r\n";
    stream.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    match answer.how {
        How::Cut(bytes) => stream.write_all(&answer.body[..bytes.min(answer.body.len())]),
        How::Endless => {
            while !shared.stop.load(Ordering::Relaxed) {
                stream.write_all(&answer.body)?;
            }
            Ok(())
        }
        How::Drip => {
            for byte in &answer.body {
                stream.write_all(&[*byte])?;
                if !pause() {
                    break;
                }
            }
            Ok(())
        }
        How::Held(bytes) => {
            let (first, rest) = answer.body.split_at(bytes.min(answer.body.len()));
            stream.write_all(first)?;
            while !shared.go_on.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(2));
            }
            stream.write_all(rest)
        }
        How::Whole | How::Silent | How::Gone => stream.write_all(&answer.body),
    }
}
