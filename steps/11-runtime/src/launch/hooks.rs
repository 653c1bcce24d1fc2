//! Hooks (config.md “POSIX-platform Hooks”): programs of the caller that run at
//! six points of a container's life, with its state on their standard input.
//!
//! | kind | who runs it, and where |
//! |---|---|
//! | `prestart`, `createRuntime` | `create`, on the host, when the mounts are made and the root has not changed |
//! | `createContainer` | the child, in the container's namespaces, at the same point |
//! | `startContainer` | the child, in the container, just before the command, and behind the same filter |
//! | `poststart` | `start`, on the host |
//! | `poststop` | `delete`, on the host |
//!
//! A hook may hang. It ends at its timeout, with the runtime that waits for it,
//! and, during a creation, with the child.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::mem::{ManuallyDrop, take};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use harden::Door;
use harden::seccomp::listener::Listener;
use kit::{say, sys};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use process::Isolation;
use process::exec::refuse_own_program;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::config::Hook;
use crate::launch::identity::Asked;
use crate::state::{OciState, Status};

/// Runs hooks in their order, up to the first that fails.
///
/// # Errors
/// Names the kind and the path, with the status and the last words of the hook.
pub(crate) fn run_all(kind: &str, hooks: &[Hook], state: &OciState) -> Result<()> {
    run_while(kind, hooks, state, None)
}

/// Runs hook number `n`, from 0. Errors have runc's words, which engines pass on.
fn named(n: usize, kind: &str, hook: &Hook, run: impl FnOnce() -> Result<()>) -> Result<()> {
    say!("hook {kind} {:?}", hook.path);
    run().with_context(|| format!("error running hook #{n}: {kind} {:?}", hook.path))
}

/// Runs hooks as long as the other end of `socket` is open.
fn run_while(
    kind: &str,
    hooks: &[Hook],
    state: &OciState,
    socket: Option<BorrowedFd<'_>>,
) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_vec(state).context("serialise the state")?;
    for (n, hook) in hooks.iter().enumerate() {
        named(n, kind, hook, || {
            let command = command(hook, hook.env.as_deref());
            run(hook, command, &text, socket, || Ok(()))
        })?;
    }
    Ok(())
}

fn memory(text: &[u8]) -> Result<File> {
    let file = memfd_create("drydock-hook", MemfdFlags::CLOEXEC).context("memfd_create")?;
    let mut file = File::from(file);
    file.write_all(text)
        .and_then(|()| file.rewind())
        .context("write to a memfd")?;
    Ok(file)
}

fn command(hook: &Hook, env: Option<&[String]>) -> Command {
    let mut command = Command::new(&hook.path);
    if let [name, rest @ ..] = hook.args.as_slice() {
        command.arg0(name).args(rest);
    }
    if let Some(env) = env {
        command
            .env_clear()
            .envs(env.iter().filter_map(|pair| pair.split_once('=')));
    }
    sys::die_with_parent(&mut command);
    command
}

fn run(
    hook: &Hook,
    mut command: Command,
    state: &[u8],
    socket: Option<BorrowedFd<'_>>,
    begun: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut words = memory(&[])?;
    command
        // Files instead of pipes: a hook that reads nothing, or whose child
        // stays in the background, keeps nobody waiting.
        .stdin(Stdio::from(memory(state)?))
        .stdout(Stdio::null())
        .stderr(Stdio::from(words.try_clone().context("dup")?));
    let mut child = command.spawn().context("execute")?;
    let process = rustix::process::Pid::from_child(&child);
    let ended = begun().and_then(|()| wait(process, hook.timeout, socket));
    if !matches!(ended, Ok(End::Hook)) {
        child.kill().context("kill the hook")?;
    }
    let status = child.wait().context("wait for the hook")?;
    match ended? {
        End::Hook => {}
        End::Timeout => bail!(
            "hook ran past specified timeout of {}.0s",
            hook.timeout.unwrap_or_default()
        ),
        End::Child => bail!("the container's process died meanwhile"),
    }
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    words.rewind().context("rewind")?;
    words
        .take(4096)
        .read_to_end(&mut said)
        .context("read what the hook said")?;
    let said = String::from_utf8_lossy(&said);
    bail!(
        "error running hook: {}, stdout: , stderr: {}",
        words_of(status),
        kit::say::printable(said.trim())
    )
}

