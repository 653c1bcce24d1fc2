//! A client of D-Bus (the D-Bus specification), as far as systemd needs one:
//! calls one after another, and the end of a job.
//!
//! The crate `zbus` has threads of its own even without an async runtime, and a
//! launcher must have one thread when it clones. What is left of the protocol
//! for a handful of calls is this file.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use kit::say;
use nix::unistd::geteuid;

/// How long systemd may take to answer, and for a job.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest message that is read.
const LONGEST: usize = 1 << 20;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const DBUS: &str = "org.freedesktop.DBus";

/// A value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Bool(bool),
    Number(u64),
    Text(String),
    Numbers(Vec<u32>),
    Pairs(Vec<(String, String)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Bool(_) => "b",
            Value::Number(_) => "t",
            Value::Text(_) => "s",
            Value::Numbers(_) => "au",
            Value::Pairs(_) => "a(ss)",
        }
    }
}

/// Properties of a unit.
pub(crate) type Properties = Vec<(&'static str, Value)>;

/// Bytes in the form of the protocol: each value at a multiple of its size.
#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// An array of elements that are aligned to `to`: its length does not count
    /// the padding before the first.
    fn array(&mut self, to: usize, elements: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let place = self.0.len() - 4;
        self.align(to);
        let start = self.0.len();
        elements(self);
        let length = (self.0.len() - start) as u32;
        self.0[place..place + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::Number(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Text(text) => self.text(text),
            Value::Numbers(numbers) => {
                self.array(4, |w| numbers.iter().for_each(|number| w.u32(*number)));
            }
            Value::Pairs(pairs) => self.array(8, |w| {
                for (first, second) in pairs {
                    w.align(8);
                    w.text(first);
                    w.text(second);
                }
            }),
        }
    }

    fn properties(&mut self, properties: &Properties) {
        self.array(8, |w| {
            for (name, value) in properties {
                w.align(8);
                w.text(name);
                w.signature(value.signature());
                w.value(value);
            }
        });
    }
}

/// A reader of such bytes, which believes no length.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).context("a length")?;
        let taken = self.bytes.get(self.at..end);
        self.at = end;
        taken.context("a message of D-Bus is cut off")
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        self.align(4);
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    fn signature(&mut self) -> Result<String> {
        let length = usize::from(self.byte()?);
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }
}

const CALL: u8 = 1;
const REPLY: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A message that has arrived.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    member: String,
    error: String,
    reply_to: u32,
    body: Vec<u8>,
}

impl Message {
    fn read(from: &mut impl Read) -> Result<Message> {
        let mut fixed = [0; 16];
        read_exact(from, &mut fixed)?;
        ensure!(fixed[0] == b'l', "D-Bus answers in another order of bytes");
        let mut head = Reader::new(&fixed);
        head.at = 4;
        let (body, _, fields) = (head.u32()?, head.u32()?, head.u32()?);
        let (body, fields) = (body as usize, fields as usize);
        ensure!(
            body <= LONGEST && fields <= LONGEST,
            "a message of D-Bus is longer than {LONGEST} bytes"
        );
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        read_exact(from, &mut rest)?;
        let mut message = Message {
            kind: fixed[1],
            body: rest.split_off(fields.next_multiple_of(8)),
            ..Message::default()
        };
        // The fields begin at 16, which is aligned.
        let mut reader = Reader::new(&rest[..fields]);
        while reader.at < fields {
            reader.align(8);
            let code = reader.byte()?;
            match (code, reader.signature()?.as_str()) {
                (3, "s") => message.member = reader.text()?,
                (4, "s") => message.error = reader.text()?,
                (5, "u") => message.reply_to = reader.u32()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "u") => drop(reader.u32()?),
                (_, "g") => drop(reader.signature()?),
                (_, other) => bail!("a field of D-Bus has the type {other:?}"),
            }
        }
        Ok(message)
    }

    fn texts<const N: usize>(&self) -> Result<[String; N]> {
        let mut reader = Reader::new(&self.body);
        let mut texts = [const { String::new() }; N];
        for text in &mut texts {
            *text = reader.text()?;
        }
        Ok(texts)
    }
}

fn read_exact(from: &mut impl Read, bytes: &mut [u8]) -> Result<()> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => anyhow!("D-Bus does not answer within {PATIENCE:?}"),
        _ => anyhow!(error).context("read from D-Bus"),
    })
}

