//! A headless Chromium, driven through its debugging pipe: the DevTools
//! protocol as JSON messages, each followed by a NUL byte, on descriptors 3 (to
//! the browser) and 4 (from it).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A browser with one tab.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the browser; `None` if no Chromium is installed.
    pub fn start() -> Result<Option<Self>> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let Some(program) = ["chromium", "chromium-browser", "google-chrome"]
            .iter()
            .flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)))
            .find(|program| program.is_file())
        else {
            return Ok(None);
        };
        let profile = tempfile::tempdir().context("make a temporary directory")?;
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null"])
            .arg(program)
            .args([
                "--headless",
                "--remote-debugging-pipe",
                "--no-sandbox", // it refuses one to root, and shows our own pages only
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--hide-scrollbars",
                "--allow-file-access-from-files",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("run chromium")?;
        let to = child.stdin.take().context("the browser's input")?;
        let from = BufReader::new(child.stdout.take().context("the browser's output")?);
        let mut browser = Browser {
            child,
            to,
            from,
            session: None,
            last: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let tab = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attached = browser.call(
            "Target.attachToTarget",
            json!({ "targetId": tab["targetId"], "flatten": true }),
        )?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(Some(browser))
    }

    /// Calls a method of the protocol and returns its result.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last += 1;
        let id = self.last;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = serde_json::to_vec(&message).context("write a message as JSON")?;
        bytes.push(0);
        self.to.write_all(&bytes).context("write to the browser")?;
        loop {
            let message = self.read()?;
            if message["id"].as_u64() != Some(id) {
                self.events.push(message);
                continue;
            }
            if let Some(error) = message.get("error") {
                bail!("{method}: {error}");
            }
            return Ok(message["result"].clone());
        }
    }

    /// Waits for an event. [`errors`](Self::errors) sees the events that arrive
    /// meanwhile.
    pub fn wait_for(&mut self, event: &str) -> Result<()> {
        if self.events.iter().any(|e| e["method"] == event) {
            return Ok(());
        }
        loop {
            let message = self.read()?;
            let arrived = message["method"] == event;
            self.events.push(message);
            if arrived {
                return Ok(());
            }
        }
    }

    /// Forgets all events so far.
    pub fn forget(&mut self) {
        self.events.clear();
    }

    /// The errors of the page since [`forget`](Self::forget): of scripts, of
    /// the console and of loading, and every request to a network.
    pub fn errors(&self) -> Vec<String> {
        self.events
            .iter()
            .filter_map(|event| {
                let params = &event["params"];
                match event["method"].as_str()? {
                    "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
                    "Runtime.consoleAPICalled" if params["type"] == "error" => {
                        Some(params["args"].to_string())
                    }
                    "Log.entryAdded" if params["entry"]["level"] == "error" => {
                        Some(params["entry"]["text"].to_string())
                    }
                    "Network.requestWillBeSent" => {
                        let url = params["request"]["url"].as_str()?;
                        let here = ["file:", "data:", "blob:", "about:"];
                        let elsewhere = !here.iter().any(|scheme| url.starts_with(scheme));
                        elsewhere.then(|| format!("it asks for {url}"))
                    }
                    "Network.loadingFailed" => Some(params["errorText"].to_string()),
                    _ => None,
                }
            })
            .collect()
    }

    /// The value of a JavaScript expression on the page. A promise is awaited.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let result = self.call(
            "Runtime.evaluate",
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }),
        )?;
        if let Some(exception) = result.get("exceptionDetails") {
            bail!("{expression}: {exception}");
        }
        Ok(result["result"]["value"].clone())
    }

    fn read(&mut self) -> Result<Value> {
        let mut bytes = Vec::new();
        self.from
            .read_until(0, &mut bytes)
            .context("read from the browser")?;
        if bytes.pop() != Some(0) {
            bail!("the browser has ended");
        }
        serde_json::from_slice(&bytes).context("parse a message of the browser")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("end the browser: {error}");
        }
    }
}