/// A status in the words of runc's language.
fn words_of(status: ExitStatus) -> String {
    let Some(signal) = status.signal() else {
        return format!("exit status {}", status.code().unwrap_or_default());
    };
    let name = match signal {
        libc::SIGABRT => "aborted".to_owned(),
        libc::SIGHUP => "hangup".to_owned(),
        libc::SIGINT => "interrupt".to_owned(),
        libc::SIGKILL => "killed".to_owned(),
        libc::SIGPIPE => "broken pipe".to_owned(),
        libc::SIGSEGV => "segmentation fault".to_owned(),
        libc::SIGSYS => "bad system call".to_owned(),
        libc::SIGTERM => "terminated".to_owned(),
        other => format!("signal {other}"),
    };
    let core = if status.core_dumped() {
        " (core dumped)"
    } else {
        ""
    };
    format!("signal: {name}{core}")
}

/// What ends the wait for a hook.
enum End {
    /// It has ended.
    Hook,
    /// It has run longer than its timeout.
    Timeout,
    /// The other end of the socket is closed.
    Child,
}

/// Waits for the end of a process, at most so many seconds.
fn wait(
    process: rustix::process::Pid,
    seconds: Option<i64>,
    socket: Option<BorrowedFd<'_>>,
) -> Result<End> {
    let pidfd = pidfd_open(process, PidfdFlags::empty()).context("pidfd_open")?;
    let timeout = match seconds.map(u64::try_from) {
        Some(Ok(seconds)) => {
            PollTimeout::try_from(Duration::from_secs(seconds)).unwrap_or(PollTimeout::MAX)
        }
        _ => PollTimeout::NONE,
    };
    loop {
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        // Its end is reported without being asked for.
        fds.extend(socket.map(|socket| PollFd::new(socket, PollFlags::empty())));
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(End::Timeout),
            Ok(_) if fds[0].any() == Some(true) => return Ok(End::Hook),
            Ok(_) => return Ok(End::Child),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
    }
}

/// The isolation that runs the hooks of a creation. The child, which alone knows
/// when the mounts are made, asks a thread of the launcher over a socket, and
/// waits for the answer.
pub(crate) struct CreateHooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    /// The container's root, on the host.
    pub root: PathBuf,
    pub state: OciState,
    pub sockets: Option<(UnixStream, UnixStream)>,
    pub thread: Option<JoinHandle<()>>,
}

impl CreateHooks {
    fn is_empty(&self) -> bool {
        self.prestart.is_empty()
            && self.create_runtime.is_empty()
            && self.create_container.is_empty()
    }
}

impl Isolation for CreateHooks {
    fn name(&self) -> &'static str {
        "hooks"
    }

    fn prepare(&mut self) -> Result<()> {
        if !self.is_empty() {
            self.sockets = Some(UnixStream::pair().context("socketpair")?);
        }
        Ok(())
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets
            .iter()
            .map(|(_, child)| child.as_fd())
            .collect()
    }

    fn on_host(&mut self, child: Pid) -> Result<()> {
        let Some((ours, theirs)) = self.sockets.take() else {
            return Ok(());
        };
        // If the child dies, the socket is at its end.
        drop(theirs);
        self.state.pid = child.as_raw();
        let state = self.state.clone();
        let (prestart, runtime) = (self.prestart.clone(), self.create_runtime.clone());
        let thread = thread::Builder::new().name("hooks".into()).spawn(move || {
            let mut socket = ours;
            let mut byte = [0];
            if !matches!(socket.read(&mut byte), Ok(1)) {
                return;
            }
            let child = Some(socket.as_fd());
            let done = run_while("prestart", &prestart, &state, child)
                .and_then(|()| run_while("createRuntime", &runtime, &state, child));
            let answer = match done {
                Ok(()) => format!("ok {}", state.pid),
                Err(error) => format!("{error:#}"),
            };
            // A child that has died needs no answer.
            if let Err(error) = socket.write_all(answer.as_bytes()) {
                say!("answer the child: {error}");
            }
        });
        self.thread = Some(thread.context("start a thread")?);
        Ok(())
    }

    fn in_container(&mut self) -> Result<()> {
        let Some((ours, mut socket)) = self.sockets.take() else {
            return Ok(());
        };
        // Closed when this process was born: dropping it would close its number
        // again.
        let _closed = std::os::fd::IntoRawFd::into_raw_fd(ours);
        socket.write_all(&[1]).context("ask for the hooks")?;
        let mut answer = String::new();
        socket
            .read_to_string(&mut answer)
            .context("wait for the hooks")?;
        drop(socket);
        let Some(pid) = answer.strip_prefix("ok ") else {
            return Err(match answer.as_str() {
                "" => anyhow!("the launcher is gone"),
                error => anyhow!("{error}"),
            });
        };
        self.state.pid = pid.parse().context("the launcher's answer")?;
        if !self.create_container.is_empty() {
            // As runc does: there their relative paths begin.
            std::env::set_current_dir(&self.root)
                .with_context(|| format!("chdir({:?})", self.root))?;
        }
        run_all("createContainer", &self.create_container, &self.state)
    }

    fn cleanup(&mut self) -> Result<()> {
        self.sockets = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            bail!("the thread of the hooks panicked");
        }
        Ok(())
    }
}

