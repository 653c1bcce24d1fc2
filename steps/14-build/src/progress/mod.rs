//! What a build shows while it runs.
//!
//! Stages report from threads of their own, over a channel; one thread draws. It
//! draws a picture on a terminal, lines elsewhere, and with `--quiet` nothing.
//!
//! | module | what |
//! |---|---|
//! | this | who reports, and what |
//! | [`plain`] | lines, as BuildKit prints them |
//! | [`terminal`] | a picture: stages side by side |

pub mod plain;
pub mod terminal;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};

use plain::Plain;
use terminal::Terminal;

/// The most bytes of the output of a step that are shown: BuildKit's.
const MOST: usize = 2 << 20;

/// The last lines that are shown again if a step fails.
const LAST: usize = 50;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum How {
    /// A picture on a terminal, lines elsewhere.
    Auto,
    /// Lines.
    Plain,
    /// A picture.
    Tty,
    /// Nothing.
    Quiet,
    /// A JSON object a line.
    Rawjson,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A step begins.
    Begin {
        /// Its number.
        id: usize,
        /// Its title.
        title: String,
        /// The stage that it belongs to.
        stage: String,
    },
    /// It is found in the cache.
    Cached(usize),
    /// It is not, and why.
    Why(usize, String),
    /// It has printed something: a line, or a part of one.
    Output(usize, Vec<u8>, Duration),
    /// Something has been done for it.
    Note(usize, String),
    /// Something that the user should know, once a build.
    Warning(String),
    /// It is over, well or with an error.
    End(usize, Option<String>),
}

/// Who is told of what a build does.
#[derive(Clone, Debug)]
pub struct Reporter {
    to: Sender<(Event, Instant)>,
    next: Arc<AtomicUsize>,
}

impl Reporter {
    /// A step begins.
    pub fn begin(&self, title: &str, stage: &str) -> Vertex {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let vertex = Vertex {
            id,
            to: Some(self.to.clone()),
            begun: Instant::now(),
            shown: Mutex::new(0),
        };
        vertex.tell(Event::Begin {
            id,
            title: one_line(title),
            stage: stage.trim().to_owned(),
        });
        vertex
    }
}

/// A step, for who carries it out.
#[derive(Debug)]
pub struct Vertex {
    id: usize,
    to: Option<Sender<(Event, Instant)>>,
    begun: Instant,
    /// The bytes of output so far.
    shown: Mutex<usize>,
}

impl Vertex {
    /// One of which nobody is told.
    pub fn silent() -> Self {
        Vertex {
            id: 0,
            to: None,
            begun: Instant::now(),
            shown: Mutex::new(0),
        }
    }

    fn tell(&self, event: Event) {
        // A display that is gone has nothing to show.
        if let Some(to) = &self.to
            && let Err(error) = to.send((event, Instant::now()))
        {
            kit::say!("{error}");
        }
    }

    /// It was found in the cache.
    pub fn cached(&self) {
        self.tell(Event::Cached(self.id));
    }

    /// It was not, for this reason.
    pub fn why(&self, why: &str) {
        self.tell(Event::Why(self.id, one_line(why)));
    }

    /// Something has been done.
    pub fn note(&self, note: &str) {
        self.tell(Event::Note(self.id, one_line(note)));
    }

    /// The user should know this, however often it happens once.
    pub fn warn(&self, text: &str) {
        self.tell(Event::Warning(one_line(text)));
    }

    /// It has printed a line, or a part of one. Returns whether more is shown.
    pub fn output(&self, bytes: &[u8]) -> bool {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown > MOST {
            return false;
        }
        *shown += bytes.len();
        let after = self.begun.elapsed();
        self.tell(Event::Output(self.id, bytes.to_vec(), after));
        if *shown > MOST {
            let clipped = format!("[output clipped, log limit {}MiB reached]\n", MOST >> 20);
            self.tell(Event::Output(self.id, clipped.into_bytes(), after));
        }
        *shown <= MOST
    }

    /// It is over.
    pub fn end(&self, error: Option<&Error>) {
        let error = error.map(|error| one_line(&crate::build::error::words(error)));
        self.tell(Event::End(self.id, error));
    }
}