/// A connection to a manager of systemd: the system's for root, else the user's.
#[derive(Debug)]
pub(crate) struct Bus {
    socket: UnixStream,
    serial: u32,
}

/// An error that another process has answered.
#[derive(Debug)]
struct Answered {
    name: String,
    words: String,
}

impl std::fmt::Display for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.words, self.name)
    }
}

impl std::error::Error for Answered {}

/// Whether an error is one that systemd has answered, by the end of its name.
pub(crate) fn is(error: &anyhow::Error, name: &str) -> bool {
    let answered = error.downcast_ref::<Answered>();
    answered.is_some_and(|answered| answered.name.ends_with(name))
}

fn address() -> Result<PathBuf> {
    if geteuid().is_root() {
        return Ok("/run/dbus/system_bus_socket".into());
    }
    let dir = std::env::var_os("XDG_RUNTIME_DIR").context("XDG_RUNTIME_DIR is not set")?;
    Ok(Path::new(&dir).join("bus"))
}

impl Bus {
    /// Connects, and asks to be told of the ends of jobs.
    pub(crate) fn connect() -> Result<Bus> {
        let address = address()?;
        let socket = UnixStream::connect(&address)
            .with_context(|| format!("connect to D-Bus at {address:?}"))?;
        for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            set(&socket, Some(PATIENCE)).context("setsockopt")?;
        }
        let mut bus = Bus { socket, serial: 0 };
        bus.authenticate()?;
        let on_bus = |member| Call::new((DBUS, "/org/freedesktop/DBus", DBUS), member);
        bus.call(on_bus("Hello"))?;
        let rule = format!("type='signal',interface='{MANAGER}',member='JobRemoved'");
        bus.call(on_bus("AddMatch").with("s", |body| body.text(&rule)))?;
        bus.call(Call::manager("Subscribe"))?;
        Ok(bus)
    }

    /// SASL, mechanism EXTERNAL: the kernel tells the other side who we are.
    fn authenticate(&mut self) -> Result<()> {
        let uid = geteuid().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.send(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            ensure!(line.len() < 1024, "D-Bus answers with an endless line");
            let mut byte = [0];
            read_exact(&mut self.socket, &mut byte)?;
            line.push(byte[0]);
        }
        let line = String::from_utf8_lossy(&line);
        ensure!(line.starts_with("OK "), "D-Bus refuses us: {}", line.trim());
        self.send(b"BEGIN\r\n")
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes).context("write to D-Bus")
    }

    /// Makes a call, and waits for its answer.
    fn call(&mut self, call: Call) -> Result<Message> {
        self.serial += 1;
        let what = format!("D-Bus: {}", call.member);
        let bytes = call.bytes(self.serial);
        self.send(&bytes)?;
        loop {
            let message = Message::read(&mut self.socket).with_context(|| what.clone())?;
            if message.reply_to != self.serial {
                continue;
            }
            match message.kind {
                REPLY => return Ok(message),
                ERROR => {
                    let [words] = message.texts().unwrap_or_default();
                    let name = message.error;
                    return Err(anyhow!(Answered { name, words }).context(what));
                }
                _ => {}
            }
        }
    }

    /// Makes a call that begins a job, and waits for its end.
    fn job(&mut self, call: Call) -> Result<()> {
        let member = call.member;
        let [job] = self.call(call)?.texts()?;
        loop {
            let message = Message::read(&mut self.socket).context("wait for a job of systemd")?;
            if message.kind != SIGNAL || message.member != "JobRemoved" {
                continue;
            }
            let mut body = Reader::new(&message.body);
            body.u32()?;
            let (path, unit, result) = (body.text()?, body.text()?, body.text()?);
            if path == job {
                say!("systemd: {member} {unit}: {result}");
                ensure!(
                    matches!(result.as_str(), "done" | "skipped"),
                    "systemd: {member} of {unit}: {result}: see journalctl -u {unit}"
                );
                return Ok(());
            }
        }
    }

    /// The group of the manager itself, in which all its units are.
    pub(crate) fn control_group(&mut self) -> Result<String> {
        let interface = "org.freedesktop.DBus.Properties";
        let call = Call::new((SYSTEMD, SYSTEMD_PATH, interface), "Get");
        let reply = self.call(call.with("ss", |body| {
            body.text(MANAGER);
            body.text("ControlGroup");
        }))?;
        let mut body = Reader::new(&reply.body);
        ensure!(body.signature()? == "s", "D-Bus: ControlGroup is no text");
        body.text()
    }

    /// Starts a unit that exists in no file.
    pub(crate) fn start(&mut self, unit: &str, properties: &Properties) -> Result<()> {
        let call = Call::manager("StartTransientUnit").with("ssa(sv)a(sa(sv))", |body| {
            body.text(unit);
            body.text("replace");
            body.properties(properties);
            body.array(8, |_| {});
        });
        self.job(call)
    }

    /// Stops a unit: kills its processes.
    pub(crate) fn stop(&mut self, unit: &str) -> Result<()> {
        let call = Call::manager("StopUnit").with("ss", |body| {
            body.text(unit);
            body.text("replace");
        });
        self.job(call)
    }

    /// Forgets a unit that has failed.
    pub(crate) fn forget(&mut self, unit: &str) -> Result<()> {
        let call = Call::manager("ResetFailedUnit").with("s", |body| body.text(unit));
        self.call(call).map(drop)
    }

    /// Changes properties until the next start of the machine.
    pub(crate) fn set(&mut self, unit: &str, properties: &Properties) -> Result<()> {
        let call = Call::manager("SetUnitProperties").with("sba(sv)", |body| {
            body.text(unit);
            body.value(&Value::Bool(true));
            body.properties(properties);
        });
        self.call(call).map(drop)
    }
}

