//! What a monitor does while the container lives: a loop of poll(2) over the
//! command's streams, those who attach, and orders.
//!
//! One thread, and nothing in it waits for anybody: who reads too slowly is cut
//! off, and a log that cannot be written stops. The container never waits.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engine::terminal::handed::Kept;
use kit::SignalNumber;
use kit::sys::signals::pidfd_send_signal;
use kit::time::timeout;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, geteuid, pidfd_open};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::log::Output;
use crate::log::write::Writer;
use crate::monitor::memory::OutOfMemory;
use crate::monitor::probe::Prober;
use crate::network::resolver::Resolver;
use crate::protocol::{Answer, Frame, LONGEST, Order};
use crate::settings::Restart;

/// What may wait to be sent to one who attaches, in bytes. Who is further behind
/// is cut off.
const BEHIND: usize = 1 << 20;
/// What may wait to be read by the command. Until it has read that, nobody's
/// input is taken.
const UNREAD: usize = 64 << 10;
/// What a terminal may hold at most that is still to be read, in bytes.
const TERMINAL: usize = 1 << 20;
/// The most who are connected at the same time.
const MOST: usize = 256;
/// How long the last output of a container may take to reach those who attach.
const PATIENCE: Duration = Duration::from_secs(2);

/// Someone who is connected.
struct Peer {
    stream: UnixStream,
    what: What,
    /// What has come and is not a whole order or frame yet.
    come: Vec<u8>,
    /// What is to be sent.
    going: VecDeque<u8>,
    /// Whether the connection has ended, and is to be taken off the list.
    gone: bool,
}

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Not said yet.
    Nothing,
    /// Output, and to give input.
    Attached {
        /// Whether input is taken.
        input: bool,
    },
    /// The exit status.
    Exit,
    /// The end of everything.
    End,
}

/// An output of the command.
struct Source {
    fd: OwnedFd,
    output: Output,
}

/// A stop that was ordered.
#[derive(Clone, Copy, Debug)]
struct Stop {
    /// When SIGKILL is due.
    kill_at: Option<Instant>,
}

/// Tells everybody of a signal.
pub(super) type Killing = Box<dyn Fn(i32)>;

/// The state of a monitor.
pub(super) struct Hub {
    listener: UnixListener,
    peers: Vec<Peer>,
    sources: Vec<Source>,
    /// The command's input, or its terminal.
    input: Option<OwnedFd>,
    /// What the command has not read yet.
    unread: VecDeque<u8>,
    /// Whether the input ends once `unread` is empty.
    input_ends: bool,
    /// The socket on which the terminal will come.
    terminal_comes: Option<OwnedFd>,
    /// Whether the streams are a terminal.
    terminal: bool,
    /// A window size that came before the terminal.
    size: Option<Winsize>,
    /// Whether the input ends with the first who attaches.
    stdin_once: bool,
    log: Option<Writer>,
    process: Option<OwnedFd>,
    stop: Option<Stop>,
    /// Called with the number of each signal that is sent.
    killing: Killing,
    /// Whether `stop` was ordered, and not only `kill`.
    pub(super) stop_ordered: bool,
    /// Whether somebody has stopped the container, since it was last asked.
    pub(super) stopped: bool,
    /// What checks the container's health.
    pub(super) prober: Option<Prober>,
    /// What tells of the OOM killer.
    pub(super) memory: Option<OutOfMemory>,
    /// A new policy that somebody has ordered.
    pub(super) policy: Option<Restart>,
    /// Answers the container's questions for names.
    pub(super) resolver: Option<Resolver>,
    /// Makes a resolver for a container that has none and joins a network.
    pub(super) make_resolver: Option<Box<dyn Fn() -> Result<Resolver>>>,
}

impl Hub {
    pub(super) fn new(
        listener: UnixListener,
        log: Option<Writer>,
        stdin_once: bool,
        killing: Killing,
    ) -> Self {
        Hub {
            listener,
            peers: Vec::new(),
            sources: Vec::new(),
            input: None,
            unread: VecDeque::new(),
            input_ends: false,
            terminal_comes: None,
            terminal: false,
            size: None,
            stdin_once,
            log,
            process: None,
            stop: None,
            killing,
            stop_ordered: false,
            stopped: false,
            prober: None,
            memory: None,
            policy: None,
            resolver: None,
            make_resolver: None,
        }
    }

