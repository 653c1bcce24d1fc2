//! The VM's output channels, each read by a thread of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write, stderr};
use std::os::fd::OwnedFd;
use std::sync::mpsc::SyncSender;
use std::thread::{JoinHandle, spawn};

/// An event on a channel of the VM.
pub(super) enum Event {
    Output(String),
    /// The machine can be saved.
    Ready,
    /// The files are unpacked, and the disk with them can be emptied.
    Unpacked,
    Started,
    Ended(i32),
    /// The end of a channel.
    Closed,
}

/// Number of channels that send events: output and news.
pub(super) const CHANNELS: usize = 2;

/// Limits, because a program in the VM may write to every channel for as long
/// as it lives: events in the queue; bytes of a line; bytes kept of the
/// console; bytes passed on from standard error.
pub(super) const QUEUE: usize = 64;
const LINE: u64 = 8 << 20;
const CONSOLE: usize = 4 << 20;
const ERRORS: usize = 4 << 20;

pub(super) fn read_output(pipe: OwnedFd, events: SyncSender<Event>) {
    each_line(pipe, events, |line| Some(Event::Output(line)));
}

pub(super) fn read_news(pipe: OwnedFd, events: SyncSender<Event>) {
    each_line(pipe, events, |line| match line.split_once(' ') {
        Some(("ended", status)) => Some(Event::Ended(status.parse().unwrap_or(255))),
        _ => match line.as_str() {
            "ready" => Some(Event::Ready),
            "unpacked" => Some(Event::Unpacked),
            "started" => Some(Event::Started),
            _ => None,
        },
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
        // A line that is too long arrives in parts, which no reader
        // understands.
        while matches!(
            (&mut reader).take(LINE).read_until(b'\n', &mut line),
            Ok(1..)
        ) {
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            // The receiver is gone after the wait for the VM was given up.
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

pub(super) fn copy_errors(pipe: OwnedFd) {
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

/// Collects the beginning of a stream, which is read to its end.
pub(super) fn collect(from: impl Into<OwnedFd>) -> JoinHandle<String> {
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

/// Reads to the end or to an error. What came before an error is kept.
fn read_all(from: OwnedFd, mut on_bytes: impl FnMut(&[u8])) {
    let mut from = File::from(from);
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        on_bytes(&buffer[..length]);
    }
}
