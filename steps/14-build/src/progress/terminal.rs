//! A picture on a terminal, drawn again ten times a second: the steps that run
//! stand below one another, each with what it prints.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use rustix::termios::tcgetwinsize;

use super::plain::show;
use super::{Draw, Event};

/// The lines of output that are shown of a step that runs.
const LINES: usize = 4;

#[derive(Debug)]
struct Step {
    title: String,
    begun: Instant,
    ended: Option<Instant>,
    cached: bool,
    error: bool,
    lines: VecDeque<String>,
}

/// Draws the picture on standard error.
#[derive(Debug)]
pub struct Terminal {
    begun: Instant,
    steps: BTreeMap<usize, Step>,
    /// The lines of the picture that stands there.
    drawn: usize,
}

impl Terminal {
    /// Nothing is drawn yet.
    pub fn begin() -> Self {
        Terminal {
            begun: Instant::now(),
            steps: BTreeMap::new(),
            drawn: 0,
        }
    }

    fn draw(&mut self, over: Option<bool>) {
        let size = tcgetwinsize(std::io::stderr()).ok();
        let (rows, columns) = match size {
            Some(size) if size.ws_col > 20 && size.ws_row > 4 => {
                (usize::from(size.ws_row), usize::from(size.ws_col))
            }
            _ => (24, 80),
        };
        let done = self.steps.values().filter(|step| step.ended.is_some());
        let (done, all) = (done.count(), self.steps.len());
        let seconds = self.begun.elapsed().as_secs_f64();
        let state = match over {
            Some(false) => "FINISHED",
            Some(true) => "ERROR",
            None => "",
        };
        let mut lines = vec![format!("[+] Building {seconds:.1}s ({done}/{all}) {state}")];
        let mut body = Vec::new();
        for step in self.steps.values() {
            let until = step.ended.unwrap_or_else(Instant::now);
            let took = format!("{:.1}s", (until - step.begun).as_secs_f64());
            let word = match (step.cached, step.error) {
                (true, _) => "CACHED ",
                (_, true) => "ERROR ",
                _ => "",
            };
            let left = clipped(&format!(" => {word}{}", step.title), columns - 9);
            let width = left.chars().count();
            let blanks = " ".repeat((columns - 1).saturating_sub(width + took.len()));
            body.push((step.ended.is_some(), format!("{left}{blanks}{took}")));
            if step.ended.is_none() {
                for line in &step.lines {
                    body.push((false, clipped(&format!(" => => # {line}"), columns - 1)));
                }
            }
        }
        // What has ended makes room first.
        let room = rows.saturating_sub(2);
        while over.is_none() && body.len() > room {
            let old = body.iter().position(|(ended, _)| *ended).unwrap_or(0);
            body.remove(old);
        }
        lines.extend(body.into_iter().map(|(_, line)| line));
        let mut out = String::new();
        if self.drawn > 0 {
            out += &format!("\x1b[{}A", self.drawn);
        }
        for line in &lines {
            out += &format!("\r{line}\x1b[K\n");
        }
        out += "\x1b[J";
        self.drawn = lines.len();
        show(out.as_bytes());
    }
}

fn clipped(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        false => text.to_owned(),
        true => text
            .chars()
            .take(most.saturating_sub(1))
            .chain(['…'])
            .collect(),
    }
}

impl Draw for Terminal {
    fn event(&mut self, event: &Event, at: Instant) {
        match event {
            Event::Begin { id, title, .. } => {
                let step = Step {
                    title: title.clone(),
                    begun: at,
                    ended: None,
                    cached: false,
                    error: false,
                    lines: VecDeque::new(),
                };
                self.steps.insert(*id, step);
            }
            Event::Cached(id) => {
                if let Some(step) = self.steps.get_mut(id) {
                    (step.cached, step.ended) = (true, Some(at));
                }
            }
            Event::Why(..) | Event::Note(..) | Event::Warning(_) => {}
            Event::Output(id, bytes, _) => {
                if let Some(step) = self.steps.get_mut(id) {
                    let text = String::from_utf8_lossy(bytes);
                    let line = text.trim_end_matches(['\n', '\r']);
                    let line = line.rsplit('\r').next().unwrap_or_default();
                    step.lines.push_back(kit::say::printable(line));
                    if step.lines.len() > LINES {
                        step.lines.pop_front();
                    }
                }
            }
            Event::End(id, error) => {
                if let Some(step) = self.steps.get_mut(id) {
                    (step.error, step.ended) = (error.is_some(), Some(at));
                }
            }
        }
    }

    fn tick(&mut self) {
        self.draw(None);
    }

    fn finish(&mut self, failed: bool) {
        self.draw(Some(failed));
    }
}
