//! What others say to a monitor, through the socket in its container's
//! directory: one line of JSON, the order. Then, for those who attach, frames in
//! both directions:
//!
//! ```text
//!  kind   length, big endian   data
//!  1 byte 4 bytes              0 to 64 KiB
//! ```
//!
//! The directory belongs to the caller alone, so whoever can connect may give
//! orders.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kit::own::remove_file;
use serde::{Deserialize, Serialize};

/// The name of the socket.
const SOCKET: &str = "socket";

/// The longest data of a frame, and the longest order, in bytes.
pub const LONGEST: usize = 64 << 10;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Send the output as frames, and take input.
    Attach {
        /// Whether the sender has input.
        input: bool,
    },
    /// Send an [`Answer::Exit`] when the command ends.
    Wait,
    /// End the container, and do not start it again. The connection ends when
    /// everything is cleaned up.
    Stop {
        /// The signal to begin with; `None` for SIGKILL only.
        signal: Option<i32>,
        /// Seconds until SIGKILL; `None` for never.
        seconds: Option<u64>,
    },
    /// Change when the container is started again.
    Restart(crate::settings::Restart),
    /// Answer the container's questions for names from now on.
    Names,
}

/// The line that answers an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The command has ended with this exit status.
    Exit(u8),
    /// It is done.
    Done,
    /// It cannot be done.
    Refused(String),
}

/// The kinds of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// To the command: input.
    Input = 0,
    /// From the command: standard output.
    Stdout = 1,
    /// From the command: standard error.
    Stderr = 2,
    /// To the command: its input has ended.
    InputEnd = 3,
    /// To its terminal: rows and columns, two bytes each, big endian.
    Size = 4,
    /// From the monitor: the command has ended, with its exit status.
    Exit = 5,
}

impl Frame {
    /// The frame of that number.
    pub fn of(number: u8) -> Option<Frame> {
        use Frame::*;
        [Input, Stdout, Stderr, InputEnd, Size, Exit]
            .into_iter()
            .find(|frame| *frame as u8 == number)
    }

    /// A frame with its head.
    pub fn with(self, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![self as u8];
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    /// Takes the first whole frame off `bytes`; `None` if there is none yet.
    ///
    /// # Errors
    /// If it is of an unknown kind, or too long.
    pub fn take(bytes: &mut Vec<u8>) -> Result<Option<(Frame, Vec<u8>)>> {
        let Some((head, rest)) = bytes.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let [kind, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        let frame = Frame::of(kind).with_context(|| format!("a frame of the kind {kind}"))?;
        anyhow::ensure!(length <= LONGEST, "a frame of {length} bytes");
        if rest.len() < length {
            return Ok(None);
        }
        let data = rest[..length].to_vec();
        bytes.drain(..5 + length);
        Ok(Some((frame, data)))
    }
}

/// A path of at most 108 bytes (unix(7)) to the socket in `directory`, by way of
/// the open directory.
fn short(directory: &File) -> PathBuf {
    format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()).into()
}

fn opened(directory: &Path) -> Result<File> {
    File::open(directory).with_context(|| format!("open {directory:?}"))
}

/// Listens in the directory of a container. What an earlier monitor has left is
/// replaced.
pub fn listen(directory: &Path) -> Result<UnixListener> {
    remove_file(&directory.join(SOCKET))?;
    let open = opened(directory)?;
    let listener = UnixListener::bind(short(&open))
        .with_context(|| format!("bind({:?})", directory.join(SOCKET)))?;
    listener.set_nonblocking(true).context("O_NONBLOCK")?;
    Ok(listener)
}

/// Connects to the monitor of a container; `None` if there is none.
pub fn connect(directory: &Path) -> Result<Option<UnixStream>> {
    let open = match File::open(directory) {
        Ok(open) => open,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open {directory:?}")),
    };
    match UnixStream::connect(short(&open)) {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("connect({:?})", directory.join(SOCKET))),
    }
}

/// Gives an order over a connection.
pub fn give(mut stream: &UnixStream, order: &Order) -> Result<()> {
    use std::io::Write;
    let mut line = serde_json::to_vec(order).context("write JSON")?;
    line.push(b'\n');
    stream.write_all(&line).context("write to the monitor")
}

/// Reads the answer of a monitor; `None` if it has ended without one.
pub fn answer(stream: &UnixStream) -> Result<Option<Answer>> {
    use std::io::{BufRead, BufReader};
    let mut line = String::new();
    let read = BufReader::new(stream).read_line(&mut line);
    match read {
        Ok(0) => Ok(None),
        Ok(_) => serde_json::from_str(&line)
            .map(Some)
            .context("the monitor's answer"),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error).context("read from the monitor"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_pieces() {
        let whole = [Frame::Stdout.with(b"abc"), Frame::Exit.with(&[7])].concat();
        let mut got = Vec::new();
        let mut bytes = Vec::new();
        for byte in whole {
            bytes.push(byte);
            while let Some(frame) = Frame::take(&mut bytes).unwrap() {
                got.push(frame);
            }
        }
        assert_eq!(
            got,
            [(Frame::Stdout, b"abc".to_vec()), (Frame::Exit, vec![7])]
        );
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_bad_frame_is_an_error() {
        assert!(Frame::take(&mut vec![9, 0, 0, 0, 0]).is_err());
        assert!(Frame::take(&mut vec![0, 1, 0, 0, 0]).is_err());
    }
}