    fn add(&mut self, stream: UnixStream) -> Result<()> {
        stream.set_nonblocking(true).context("O_NONBLOCK")?;
        self.peers.push(Peer {
            stream,
            what: What::Nothing,
            come: Vec::new(),
            going: VecDeque::new(),
            gone: false,
        });
        Ok(())
    }

    /// Adds one whose order has come before the command runs, and obeys it: the
    /// first output is theirs.
    pub(super) fn add_first(&mut self, stream: UnixStream) -> Result<()> {
        self.add(stream)?;
        self.hear(self.peers.len() - 1)
    }

    /// Takes the ends of the streams of a command that is about to run.
    pub(super) fn connect(&mut self, kept: Option<Kept>, process: Pid) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(process.as_raw()).context("no process")?;
        let process = pidfd_open(pid, PidfdFlags::empty());
        self.process = Some(process.context("pidfd_open(the first process)")?);
        self.input_ends = false;
        self.unread.clear();
        match kept {
            None => {}
            Some(Kept::Pipes {
                input,
                output,
                error,
            }) => {
                if let Some(input) = input {
                    self.input = Some(nonblocking(input.into())?);
                }
                for (fd, output) in [(output, Output::Stdout), (error, Output::Stderr)] {
                    let fd = nonblocking(fd.into())?;
                    self.sources.push(Source { fd, output });
                }
            }
            Some(Kept::Terminal { socket }) => {
                self.terminal = true;
                self.terminal_comes = Some(socket);
            }
        }
        Ok(())
    }

    /// Works until `signals` is readable.
    pub(super) fn until_readable(&mut self, signals: BorrowedFd<'_>) -> Result<()> {
        while !self.turn(Some(signals), None)? {}
        // The command may be what was killed: that comes before its end.
        self.look_for_kills();
        Ok(())
    }

    /// Works until then, or until somebody has stopped the container.
    pub(super) fn until(&mut self, then: Instant, signals: BorrowedFd<'_>) -> Result<bool> {
        while !self.stopped && Instant::now() < then {
            if self.turn(Some(signals), Some(then))? {
                return Ok(false);
            }
        }
        Ok(!self.stopped)
    }

    /// One call of poll(2), and what it shows. Returns whether `signals` is
    /// readable.
    fn turn(&mut self, signals: Option<BorrowedFd<'_>>, until: Option<Instant>) -> Result<bool> {
        let takes_input = self.unread.len() < UNREAD;
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(signals.map(|signals| PollFd::from_borrowed_fd(signals, PollFlags::IN)));
        let first_source = fds.len();
        for source in &self.sources {
            fds.push(PollFd::new(&source.fd, PollFlags::IN));
        }
        let first_peer = fds.len();
        for peer in &self.peers {
            let mut events = PollFlags::empty();
            if takes_input || !matches!(peer.what, What::Attached { input: true }) {
                events |= PollFlags::IN;
            }
            if !peer.going.is_empty() {
                events |= PollFlags::OUT;
            }
            fds.push(PollFd::new(&peer.stream, events));
        }
        let after_peers = fds.len();
        if let Some(comes) = &self.terminal_comes {
            fds.push(PollFd::new(comes, PollFlags::IN));
        }
        let input = match &self.input {
            Some(input) if !self.unread.is_empty() => {
                fds.push(PollFd::new(input, PollFlags::OUT));
                Some(fds.len() - 1)
            }
            _ => None,
        };
        let first_probe = fds.len();
        fds.extend(self.prober.iter().flat_map(Prober::polled));
        let first_name = fds.len();
        let names = self.resolver.iter().flat_map(Resolver::waits_for);
        fds.extend(names.map(|(fd, events)| PollFd::from_borrowed_fd(fd, events)));
        let after_names = fds.len();
        fds.extend(self.memory.iter().map(OutOfMemory::polled));
        let kill_at = self.stop.and_then(|stop| stop.kill_at);
        let probe_at = self.prober.as_ref().and_then(Prober::due);
        let names_at = self.resolver.as_ref().and_then(Resolver::due);
        let memory_at = self.memory.as_ref().and_then(OutOfMemory::due);
        let due = [until, kill_at, probe_at, names_at, memory_at]
            .into_iter()
            .flatten()
            .min();
        let left = due.map(|due| timeout(due.saturating_duration_since(Instant::now())));
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(errno) => return Err(errno).context("poll"),
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        let is_ready = |index: usize| !ready[index].is_empty();

        if kill_at.is_some_and(|at| at <= Instant::now()) {
            self.stop = Some(Stop { kill_at: None });
            self.signal(Signal::SIGKILL.into())?;
        }
        let asked = ready[first_name..after_names]
            .iter()
            .any(|ready| !ready.is_empty());
        if let Some(resolver) = &mut self.resolver
            && (asked || names_at.is_some_and(|at| at <= Instant::now()))
        {
            resolver.work();
        }
        if self.memory.is_some()
            && (is_ready(after_names) || memory_at.is_some_and(|at| at <= Instant::now()))
        {
            self.look_for_kills();
        }
        if let Some(prober) = &mut self.prober {
            let ready: Vec<bool> = ready[first_probe..first_name]
                .iter()
                .map(|one| !one.is_empty())
                .collect();
            prober.turn(&ready);
        }
        if input.is_some_and(is_ready) {
            self.feed();
        }
        if self.terminal_comes.is_some() && is_ready(after_peers) {
            self.terminal_came()?;
        }
        // Of two outputs that are ready, nobody knows which was first.
        let mut gone = 0;
        for index in 0..first_peer - first_source {
            if is_ready(first_source + index) {
                let count = self.sources.len();
                self.read(index - gone);
                gone += count - self.sources.len();
            }
        }
        for (index, ready) in ready[first_peer..after_peers].iter().enumerate() {
            if ready.intersects(PollFlags::OUT) {
                self.peers[index].send();
            }
            if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                self.hear(index)?;
            }
        }
        self.peers.retain(|peer| !peer.gone);
        if is_ready(0) {
            self.accept()?;
        }
        Ok(signals.is_some() && is_ready(1))
    }

    fn look_for_kills(&mut self) {
        if let Some(memory) = &mut self.memory
            && let Err(error) = memory.turn()
        {
            kit::say!("the OOM killer is not watched any more: {error:#}");
            self.memory = None;
        }
    }

    fn accept(&mut self) -> Result<()> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                let peer = socket_peercred(&stream).context("getsockopt(SO_PEERCRED)")?;
                // The directory lets nobody else in. This holds if somebody has
                // opened it.
                let own = geteuid();
                if (peer.uid == own || peer.uid.is_root()) && self.peers.len() < MOST {
                    self.add(stream)?;
                }
                Ok(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                ) =>
            {
                Ok(())
            }
            // Out of descriptors: whoever is connected is served.
            Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => Ok(()),
            Err(error) => Err(error).context("accept"),
        }
    }

    /// Receives the terminal from the child.
    fn terminal_came(&mut self) -> Result<()> {
        let Some(socket) = self.terminal_comes.take() else {
            return Ok(());
        };
        // Without one, the child has died, and the launcher says why.
        if let Ok(master) = process::handover::receive(&socket) {
            let other = master.try_clone().context("dup(the terminal)")?;
            if let Some(size) = self.size {
                tcsetwinsize(&master, size).context("ioctl(TIOCSWINSZ)")?;
            }
            self.input = Some(nonblocking(other)?);
            self.sources.push(Source {
                fd: nonblocking(master)?,
                output: Output::Stdout,
            });
        }
        Ok(())
    }

    /// Reads once from an output; takes it away at its end. Returns how many bytes
    /// there were.
    fn read(&mut self, index: usize) -> usize {
        let mut bytes = [0; 32 << 10];
        let source = &self.sources[index];
        let output = source.output;
        match rustix::io::read(&source.fd, &mut bytes) {
            Ok(length) if length > 0 => {
                self.pass(output, &bytes[..length]);
                length
            }
            Err(Errno::AGAIN | Errno::INTR) => 0,
            // EIO: a terminal whose other side is closed.
            Ok(_) | Err(_) => {
                self.sources.remove(index);
                if let Some(log) = &mut self.log {
                    let ended = log.end(output);
                    self.logged(ended);
                }
                0
            }
        }
    }

    /// Passes output on to the log and to those who attach.
    fn pass(&mut self, output: Output, bytes: &[u8]) {
        if let Some(log) = &mut self.log {
            let put = log.put(output, bytes);
            self.logged(put);
        }
        let frame = match output {
            Output::Stdout => Frame::Stdout,
            Output::Stderr => Frame::Stderr,
        };
        for peer in &mut self.peers {
            if matches!(peer.what, What::Attached { .. }) {
                peer.queue(&frame.with(bytes));
            }
        }
    }

    /// A log that cannot be written stops: a full disk is no reason to stop the
    /// container. The next line is tried again.
    fn logged(&mut self, written: Result<()>) {
        if let Err(error) = written {
            kit::say!("a line is not in the log: {error:#}");
        }
    }

    /// Gives the command what it has not read.
    fn feed(&mut self) {
        let Some(input) = &self.input else {
            return;
        };
        let (head, _) = self.unread.as_slices();
        match rustix::io::write(input, head) {
            Ok(length) => {
                self.unread.drain(..length);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Nobody reads it any more.
            Err(_) => {
                self.unread.clear();
                self.input = None;
            }
        }
        self.end_input();
    }

    fn end_input(&mut self) {
        if self.input_ends && self.unread.is_empty() && !self.terminal {
            self.input = None;
        }
    }

    /// Reads what a peer says.
    fn hear(&mut self, index: usize) -> Result<()> {
        let peer = &mut self.peers[index];
        let mut bytes = [0; 16 << 10];
        match peer.stream.read(&mut bytes) {
            Ok(0) => {
                let was = peer.what;
                peer.leave();
                if was == (What::Attached { input: true }) && self.stdin_once {
                    self.input_ends = true;
                    self.end_input();
                }
                return Ok(());
            }
            Ok(length) => peer.come.extend_from_slice(&bytes[..length]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(());
            }
            Err(_) => {
                peer.leave();
                return Ok(());
            }
        }
        if peer.what == What::Nothing {
            let Some(end) = peer.come.iter().position(|byte| *byte == b'\n') else {
                if peer.come.len() > LONGEST {
                    peer.leave();
                }
                return Ok(());
            };
            let line: Vec<u8> = peer.come.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(order) => self.obey(index, order)?,
                Err(error) => {
                    self.peers[index].answer(&Answer::Refused(format!("the order: {error}")))
                }
            }
        }
        self.frames(index)
    }

    /// Obeys the frames that a peer has sent.
    fn frames(&mut self, index: usize) -> Result<()> {
        loop {
            let peer = &mut self.peers[index];
            let What::Attached { input: takes } = peer.what else {
                return Ok(());
            };
            let (frame, data) = match Frame::take(&mut peer.come) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(()),
                Err(_) => {
                    peer.leave();
                    return Ok(());
                }
            };
            match frame {
                Frame::Input if takes && self.input.is_some() => {
                    self.unread.extend(data);
                    self.feed();
                }
                // The terminal has not come yet.
                Frame::Input if takes && self.terminal_comes.is_some() => self.unread.extend(data),
                Frame::InputEnd if takes && self.stdin_once => {
                    self.input_ends = true;
                    self.end_input();
                }
                Frame::Size => self.resize(&data)?,
                _ => {}
            }
        }
    }

    fn resize(&mut self, data: &[u8]) -> Result<()> {
        let [a, b, c, d] = *data else {
            return Ok(());
        };
        let size = Winsize {
            ws_row: u16::from_be_bytes([a, b]),
            ws_col: u16::from_be_bytes([c, d]),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        self.size = Some(size);
        match &self.input {
            Some(terminal) if self.terminal => match tcsetwinsize(terminal, size) {
                Ok(()) | Err(Errno::IO) => Ok(()),
                Err(errno) => Err(errno).context("ioctl(TIOCSWINSZ)"),
            },
            _ => Ok(()),
        }
    }

    fn obey(&mut self, index: usize, order: Order) -> Result<()> {
        match order {
            Order::Attach { input } => self.peers[index].what = What::Attached { input },
            Order::Wait => self.peers[index].what = What::Exit,
            Order::Restart(policy) => {
                self.policy = Some(policy);
                self.peers[index].answer(&Answer::Done);
            }
            Order::Names => {
                let answer = match self.serve_names() {
                    Ok(()) => Answer::Done,
                    Err(error) => Answer::Refused(format!("{error:#}")),
                };
                self.peers[index].answer(&answer);
            }
            Order::Stop { signal, seconds } => {
                self.peers[index].what = What::End;
                self.stopped = true;
                self.stop_ordered |= signal.is_some();
                let first = match signal {
                    None => Some(Signal::SIGKILL.into()),
                    Some(number) => SignalNumber::new(number),
                };
                let Some(first) = first else {
                    self.peers[index].answer(&Answer::Refused("an unknown signal".into()));
                    return Ok(());
                };
                let kill_at = seconds
                    .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
                self.stop = Some(Stop { kill_at });
                self.signal(first)?;
            }
        }
        Ok(())
    }

    /// Answers the container's questions for names from now on.
    fn serve_names(&mut self) -> Result<()> {
        if self.resolver.is_none() {
            let make = self.make_resolver.as_ref();
            self.resolver = Some(make.context("the container is not running")?()?);
        }
        Ok(())
    }

    fn signal(&self, signal: SignalNumber) -> Result<()> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        (self.killing)(signal.raw());
        match pidfd_send_signal(process.as_fd(), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("pidfd_send_signal({signal})")),
        }
    }

    /// The command has ended: passes on what is left of its output. Nobody is
    /// told yet: whoever is, may look at the record.
    pub(super) fn ended(&mut self) {
        self.process = None;
        self.stop = None;
        self.prober = None;
        self.memory = None;
        // Its sockets keep the container's network.
        self.resolver = None;
        self.make_resolver = None;
        let mut index = 0;
        while index < self.sources.len() {
            // Until there is nothing left. A process that has outlived the
            // command may hold the other end open, and write to it for ever: no
            // more than the pipe held at the command's end is the command's.
            let count = self.sources.len();
            let mut held = capacity(&self.sources[index].fd);
            while held > 0 {
                match self.read(index) {
                    0 => break,
                    length => held = held.saturating_sub(length),
                }
            }
            if self.sources.len() == count {
                index += 1;
            }
        }
        for source in self.sources.drain(..) {
            if let Some(log) = &mut self.log
                && let Err(error) = log.end(source.output)
            {
                kit::say!("a line is not in the log: {error:#}");
            }
        }
        self.input = None;
        self.terminal_comes = None;
    }

    /// The end is in the record: tells those who wait, and lets go of those who
    /// are attached.
    pub(super) fn tell(&mut self, status: u8) {
        for peer in &mut self.peers {
            match peer.what {
                What::Attached { .. } => {
                    peer.queue(&Frame::Exit.with(&[status]));
                    peer.flush();
                    peer.leave();
                }
                What::Exit => {
                    peer.answer(&Answer::Exit(status));
                    peer.flush();
                    peer.leave();
                }
                What::Nothing | What::End => {}
            }
        }
        self.peers.retain(|peer| !peer.gone);
    }

    /// Everything is cleaned up: tells everybody, and last those who have
    /// ordered that.
    pub(super) fn finish(mut self, status: u8) {
        self.tell(status);
        for peer in &mut self.peers {
            if peer.what == What::End {
                peer.answer(&Answer::Done);
            }
            peer.flush();
        }
    }
}

