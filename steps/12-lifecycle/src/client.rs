//! Attaching: the other side of a monitor's frames.

use std::io::{ErrorKind, IsTerminal, Read, Write, stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use engine::terminal::raw::Raw;
use kit::sys::signals::{block, read_signal, set_mask, signalfd};
use kit::{SignalNumber, SignalSet};
use nix::sys::signal::Signal;
use process::Exit;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::tcgetwinsize;

use crate::protocol::{Frame, LONGEST, Order, give};

/// How to attach.
#[derive(Clone, Debug)]
pub struct Attach {
    /// Whether this process's input goes to the command.
    pub input: bool,
    /// Whether the command has a terminal.
    pub terminal: bool,
    /// The keys that end this without ending the command.
    pub detach_keys: Vec<u8>,
    /// Whether signals to this process go to the command.
    pub proxy: bool,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The command has ended.
    Exited(u8),
    /// The keys were typed.
    Detached,
    /// The monitor is gone.
    Lost,
}

impl End {
    /// The exit status of `attach`, `start -a` and `run`.
    ///
    /// # Errors
    /// If the monitor was killed.
    pub fn exit(self) -> Result<Exit> {
        match self {
            End::Exited(status) => Ok(Exit::Code(status)),
            End::Detached => Ok(Exit::Code(0)),
            End::Lost => bail!(
                "the container's monitor has ended: it was killed, or too much output was waiting"
            ),
        }
    }
}

/// Asks a monitor for the streams: the first half of [`attach`]. A monitor that
/// is only started then has the order before the command prints anything.
pub fn ask(stream: &UnixStream, how: &Attach) -> Result<()> {
    give(stream, &Order::Attach { input: how.input })
}

/// Carries streams between this process and the command until either ends.
/// `signal` sends a signal to the command. [`ask`] has been called.
pub fn attach(
    mut stream: UnixStream,
    how: &Attach,
    signal: &mut dyn FnMut(SignalNumber) -> Result<()>,
) -> Result<End> {
    let passed: SignalSet = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
    ]
    .into_iter()
    .collect();
    let taken = match how.proxy {
        true => passed,
        false => [Signal::SIGWINCH].into_iter().collect(),
    };
    let signals = signalfd(taken)?;
    let before = block(taken)?;
    let raw = match how.terminal && how.input && stdin().is_terminal() {
        true => Some(Raw::enter(
            stdin().as_fd().try_clone_to_owned().context("dup")?,
        )?),
        false => None,
    };
    if how.terminal {
        send_size(&mut stream)?;
    }
    let end = carry(&mut stream, how, &signals, signal);
    drop(raw);
    set_mask(before)?;
    end
}

fn carry(
    stream: &mut UnixStream,
    how: &Attach,
    signals: &OwnedFd,
    signal: &mut dyn FnMut(SignalNumber) -> Result<()>,
) -> Result<End> {
    let mut input = how.input.then(stdin);
    let mut come = Vec::new();
    let mut typed = 0;
    loop {
        let mut fds = vec![
            PollFd::new(stream, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        if let Some(input) = &input {
            fds.push(PollFd::new(input, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno).context("poll"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[1] {
            let (arrived, _) = read_signal(signals)?;
            if arrived == Signal::SIGWINCH.into() {
                if how.terminal {
                    send_size(stream)?;
                }
            } else {
                signal(arrived)?;
            }
        }
        if ready.get(2) == Some(&true)
            && let Some(open) = &input
        {
            let mut bytes = [0; LONGEST];
            match rustix::io::read(open, &mut bytes[..LONGEST / 4]) {
                Ok(0) => {
                    send(stream, &Frame::InputEnd.with(&[]))?;
                    input = None;
                }
                Ok(length) => {
                    let bytes = &bytes[..length];
                    if how.terminal && typed_all(bytes, &how.detach_keys, &mut typed) {
                        return Ok(End::Detached);
                    }
                    send(stream, &Frame::Input.with(bytes))?;
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno).context("read standard input"),
            }
        }
        if ready[0] {
            let mut bytes = [0; LONGEST];
            match stream.read(&mut bytes) {
                Ok(0) => return Ok(End::Lost),
                Ok(length) => come.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(End::Lost),
                Err(error) => return Err(error).context("read from the monitor"),
            }
            while let Some((frame, data)) = Frame::take(&mut come)? {
                match frame {
                    Frame::Stdout => write(&mut stdout(), &data)?,
                    Frame::Stderr => write(&mut stderr(), &data)?,
                    Frame::Exit => {
                        return Ok(End::Exited(data.first().copied().unwrap_or_default()));
                    }
                    Frame::Input | Frame::InputEnd | Frame::Size => {}
                }
            }
        }
    }
}

/// Whether the keys have been typed, possibly in several reads. The first ones
/// go to the command all the same, as it may want them.
fn typed_all(bytes: &[u8], keys: &[u8], typed: &mut usize) -> bool {
    for byte in bytes {
        if keys.get(*typed) == Some(byte) {
            *typed += 1;
        } else {
            *typed = usize::from(keys.first() == Some(byte));
        }
        if !keys.is_empty() && *typed == keys.len() {
            return true;
        }
    }
    false
}

fn send(stream: &mut UnixStream, bytes: &[u8]) -> Result<()> {
    match stream.write_all(bytes) {
        // The end is read next.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ) =>
        {
            Ok(())
        }
        sent => sent.context("write to the monitor"),
    }
}

fn write(to: &mut impl Write, bytes: &[u8]) -> Result<()> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to standard output"),
    }
}

fn send_size(stream: &mut UnixStream) -> Result<()> {
    let Ok(size) = tcgetwinsize(stdin()).or_else(|_| tcgetwinsize(stdout())) else {
        return Ok(());
    };
    let [a, b] = size.ws_row.to_be_bytes();
    let [c, d] = size.ws_col.to_be_bytes();
    send(stream, &Frame::Size.with(&[a, b, c, d]))
}

/// Reads keys as Docker spells them: letters, and `ctrl-x`, separated by commas.
pub fn keys(text: &str) -> Result<Vec<u8>> {
    text.split(',')
        .map(|key| match key.strip_prefix("ctrl-") {
            Some(key) => match key.as_bytes() {
                [letter @ b'a'..=b'z'] => Ok(letter - b'a' + 1),
                [b'@'] => Ok(0),
                [sign @ b'['..=b'_'] => Ok(sign - b'@'),
                _ => bail!("--detach-keys: no key ctrl-{key}"),
            },
            None => match key.as_bytes() {
                [key] => Ok(*key),
                _ => bail!("--detach-keys: no key {key:?}: give a letter or ctrl- and a letter"),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_dockers() {
        assert_eq!(keys("ctrl-p,ctrl-q").unwrap(), [16, 17]);
        assert_eq!(keys("a,ctrl-[").unwrap(), [b'a', 27]);
        assert!(keys("ctrl-").is_err() && keys("ab").is_err() && keys("").is_err());
    }

    #[test]
    fn keys_may_come_in_pieces() {
        let mut typed = 0;
        assert!(!typed_all(&[16], &[16, 17], &mut typed));
        assert!(typed_all(&[17], &[16, 17], &mut typed));
        let mut typed = 0;
        assert!(!typed_all(&[16, 5, 17], &[16, 17], &mut typed));
        assert!(typed_all(&[16, 16, 17], &[16, 17], &mut typed));
    }
}
