//! QEMU: its command line, and the channels between the VM and us.
//!
//! Each channel is a pipe that QEMU inherits. The guest sees the console as a
//! serial port, and the command's standard output, its standard error and the
//! news of it as ports of a virtio console: those transport bytes unchanged,
//! and a port is written when we have it. qemu(1), the kernel's
//! `Documentation/driver-api/virtio`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write, stderr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use super::arch::ARCH;
use super::kernel::Image;
use super::{Accel, CgroupLayout, Vm};
use crate::sys::bind_child;

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

/// What comes out of the VM.
enum Event {
    Output(String),
    Started,
    Ended(i32),
    /// A channel that has no more to say.
    Closed,
}

/// How many channels send events: output and news.
const CHANNELS: usize = 2;

/// Most events that wait for us, longest line, most that is kept of the console,
/// and most that is passed on from standard error, in bytes: a program in the
/// VM may write to every channel for as long as it lives.
const QUEUE: usize = 64;
const LINE: u64 = 8 << 20;
const CONSOLE: usize = 4 << 20;
const ERRORS: usize = 4 << 20;

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

/// QEMU's program.
///
/// # Errors
/// If it is not on the PATH.
pub fn find() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(ARCH.qemu))
        .find(|program| program.is_file())
        .with_context(|| format!("{} is not installed: run vm/setup.sh", ARCH.qemu))
}

fn machine(vm: &Vm, accel: Accel) -> Vec<String> {
    let (accel, cpu) = match accel {
        Accel::Kvm => ("kvm", "host"),
        Accel::Auto | Accel::Tcg => ("tcg,thread=multi", ARCH.processor),
    };
    let memory = vm.memory_mib.to_string();
    let cpus = vm.cpus.to_string();
    [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-machine",
        ARCH.machine,
        "-accel",
        accel,
        "-cpu",
        cpu,
        "-m",
        &memory,
        "-smp",
        &cpus,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn kernel_arguments(vm: &Vm, terminal: Terminal) -> String {
    let layout = match vm.cgroup {
        CgroupLayout::V2 => "v2",
        CgroupLayout::V1 => "v1",
        CgroupLayout::Hybrid => "hybrid",
    };
    // The self-tests of the kernel's ciphers are an eighth of the boot.
    format!(
        "console={} quiet panic=-1 cryptomgr.notests drydock.cgroup={layout}{} {}",
        ARCH.console,
        match terminal {
            Terminal::None => "",
            Terminal::Own => " drydock.terminal=hvc0",
        },
        ARCH.kernel_arguments
    )
}

fn chardev(name: &str, fd: i32) -> [String; 2] {
    [
        "-chardev".to_owned(),
        format!("file,id={name},path={}", path(&fd)),
    ]
}

/// The path under which QEMU finds a descriptor that it inherits.
fn path(fd: &i32) -> String {
    format!("/proc/self/fd/{fd}")
}

/// The command as the shell of a terminal starts it: in its size, and of its
/// kind.
pub fn at_terminal(command: &[String]) -> Vec<String> {
    let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok();
    let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
    let kind = std::env::var("TERM").unwrap_or_else(|_| "vt100".to_owned());
    let script = format!("stty rows {rows} columns {columns}; export TERM=\"$0\"; exec \"$@\"");
    let shell = ["sh".to_owned(), "-c".to_owned(), script, kind];
    shell.into_iter().chain(command.iter().cloned()).collect()
}

fn read_output(pipe: OwnedFd, events: SyncSender<Event>) {
    each_line(pipe, events, |line| Some(Event::Output(line)));
}

fn read_news(pipe: OwnedFd, events: SyncSender<Event>) {
    each_line(pipe, events, |line| match line.split_once(' ') {
        Some(("ended", status)) => Some(Event::Ended(status.parse().unwrap_or(255))),
        _ => (line == "started").then_some(Event::Started),
    });
}

fn each_line(
    pipe: OwnedFd,
    events: SyncSender<Event>,
    event: impl Fn(String) -> Option<Event> + Send + 'static,
) {
    spawn(move || {
        let mut reader = BufReader::new(File::from(pipe));
        let mut line = Vec::new();
        // A line that is too long comes in parts, which mean nothing to anybody.
        while matches!(
            (&mut reader).take(LINE).read_until(b'\n', &mut line),
            Ok(1..)
        ) {
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            // Nobody receives when the wait for the VM was given up.
            if event(text).is_some_and(|event| events.send(event).is_err()) {
                return;
            }
            line.clear();
        }
        if events.send(Event::Closed).is_err() {
            // As above.
        }
    });
}

fn copy_errors(pipe: OwnedFd) {
    spawn(move || {
        let mut left = ERRORS;
        read_all(pipe, |bytes| {
            let passed_on = &bytes[..bytes.len().min(left)];
            left -= passed_on.len();
            // The pipe is read to its end in any case: a full one would stop
            // the VM.
            match stderr().write_all(passed_on) {
                Ok(()) | Err(_) => {}
            }
        });
    });
}

/// The beginning of what comes, which is read to its end.
fn collect(from: impl Into<OwnedFd>) -> JoinHandle<String> {
    let from = from.into();
    spawn(move || {
        let mut kept = Vec::new();
        read_all(from, |bytes| {
            let room = CONSOLE - kept.len();
            kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        });
        String::from_utf8_lossy(&kept).into_owned()
    })
}

/// Reads to the end, or to an error: what came before one is worth having.
fn read_all(from: OwnedFd, mut on_bytes: impl FnMut(&[u8])) {
    let mut from = File::from(from);
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        on_bytes(&buffer[..length]);
    }
}