impl Peer {
    /// Queues bytes; cuts the peer off if it is too far behind.
    // ANCHOR: queue
    fn queue(&mut self, bytes: &[u8]) {
        if self.going.len() + bytes.len() > BEHIND {
            self.leave();
            return;
        }
        self.going.extend(bytes);
        self.send();
    }
    // ANCHOR_END: queue

    fn answer(&mut self, answer: &Answer) {
        if let Ok(mut line) = serde_json::to_vec(answer) {
            line.push(b'\n');
            self.queue(&line);
        }
    }

    /// Sends what the socket takes now.
    fn send(&mut self) {
        use std::io::Write;
        while !self.going.is_empty() {
            let (head, _) = self.going.as_slices();
            match self.stream.write(head) {
                Ok(length) => {
                    self.going.drain(..length);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.leave();
                    return;
                }
            }
        }
    }

    /// Sends all, if the peer takes it in time.
    fn flush(&mut self) {
        let until = Instant::now() + PATIENCE;
        self.send();
        while !self.going.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.stream, PollFlags::OUT)];
            match poll(&mut fds, Some(&timeout(left))) {
                Ok(0) | Err(_) => return,
                Ok(_) => self.send(),
            }
        }
    }

    /// Ends the connection. It is taken off the list later.
    fn leave(&mut self) {
        self.going.clear();
        self.come.clear();
        self.what = What::Nothing;
        self.gone = true;
        if let Err(error) = self.stream.shutdown(std::net::Shutdown::Both) {
            kit::say!("shutdown: {error}");
        }
    }
}

/// How much can wait to be read.
fn capacity(fd: &OwnedFd) -> usize {
    let size = fcntl(fd, FcntlArg::F_GETPIPE_SZ).ok();
    size.and_then(|size| usize::try_from(size).ok())
        .unwrap_or(TERMINAL)
}

fn nonblocking(fd: OwnedFd) -> Result<OwnedFd> {
    let flags = fcntl_getfl(&fd).context("fcntl(F_GETFL)")?;
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK).context("fcntl(F_SETFL, O_NONBLOCK)")?;
    Ok(fd)
}
