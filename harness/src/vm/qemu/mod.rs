//! QEMU: a machine that runs, from its start to its end.
//!
//! | module | what |
//! |---|---|
//! | `arguments` | its command line, and that of the guest's kernel |
//! | `channels` | what comes out of it: the command's output, and news of it |
//!
//! Each channel is a pipe that QEMU inherits. The guest sees the console as a
//! serial port, and the command's standard output, its standard error and the
//! news of it as ports of a virtio console: those transport bytes unchanged,
//! and a port is written when we have it. qemu(1), the kernel's
//! `Documentation/driver-api/virtio`.

mod arguments;
mod channels;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use super::kernel::Image;
use super::{Accel, Vm};
use crate::sys::bind_child;
use arguments::{chardev, kernel_arguments, machine, path};
use channels::{CHANNELS, Event, QUEUE, collect, copy_errors, read_news, read_output};

pub use arguments::{at_terminal, find};

/// Where the command's standard input and output are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// No terminal: nothing to read, and the ports to write to.
    None,
    /// The terminal of this process.
    Own,
}

/// A VM that runs. QEMU ends with the thread that started it, if not before.
pub struct Guest {
    qemu: Child,
    terminal: Terminal,
    started: Instant,
    events: Receiver<Event>,
    console: JoinHandle<String>,
    complaints: JoinHandle<String>,
}

/// How a VM ended.
pub struct Ended {
    /// The command's exit status, or what happened instead.
    pub status: Result<i32, String>,
    /// Whether the kernel died on its way to the command. Under TCG it does so
    /// now and then on a very busy machine, where timers come late.
    pub died_booting: bool,
    /// Whether the command was started.
    pub started: bool,
    /// From QEMU's start until the command's.
    pub boot: Duration,
    /// How long the command took.
    pub command: Duration,
    /// What the kernel and `vm/init` had to say.
    pub console: String,
}

/// Longer than anybody waits, and short enough for every clock.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Longest boot. On an idle machine it takes 1.5 s.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

impl Guest {
    /// Starts QEMU.
    ///
    /// # Errors
    /// If QEMU is missing, or pipes cannot be had.
    pub fn start(
        vm: &Vm,
        image: &Image,
        accel: Accel,
        initrd: File,
        terminal: Terminal,
    ) -> Result<Guest> {
        let (console, to_console) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
        let (output, to_output) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
        let (errors, to_errors) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
        let (news, to_news) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
        let mut command = Command::new(find()?);
        command.args(machine(vm, accel));
        command.arg("-kernel").arg(&image.file);
        command.args(["-initrd", &path(&initrd.as_raw_fd())]);
        command.args(["-append", &kernel_arguments(vm, terminal)]);
        command.args(chardev("console", to_console.as_raw_fd()));
        command.args(["-serial", "chardev:console"]);
        command.args(["-device", "virtio-serial-pci"]);
        let ports = [
            ("output", &to_output),
            ("errors", &to_errors),
            ("news", &to_news),
        ];
        for (place, (name, pipe)) in ports.into_iter().enumerate() {
            let port = format!("virtserialport,chardev={name},nr={},name={name}", place + 1);
            command.args(chardev(name, pipe.as_raw_fd()));
            command.args(["-device", &port]);
        }
        let death = match terminal {
            Terminal::None => {
                command.stdin(Stdio::null());
                Signal::SIGKILL
            }
            Terminal::Own => {
                // Ctrl-C is the guest's; Ctrl-] (0x1d) is QEMU's.
                command.args(["-chardev", "stdio,id=terminal,mux=on,signal=off"]);
                command.args(["-mon", "terminal", "-echr", "0x1d"]);
                command.args(["-device", "virtconsole,chardev=terminal,nr=4"]);
                // QEMU then puts the terminal back as it was.
                Signal::SIGTERM
            }
        };
        if terminal == Terminal::None {
            command.stdout(Stdio::null());
        }
        command.stderr(Stdio::piped());
        let kept = vec![initrd.into(), to_console, to_output, to_errors, to_news];
        bind_child(&mut command, kept, death);
        let started = Instant::now();
        let mut qemu = command.spawn().context("start QEMU")?;
        // The pipes' ends that QEMU has must not stay open here.
        drop(command);
        let complaints = collect(qemu.stderr.take().context("QEMU has no standard error")?);
        let (events, received) = sync_channel(QUEUE);
        read_output(output, events.clone());
        read_news(news, events);
        copy_errors(errors);
        Ok(Guest {
            qemu,
            terminal,
            started,
            events: received,
            console: collect(console),
            complaints,
        })
    }

    /// Waits for the command's end, but no longer than `limit` after the
    /// start, and ends the VM.
    ///
    /// # Errors
    /// Those of waiting for QEMU.
    pub fn wait(mut self, limit: Duration, on_line: &mut dyn FnMut(&str)) -> Result<Ended> {
        let mut begun = None;
        let mut ended = None;
        let mut closed = 0;
        let mut status = Err(None);
        while closed < CHANNELS {
            let limit = match begun {
                None => limit.min(BOOT_LIMIT),
                Some(_) => limit,
            };
            let left = limit.saturating_sub(self.started.elapsed());
            match self.events.recv_timeout(left.min(A_YEAR)) {
                Ok(Event::Output(line)) => on_line(&line),
                Ok(Event::Started) => begun = Some(Instant::now()),
                Ok(Event::Ended(code)) => {
                    ended = Some(Instant::now());
                    status = Ok(code);
                    // Whatever the command has written is in the pipes: the
                    // guest's write(2) returned when it was there.
                    self.end()?;
                }
                Ok(Event::Closed) => closed += 1,
                Err(RecvTimeoutError::Timeout) => {
                    let phase = if begun.is_some() { "command" } else { "boot" };
                    let seconds = limit.as_secs();
                    status = Err(Some(format!("the VM's {phase} took more than {seconds} s")));
                    self.end()?;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.end()?;
        self.qemu.wait().context("wait for QEMU")?;
        let joined = |thread: JoinHandle<String>| {
            thread
                .join()
                .map_err(|_| anyhow!("a reader of QEMU's output died"))
        };
        let console = joined(self.console)?;
        let complaints = joined(self.complaints)?;
        let own_words = !complaints.trim().is_empty() || console.contains("init: ");
        let started = begun.is_some();
        let died_booting = !started && !own_words;
        let begun = begun.unwrap_or_else(Instant::now);
        Ok(Ended {
            died_booting,
            started,
            status: status.map_err(|why| {
                why.unwrap_or_else(|| match complaints.trim().lines().last() {
                    Some(line) => format!("QEMU: {line}"),
                    None => "the VM ended before its command did".to_owned(),
                })
            }),
            boot: begun - self.started,
            command: ended.unwrap_or_else(Instant::now) - begun,
            console,
        })
    }

    /// Ends QEMU, if it has not ended.
    fn end(&mut self) -> Result<()> {
        if self.qemu.try_wait().context("wait for QEMU")?.is_some() {
            return Ok(());
        }
        let signal = match self.terminal {
            Terminal::None => Signal::SIGKILL,
            Terminal::Own => Signal::SIGTERM,
        };
        let pid = Pid::from_raw(self.qemu.id() as i32);
        kill(pid, signal).with_context(|| format!("kill({pid}, {signal})"))
    }
}
