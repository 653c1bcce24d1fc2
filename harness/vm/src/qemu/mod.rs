//! A running machine in QEMU, from its start to its end.
//!
//! | module | what |
//! |---|---|
//! | `arguments` | its command line, and that of the guest's kernel |
//! | `channels` | its output: the command's, and news of the command |
//! | `monitor` | saving a machine into a file and resuming it |
//!
//! Each channel is a pipe that QEMU inherits. In the guest the console is a
//! serial port; the command's standard output, its standard error and the news
//! of it are ports of a virtio console. Those transport bytes unchanged, and a
//! write to a port returns when we have the bytes. qemu(1), the kernel's
//! `Documentation/driver-api/virtio`.

mod arguments;
mod channels;
mod monitor;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use super::kernel::Image;
use super::{Accel, Vm};
use arguments::{chardev, memory, path};
use channels::{CHANNELS, Event, QUEUE, collect, copy_errors, read_news, read_output};
use check::sys::bind_child;

use monitor::Monitor;

pub use arguments::{WAITS, at_terminal, find, kernel_arguments, machine};

/// The command's standard input and output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// No terminal: no input, and ports for the output.
    None,
    /// The terminal of this process.
    Own,
}

/// The way in which a machine gets to run its command.
pub enum Way {
    /// Boots with the command and the files in its initramfs.
    Boot {
        /// The initramfs.
        initrd: File,
    },
    /// Boots without a command and waits to be saved.
    Save {
        /// The base of an initramfs.
        initrd: File,
        /// The file that becomes its memory.
        memory: File,
    },
    /// Resumes from a saved state.
    Resume {
        /// The base from which it was booted.
        initrd: File,
        /// Its memory when it was saved. The file is not changed.
        memory: File,
        /// The state of its processors and devices.
        state: Vec<u8>,
        /// The command and the files, in an archive of [`DISK`] bytes.
        files: File,
    },
}

/// Size in bytes of the disk on which a resumed machine gets its files. It is
/// the same for all, because a saved kernel knows it already. Unwritten parts
/// take no space.
pub const DISK: u64 = 4 << 30;

/// Our ends of the sockets of a machine that is saved or resumed, and the
/// descriptor numbers of QEMU's ends.
struct Ends {
    monitor: UnixStream,
    orders: UnixStream,
    orders_fd: i32,
    state: UnixStream,
    state_fd: i32,
}

/// The connections to such a machine.
struct Lines {
    monitor: Monitor,
    orders: UnixStream,
}

/// A running VM. QEMU ends with the thread that started it at the latest.
pub struct Guest {
    qemu: Child,
    terminal: Terminal,
    started: Instant,
    lines: Option<Lines>,
    /// The disk with the files, until they are unpacked.
    disk: Option<File>,
    events: Receiver<Event>,
    console: JoinHandle<String>,
    complaints: JoinHandle<String>,
}

/// How a VM ended.
pub struct Ended {
    /// The command's exit status, or the reason why there is none.
    pub status: Result<i32, String>,
    /// Whether the kernel died before the command started. Under TCG this
    /// happens occasionally on a very busy host, where timers fire late.
    pub died_booting: bool,
    /// Whether the command was started.
    pub started: bool,
    /// From QEMU's start to the command's start.
    pub boot: Duration,
    /// Duration of the command.
    pub command: Duration,
    /// Console output of the kernel and `vm/init`.
    pub console: String,
}

/// A limit that means none, and that fits every clock.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Longest boot. On an idle machine it takes 1.5 s.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