/// A call of a method.
struct Call {
    destination: &'static str,
    path: &'static str,
    interface: &'static str,
    member: &'static str,
    signature: &'static str,
    body: Writer,
}

impl Call {
    fn new(
        (destination, path, interface): (&'static str, &'static str, &'static str),
        member: &'static str,
    ) -> Call {
        Call {
            destination,
            path,
            interface,
            member,
            signature: "",
            body: Writer::default(),
        }
    }

    fn manager(member: &'static str) -> Call {
        Call::new((SYSTEMD, SYSTEMD_PATH, MANAGER), member)
    }

    fn with(mut self, signature: &'static str, body: impl FnOnce(&mut Writer)) -> Call {
        self.signature = signature;
        body(&mut self.body);
        self
    }

    fn bytes(&self, serial: u32) -> Vec<u8> {
        let mut all = Writer(vec![b'l', CALL, 0, 1]);
        all.u32(self.body.0.len() as u32);
        all.u32(serial);
        let fields = [
            (1, "o", self.path),
            (2, "s", self.interface),
            (3, "s", self.member),
            (6, "s", self.destination),
            (8, "g", self.signature),
        ];
        all.array(8, |w| {
            for (code, kind, text) in fields {
                if text.is_empty() {
                    continue;
                }
                w.align(8);
                w.0.push(code);
                w.signature(kind);
                match kind {
                    "g" => w.signature(text),
                    _ => w.text(text),
                }
            }
        });
        all.align(8);
        all.0.extend(&self.body.0);
        all.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let call = Call::manager("StartTransientUnit").with("s", |body| body.text("a.scope"));
        let bytes = call.bytes(7);
        let read = Message::read(&mut bytes.as_slice()).unwrap();
        assert_eq!(
            (read.kind, read.member.as_str()),
            (CALL, "StartTransientUnit")
        );
        assert_eq!(read.texts().unwrap(), ["a.scope".to_owned()]);
        // Cut off anywhere, or with lengths that nobody has: an error, no panic.
        for length in 0..bytes.len() {
            assert!(Message::read(&mut &bytes[..length]).is_err(), "{length}");
        }
        for place in 4..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[place] ^= 0xff;
            drop(Message::read(&mut wrong.as_slice()).and_then(|read| read.texts::<2>()));
        }
    }

    #[test]
    fn properties_are_aligned_as_the_specification_wants() {
        let mut body = Writer::default();
        body.properties(&vec![
            ("A", Value::Bool(true)),
            ("B", Value::Number(2)),
            ("C", Value::Numbers(vec![3])),
        ]);
        let expected: &[u8] = &[
            // The length, and padding to the first struct.
            64, 0, 0, 0, 0, 0, 0, 0, //
            1, 0, 0, 0, b'A', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0, //
            1, 0, 0, 0, b'B', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(&body.0[8..expected.len()], &expected[8..]);
        let length = u32::from_le_bytes(body.0[..4].try_into().unwrap());
        assert_eq!(length as usize, body.0.len() - 8);
    }
}