/// The isolation that runs the `startContainer` hooks. Add it last: the programs
/// are the container's, and so are their rights.
///
/// Like the command, each is behind the filter. It loads that itself: this process
/// still has to look at the command's file, which a hook may have replaced by a
/// link to the runtime's own program (CVE-2019-5736), and the filter might let it
/// see nothing.
pub(crate) struct StartHooks {
    pub hooks: Vec<Hook>,
    pub state: OciState,
    pub door: Door,
    /// Who decides on calls, if the filter asks anybody.
    pub asked: Option<Asked>,
    /// A connection to it for each hook, which has a filter of its own.
    pub listeners: Vec<Listener>,
}

impl Isolation for StartHooks {
    fn name(&self) -> &'static str {
        "hooks"
    }

    fn prepare(&mut self) -> Result<()> {
        let (Some(program), Some(asked)) = (&self.door.program, &self.asked) else {
            return Ok(());
        };
        for _ in &self.hooks {
            let state = asked.state.clone();
            let listener = Listener::connect(program, &asked.profile, state, asked.which)
                .context("linux.seccomp")?;
            self.listeners.extend(listener);
        }
        Ok(())
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        self.listeners.iter().flat_map(Listener::keeps).collect()
    }

    fn in_container(&mut self) -> Result<()> {
        self.listeners.iter_mut().try_for_each(Listener::hear)
    }

    fn on_host(&mut self, child: Pid) -> Result<()> {
        let mut listeners = take(&mut self.listeners).into_iter();
        listeners.try_for_each(|listener| listener.tell(child))
    }

    // ANCHOR: start_hooks
    fn before_exec(&mut self) -> Result<()> {
        for hook in &self.hooks {
            // A link of the image may lead to the runtime itself
            // (CVE-2019-5736).
            refuse_own_program(&hook.path)?;
        }
        self.state.status = Status::Created;
        self.state.pid = std::process::id() as i32;
        let state = serde_json::to_vec(&self.state).context("serialise the state")?;
        let mut listeners = take(&mut self.listeners).into_iter();
        for (n, hook) in self.hooks.iter().enumerate() {
            // Its connection is closed when this part has ended: dropping it would
            // close its number again.
            let listener = listeners.next().map(ManuallyDrop::new).map(Arc::new);
            let own = listener.clone();
            let door = self.door.clone();
            // A program of the container's learns nothing of the host's environment.
            let mut command = command(hook, Some(hook.env.as_deref().unwrap_or_default()));
            sys::act_last(&mut command, move || {
                door.close(own.as_deref().map(|own| &**own))
            });
            let begun = || listener.map_or(Ok(()), |listener| listener.end());
            named(n, "startContainer", hook, || {
                run(hook, command, &state, None, begun)
            })?;
        }
        Ok(())
    }
    // ANCHOR_END: start_hooks

    fn cleanup(&mut self) -> Result<()> {
        self.listeners.clear();
        Ok(())
    }
}
