//! A call by gRPC: one request, one answer, over HTTP/2 (RFC 9113) on a socket.
//!
//! By hand, because the peers' checks make nine such calls: tonic, prost and h2
//! would bring some fifty crates and a generator to do so. What it omits: it
//! reads no headers, so it knows that a call failed (there is no answer), and the
//! reason is in the server's log.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The only stream of a connection.
const STREAM: u32 = 1;

/// The longest answer that is read.
const LONGEST: usize = 1 << 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header as a literal that enters no table (RFC 7541, 6.2.2).
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127, "a length in one byte");
        bytes.push(text.len() as u8);
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// Calls `/SERVICE/METHOD` of the server at `socket` with a message, and returns
/// its message.
///
/// # Errors
/// If the server refuses the call; its log says why.
pub(crate) fn call(socket: &Path, path: &str, message: &[u8]) -> Result<Vec<u8>> {
    let mut server = UnixStream::connect(socket).with_context(|| format!("connect {socket:?}"))?;
    let limit = Some(Duration::from_secs(60));
    server.set_read_timeout(limit).context("setsockopt")?;
    let headers: Vec<u8> = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    .iter()
    .flat_map(|(name, value)| header(name, value))
    .collect();
    // Not compressed, and its length.
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    request.extend(frame(SETTINGS, 0, 0, &[]));
    request.extend(frame(HEADERS, END_HEADERS, STREAM, &headers));
    request.extend(frame(DATA, END_STREAM, STREAM, &body));
    server.write_all(&request).context("send the request")?;
    let body = answer(&mut server).with_context(|| path.to_owned())?;
    let Some((head, message)) = body.split_first_chunk::<5>() else {
        bail!("{path}: refused");
    };
    ensure!(head[0] == 0, "{path}: the answer is compressed");
    Ok(message.to_vec())
}

/// Reads frames to the end of the stream, and returns its data.
fn answer(server: &mut UnixStream) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        server.read_exact(&mut head).context("read a frame")?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        ensure!(length + body.len() <= LONGEST, "the answer is too long");
        let mut payload = vec![0; length];
        server.read_exact(&mut payload).context("read a frame")?;
        match kind {
            SETTINGS if flags & ACK == 0 => server
                .write_all(&frame(SETTINGS, ACK, 0, &[]))
                .context("send a frame")?,
            PING if flags & ACK == 0 => server
                .write_all(&frame(PING, ACK, 0, &payload))
                .context("send a frame")?,
            RST_STREAM | GOAWAY => bail!("the server ends the call"),
            DATA => body.extend(&payload),
            _ => {}
        }
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if ends && u32::from_be_bytes(stream) == STREAM {
            return Ok(body);
        }
    }
}
