//! Lines, as BuildKit prints them: `#5 [2/4] RUN make`, `#5 0.123 output`, `#5
//! DONE 0.3s`. What a step prints follows its title; when another step takes over,
//! a blank line says so.

use std::collections::BTreeMap;
use std::io::{Write, stderr};
use std::time::Instant;

use serde_json::json;

use super::{Draw, Event, safe};

struct Step {
    title: String,
    begun: Instant,
    /// Whether the last line has no end yet.
    open: bool,
}

/// Draws lines on standard error.
pub struct Plain {
    steps: BTreeMap<usize, Step>,
    /// The step of the last line.
    last: usize,
}

impl Plain {
    /// Nothing is drawn yet.
    pub fn begin() -> Self {
        Plain {
            steps: BTreeMap::new(),
            last: 0,
        }
    }

    /// Turns to a step: its title, if another had the last line.
    fn turn_to(&mut self, id: usize, out: &mut Vec<u8>) {
        if self.last == id {
            return;
        }
        if let Some(last) = self.steps.get_mut(&self.last) {
            if last.open {
                out.push(b'\n');
                last.open = false;
            }
            out.extend_from_slice(format!("#{} ...\n", self.last).as_bytes());
        }
        if self.last != 0 {
            out.push(b'\n');
        }
        self.last = id;
        if let Some(step) = self.steps.get(&id) {
            out.extend_from_slice(format!("#{id} {}\n", step.title).as_bytes());
        }
    }

    fn line(&mut self, id: usize, text: &str, out: &mut Vec<u8>) {
        self.turn_to(id, out);
        if let Some(step) = self.steps.get_mut(&id)
            && step.open
        {
            out.push(b'\n');
            step.open = false;
        }
        out.extend_from_slice(format!("#{id} {text}\n").as_bytes());
    }
}

impl Draw for Plain {
    fn event(&mut self, event: &Event, at: Instant) {
        let mut out = Vec::new();
        match event {
            Event::Begin { id, title, .. } => {
                let step = Step {
                    title: title.clone(),
                    begun: at,
                    open: false,
                };
                self.steps.insert(*id, step);
                self.turn_to(*id, &mut out);
            }
            Event::Cached(id) => {
                self.line(*id, "CACHED", &mut out);
                self.steps.remove(id);
            }
            Event::Why(id, why) => self.line(*id, &format!("not cached: {why}"), &mut out),
            Event::Note(id, note) => self.line(*id, note, &mut out),
            // Said in the end.
            Event::Warning(_) => {}
            Event::Output(id, bytes, after) => {
                self.turn_to(*id, &mut out);
                let open = self.steps.get(id).is_some_and(|step| step.open);
                if !open {
                    out.extend_from_slice(format!("#{id} {:.3} ", after.as_secs_f64()).as_bytes());
                }
                let text = String::from_utf8_lossy(bytes);
                let line = text.strip_suffix('\n');
                let shown = line.unwrap_or(&text);
                // Of a line that overwrites itself the last state counts.
                let shown = shown.trim_end_matches('\r');
                let shown = shown.rsplit('\r').next().unwrap_or_default();
                out.extend_from_slice(safe(shown).as_bytes());
                if line.is_some() {
                    out.push(b'\n');
                }
                if let Some(step) = self.steps.get_mut(id) {
                    step.open = line.is_none();
                }
            }
            Event::End(id, error) => {
                let took = self.steps.get(id).map(|step| at - step.begun);
                let text = match error {
                    None => format!("DONE {:.1}s", took.unwrap_or_default().as_secs_f64()),
                    Some(error) if error.starts_with("Canceled") => "CANCELED".into(),
                    Some(error) => format!("ERROR: {error}"),
                };
                self.line(*id, &text, &mut out);
                self.steps.remove(id);
            }
        }
        show(&out);
    }

    fn finish(&mut self, _: bool) {}
}

/// A JSON object a line.
pub struct Json {
    begun: Instant,
}

impl Json {
    /// Nothing is drawn yet.
    pub fn begin() -> Self {
        Json {
            begun: Instant::now(),
        }
    }
}

impl Draw for Json {
    fn event(&mut self, event: &Event, at: Instant) {
        let mut value = match event {
            Event::Begin { id, title, stage } => {
                json!({ "vertex": id, "name": title, "stage": stage })
            }
            Event::Cached(id) => json!({ "vertex": id, "cached": true }),
            Event::Why(id, why) => json!({ "vertex": id, "why": why }),
            Event::Note(id, note) => json!({ "vertex": id, "status": note }),
            Event::Warning(text) => json!({ "warning": text }),
            Event::Output(id, bytes, _) => {
                json!({ "vertex": id, "data": String::from_utf8_lossy(bytes) })
            }
            Event::End(id, None) => json!({ "vertex": id, "completed": true }),
            Event::End(id, Some(error)) => json!({ "vertex": id, "error": error }),
        };
        value["time"] = json!((at - self.begun).as_secs_f64());
        show(format!("{value}\n").as_bytes());
    }

    fn finish(&mut self, _: bool) {}
}

/// Writes to standard error. Somebody who has closed it has nothing to see.
pub(super) fn show(bytes: &[u8]) {
    if let Err(error) = stderr().lock().write_all(bytes) {
        kit::say!("write: {error}");
    }
}