/// A text without line breaks and other control characters.
pub fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split('\n').map(str::trim_end).collect();
    kit::say::printable(words.join("\\n").trim_end_matches("\\n"))
}

/// A line without what a terminal obeys, but for its tabs.
pub fn safe(line: &str) -> String {
    let parts: Vec<String> = line.split('\t').map(kit::say::printable).collect();
    parts.join("\t")
}

/// What happens to a step, kept for the end.
#[derive(Debug, Default)]
struct Kept {
    title: String,
    last: VecDeque<String>,
}

/// The step that has failed: its title, and what it printed last.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Its title.
    pub title: String,
    /// Its last lines.
    pub last: Vec<String>,
}

/// What is to be said when everything is drawn.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// The step that has failed.
    pub failed: Option<Failed>,
    /// What the user should know.
    pub warnings: BTreeSet<String>,
}

/// Something that draws.
trait Draw: Send {
    /// Shows what has happened.
    fn event(&mut self, event: &Event, at: Instant);
    /// Called ten times a second.
    fn tick(&mut self) {}
    /// Everything has happened.
    fn finish(&mut self, failed: bool);
}

struct Nothing;

impl Draw for Nothing {
    fn event(&mut self, _: &Event, _: Instant) {}
    fn finish(&mut self, _: bool) {}
}

/// The thread that draws.
#[derive(Debug)]
pub struct Display {
    thread: JoinHandle<Ended>,
}

impl Display {
    /// Begins to draw on standard error.
    pub fn start(how: How) -> (Reporter, Self) {
        let (to, from) = channel();
        let draw: Box<dyn Draw> = match how {
            How::Auto if stderr().is_terminal() => Box::new(Terminal::begin()),
            How::Auto | How::Plain => Box::new(Plain::begin()),
            How::Tty => Box::new(Terminal::begin()),
            How::Quiet => Box::new(Nothing),
            How::Rawjson => Box::new(plain::Json::begin()),
        };
        let reporter = Reporter {
            to,
            next: Arc::new(AtomicUsize::new(1)),
        };
        let thread = std::thread::spawn(move || draw_all(&from, draw));
        (reporter, Display { thread })
    }

    /// Waits until everything is drawn. All reporters must be gone.
    pub fn finish(self) -> Result<Ended> {
        match self.thread.join() {
            Ok(ended) => Ok(ended),
            Err(_) => bail!("the thread that shows the progress has panicked"),
        }
    }
}

fn draw_all(from: &Receiver<(Event, Instant)>, mut draw: Box<dyn Draw>) -> Ended {
    let mut kept: BTreeMap<usize, Kept> = BTreeMap::new();
    let mut ended = Ended::default();
    loop {
        match from.recv_timeout(Duration::from_millis(100)) {
            Ok((event, at)) => {
                draw.event(&event, at);
                match event {
                    Event::Begin { id, title, .. } => {
                        kept.entry(id).or_default().title = title;
                    }
                    Event::Output(id, bytes, after) => {
                        let last = &mut kept.entry(id).or_default().last;
                        let line = String::from_utf8_lossy(&bytes);
                        let line = safe(line.trim_end_matches(['\n', '\r']));
                        last.push_back(format!("{:.3} {line}", after.as_secs_f64()));
                        if last.len() > LAST {
                            last.pop_front();
                        }
                    }
                    Event::Cached(id) => drop(kept.remove(&id)),
                    Event::End(id, error) => {
                        let step = kept.remove(&id).unwrap_or_default();
                        // What was broken off because of another is not the cause.
                        if error.is_some_and(|error| !error.starts_with("Canceled")) {
                            ended.failed.get_or_insert(Failed {
                                title: step.title,
                                last: step.last.into(),
                            });
                        }
                    }
                    Event::Warning(text) => drop(ended.warnings.insert(text)),
                    Event::Why(..) | Event::Note(..) => {}
                }
            }
            Err(RecvTimeoutError::Timeout) => draw.tick(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    draw.finish(ended.failed.is_some());
    ended
}
