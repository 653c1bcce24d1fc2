//! The processes that do the work of a build.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use engine::cli::places::Places;
use lifecycle::monitor::detach::{again, environment};

use crate::build::cache::Lease;
use crate::build::error::canceled;
use crate::build::order::{Answer, Order};
use crate::progress::Vertex;

/// The word by which the program is told to work for a build.
pub const WORD: &str = "build-worker";

/// The longest answer, in bytes: it may list the files of a `COPY`.
const LONGEST: u64 = 1 << 30;

/// All workers of a build.
#[derive(Debug, Default)]
pub struct Workers {
    state: Mutex<State>,
    /// Told when a worker ends.
    free: Condvar,
}

#[derive(Debug, Default)]
struct State {
    canceled: bool,
    running: usize,
    sockets: Vec<(u64, UnixStream)>,
    next: u64,
    leases: Vec<Lease>,
}

impl Workers {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps layers to the end of the build.
    pub fn hold(&self, lease: Lease) {
        self.state().leases.push(lease);
    }

    /// Ends all workers, and lets no other one begin. A worker whose socket ends
    /// kills its container, and cleans up.
    pub fn cancel(&self) {
        let mut state = self.state();
        state.canceled = true;
        for (_, socket) in &state.sockets {
            // One that has ended is not connected any more.
            if let Err(error) = socket.shutdown(Shutdown::Both) {
                kit::say!("shutdown: {error}");
            }
        }
        self.free.notify_all();
    }

    /// Whether the build has been broken off.
    pub fn is_canceled(&self) -> bool {
        self.state().canceled
    }

    /// Has an order carried out. What the command prints goes to `vertex`.
    // ANCHOR: ask
    pub fn ask(&self, places: &Places, order: &Order, vertex: &Vertex) -> Result<Answer> {
        let (ours, theirs) = UnixStream::pair().context("socketpair")?;
        let turn = self.begin(&ours)?;
        let (output, to) = pipe().context("pipe")?;
        let (errors, to_errors) = pipe().context("pipe")?;
        let words = again(places);
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(&words[0])
            .args(&words[1..])
            .arg(WORD)
            .env_clear()
            .envs(environment().iter().filter_map(|pair| {
                let pair = pair.to_str()?;
                pair.split_once('=')
            }))
            .stdin(OwnedFd::from(theirs))
            .stdout(to)
            .stderr(to_errors)
            // Ctrl-C is for this process, which tells the workers.
            .process_group(0);
        let mut child = command.spawn().context("execute /proc/self/exe")?;
        drop(command);
        let answer = thread::scope(|scope| {
            let relays = [output, errors].map(|from| scope.spawn(move || relay(from, vertex)));
            let answer = talk(&ours, order);
            for relay in relays {
                if relay.join().is_err() {
                    bail!("the thread that reads the output has panicked");
                }
            }
            answer
        });
        let status = reap(&mut child);
        drop(turn);
        if self.is_canceled() {
            return Err(canceled());
        }
        match (answer?, status?) {
            (Some(answer), _) => Ok(answer),
            (None, status) => Err(anyhow!("the process that builds has ended: {status}")),
        }
    }
    // ANCHOR_END: ask

    /// Waits until there are not too many workers.
    fn begin(&self, socket: &UnixStream) -> Result<Turn<'_>> {
        let most = thread::available_parallelism().map_or(2, usize::from) * 2;
        let mut state = self.state();
        while state.running >= most && !state.canceled {
            state = self
                .free
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.canceled {
            return Err(canceled());
        }
        state.running += 1;
        let number = state.next;
        state.next += 1;
        let socket = socket.try_clone().context("dup")?;
        state.sockets.push((number, socket));
        Ok(Turn {
            workers: self,
            number,
        })
    }
}

/// A worker that runs.
struct Turn<'a> {
    workers: &'a Workers,
    number: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.workers.state();
        state.running -= 1;
        state.sockets.retain(|(number, _)| *number != self.number);
        self.workers.free.notify_one();
    }
}

/// Sends the order and waits for the answer; `None` if the worker ends without
/// one.
fn talk(mut socket: &UnixStream, order: &Order) -> Result<Option<Answer>> {
    let mut json = serde_json::to_vec(order).context("write JSON")?;
    json.push(b'\n');
    if let Err(error) = socket.write_all(&json) {
        // It has ended: its status says why.
        kit::say!("write the order: {error}");
        return Ok(None);
    }
    let mut line = Vec::new();
    BufReader::new(socket.take(LONGEST))
        .read_until(b'\n', &mut line)
        .context("read the answer")?;
    if line.last() != Some(&b'\n') {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .context("the worker's answer")
        .map(Some)
}

/// Passes on what a command prints, line by line.
fn relay(from: PipeReader, vertex: &Vertex) {
    let mut from = BufReader::with_capacity(1 << 16, from);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without an end comes in pieces.
        let read = (&mut from).take(1 << 14).read_until(b'\n', &mut line);
        match read {
            Ok(0) | Err(_) => return,
            Ok(_) if vertex.output(&line) => {}
            // Nobody sees more of it. The command goes on.
            Ok(_) => {
                if let Err(error) = std::io::copy(&mut from, &mut std::io::sink()) {
                    kit::say!("read the output: {error}");
                }
                return;
            }
        }
    }
}

fn reap(child: &mut Child) -> Result<std::process::ExitStatus> {
    child.wait().context("wait for the worker")
}

/// Opens the null device in the place of standard input, and returns what was
/// there: the socket of the caller.
pub fn caller() -> Result<UnixStream> {
    use std::os::fd::AsFd;
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("dup(0)")?;
    let null = File::open("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("dup2(/dev/null, 0)")?;
    Ok(socket.into())
}