impl Guest {
    /// Starts QEMU, and resumes the machine if that is the `way`.
    pub fn start(
        vm: &Vm,
        image: &Image,
        accel: Accel,
        way: Way,
        terminal: Terminal,
    ) -> Result<Guest> {
        let (console, to_console) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
        let (output, to_output) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
        let (errors, to_errors) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
        let (news, to_news) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
        let mut command = Command::new(find()?);
        command.args(machine(vm, accel));
        command.arg("-kernel").arg(&image.file);
        let mut kernel_arguments = kernel_arguments(vm, terminal);
        let (initrd, memory_file, resume) = match way {
            Way::Boot { initrd } => (initrd, None, None),
            Way::Save { initrd, memory } => (initrd, Some(memory), None),
            Way::Resume {
                initrd,
                memory,
                state,
                files,
            } => (initrd, Some(memory), Some((state, files))),
        };
        let mut kept: Vec<OwnedFd> = Vec::new();
        let mut ends = None;
        let mut disk = None;
        // After the console: the kernel numbers its ports by the device's place.
        let mut disks = Vec::new();
        if let Some(image) = &vm.disk {
            let file = File::open(image).with_context(|| format!("open {}", image.display()))?;
            disks.extend(arguments::disk("root", file.as_raw_fd()));
            kept.push(file.into());
        }
        if let Some(memory_file) = memory_file {
            kernel_arguments = format!("{kernel_arguments} {WAITS}");
            let fd = memory_file.as_raw_fd();
            command.args(memory(vm, fd, resume.is_none()));
            let (own, monitor) = UnixStream::pair().context("socketpair")?;
            let fd = monitor.as_raw_fd();
            command.args(["-chardev", &format!("socket,id=monitor,fd={fd}")]);
            command.args(["-mon", "chardev=monitor,mode=control"]);
            let (own_orders, orders) = UnixStream::pair().context("socketpair")?;
            let files = match &resume {
                Some((_, files)) => files.try_clone().context("dup")?,
                None => empty_disk()?,
            };
            let (own_state, state) = UnixStream::pair().context("socketpair")?;
            disks.extend(arguments::disk("files", files.as_raw_fd()));
            ends = Some(Ends {
                monitor: own,
                orders: own_orders,
                orders_fd: orders.as_raw_fd(),
                state: own_state,
                state_fd: state.as_raw_fd(),
            });
            kept.extend([memory_file.into(), monitor.into(), orders.into()]);
            kept.extend([OwnedFd::from(files), state.into()]);
            disk = resume.as_ref().map(|(_, files)| files.try_clone());
        }
        let disk = disk.transpose().context("dup")?;
        if resume.is_some() {
            command.args(["-incoming", "defer"]);
        }
        command.args(["-initrd", &path(&initrd.as_raw_fd())]);
        command.args(["-append", &kernel_arguments]);
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
        if let Some(Ends { orders_fd, .. }) = &ends {
            command.args(["-chardev", &format!("socket,id=orders,fd={orders_fd}")]);
            let port = "virtserialport,chardev=orders,nr=4,name=orders";
            command.args(["-device", port]);
        }
        command.args(disks);
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
                // QEMU restores the terminal when it gets SIGTERM.
                Signal::SIGTERM
            }
        };
        if terminal == Terminal::None {
            command.stdout(Stdio::null());
        }
        command.stderr(Stdio::piped());
        kept.extend([initrd.into(), to_console, to_output, to_errors, to_news]);
        bind_child(&mut command, kept, death);
        let started = Instant::now();
        let mut qemu = command.spawn().context("start QEMU")?;
        // Close our copies of QEMU's ends of the pipes.
        drop(command);
        let complaints = collect(qemu.stderr.take().context("QEMU has no standard error")?);
        let (events, received) = sync_channel(QUEUE);
        read_output(output, events.clone());
        read_news(news, events);
        copy_errors(errors);
        let mut guest = Guest {
            qemu,
            terminal,
            started,
            lines: None,
            disk,
            events: received,
            console: collect(console),
            complaints,
        };
        if let Some(ends) = ends
            && let Err(error) = guest.take_up(ends, resume.map(|(state, _)| state))
        {
            bail!("{error:#}{}", guest.last_words()?);
        }
        Ok(guest)
    }

    /// Opens QEMU's monitor, and resumes the machine if `resume` has its state.
    fn take_up(&mut self, ends: Ends, resume: Option<Vec<u8>>) -> Result<()> {
        let lines = self.lines.insert(Lines {
            monitor: Monitor::open(ends.monitor)?,
            orders: ends.orders,
        });
        let Some(state) = resume else {
            return Ok(());
        };
        lines.monitor.resume(ends.state_fd, ends.state, &state)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("a clock before 1970")?;
        writeln!(lines.orders, "{}.{:09}", now.as_secs(), now.subsec_nanos())
            .context("tell the machine the time")
    }

    /// Waits until the machine has booted, ends it and returns its state. Its
    /// memory is in the file that it was started with.
    pub fn save(mut self) -> Result<Vec<u8>> {
        let saved = self.save_when_ready();
        match saved {
            Ok(state) => {
                self.end()?;
                self.qemu.wait().context("wait for QEMU")?;
                Ok(state)
            }
            Err(error) => bail!("{error:#}{}", self.last_words()?),
        }
    }

    fn save_when_ready(&mut self) -> Result<Vec<u8>> {
        loop {
            let left = BOOT_LIMIT.saturating_sub(self.started.elapsed());
            match self.events.recv_timeout(left) {
                Ok(Event::Ready) => break,
                Ok(Event::Closed) | Err(_) => bail!("it does not boot"),
                Ok(_) => {}
            }
        }
        let lines = self.lines.as_mut().context("a machine to be saved")?;
        lines.monitor.save()
    }

    /// Ends a machine, and returns the last line of QEMU's standard error or,
    /// if that is empty, of the console.
    fn last_words(mut self) -> Result<String> {
        self.end()?;
        self.qemu.wait().context("wait for QEMU")?;
        let said = [self.complaints, self.console].map(|thread| thread.join().unwrap_or_default());
        let mut last = said.iter().filter_map(|text| text.trim().lines().last());
        Ok(last
            .next()
            .map_or_else(String::new, |line| format!(": {line}")))
    }

    /// Empties the disk after its files are unpacked, so that the command
    /// cannot read from it what was sent, perhaps a secret. Then lets the
    /// command begin.
    fn let_begin(&mut self) -> Result<()> {
        let (Some(disk), Some(lines)) = (self.disk.take(), self.lines.as_mut()) else {
            return Ok(()); // said by a program, and not by vm/init
        };
        disk.set_len(0)
            .and_then(|()| disk.set_len(DISK))
            .context("empty the disk")?;
        lines
            .orders
            .write_all(b"go\n")
            .context("let the machine begin")
    }

    /// Waits for the command's end, at most until `limit` after the start, and
    /// ends the VM.
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
                Ok(Event::Ready) => {}
                Ok(Event::Unpacked) => {
                    if let Err(error) = self.let_begin() {
                        status = Err(Some(format!("{error:#}")));
                        self.end()?;
                    }
                }
                Ok(Event::Started) => begun = Some(Instant::now()),
                Ok(Event::Ended(code)) => {
                    ended = Some(Instant::now());
                    status = Ok(code);
                    // The command's output is in the pipes already: each
                    // write(2) in the guest returned when it was there.
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

    /// Ends QEMU, if it still runs.
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

/// Makes a disk without files.
pub fn empty_disk() -> Result<File> {
    let disk = File::from(memfd_create(c"files", MFdFlags::MFD_CLOEXEC).context("memfd_create")?);
    disk.set_len(DISK).context("ftruncate")?;
    Ok(disk)
}
