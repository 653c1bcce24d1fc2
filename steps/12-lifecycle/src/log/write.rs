//! Writing a log.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use kit::own::remove_file;

use crate::log::{LONGEST, Output, file, timestamp};
use crate::settings::LogSettings;

/// The log of a running container.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    settings: LogSettings,
    open: File,
    size: u64,
    /// What has come since the last newline, of each output.
    begun: [Vec<u8>; 2],
}

impl Writer {
    /// Opens the log in the directory of a container, at its end.
    pub fn open(directory: &Path, settings: LogSettings) -> Result<Self> {
        let (open, size) = append(&file(directory, 0))?;
        Ok(Writer {
            directory: directory.to_owned(),
            settings,
            open,
            size,
            begun: Default::default(),
        })
    }

    /// Writes the lines that `bytes` complete, and keeps the beginning of the
    /// next one.
    // ANCHOR: put
    pub fn put(&mut self, output: Output, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = LONGEST - self.begun(output).len();
            let head = &bytes[..bytes.len().min(room)];
            let end = head.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(head.len(), |end| end + 1);
            self.begun(output).extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if end.is_some() || self.begun(output).len() == LONGEST {
                self.write(output)?;
            }
        }
        Ok(())
    }
    // ANCHOR_END: put

    /// Writes what is left of an output that has ended without a newline.
    pub fn end(&mut self, output: Output) -> Result<()> {
        match self.begun(output).is_empty() {
            true => Ok(()),
            false => self.write(output),
        }
    }

    fn begun(&mut self, output: Output) -> &mut Vec<u8> {
        &mut self.begun[output as usize]
    }

    fn write(&mut self, output: Output) -> Result<()> {
        let bytes = std::mem::take(self.begun(output));
        let stream = match output {
            Output::Stdout => "stdout",
            Output::Stderr => "stderr",
        };
        let line = format!(
            "{{\"log\":{},\"stream\":\"{stream}\",\"time\":\"{}\"}}\n",
            quoted(&bytes),
            timestamp(SystemTime::now())
        );
        if self.settings.max_size.is_some_and(|most| self.size >= most) {
            self.rotate()?;
        }
        let path = file(&self.directory, 0);
        // One call, so that a reader sees the line as a whole or not at all.
        let written = self.open.write_all(line.as_bytes());
        if let Err(error) = written {
            // Part of a line would make the next one unreadable.
            self.open
                .set_len(self.size)
                .with_context(|| format!("truncate {path:?} after {error}"))?;
            return Err(error).with_context(|| format!("write {path:?}"));
        }
        self.size += line.len() as u64;
        Ok(())
    }

    /// Begins another file, and removes the oldest.
    // ANCHOR: rotate
    fn rotate(&mut self) -> Result<()> {
        let most = self.settings.max_file;
        if most == 1 {
            remove_file(&file(&self.directory, 0))?;
        }
        for number in (1..most).rev() {
            let (from, to) = (
                file(&self.directory, number - 1),
                file(&self.directory, number),
            );
            match fs::rename(&from, &to) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("rename({from:?}, {to:?})"));
                }
            }
        }
        (self.open, self.size) = append(&file(&self.directory, 0))?;
        Ok(())
    }
    // ANCHOR_END: rotate
}

/// Bytes as a JSON string, byte for byte as Docker writes it: what HTML or
/// JavaScript would read is escaped, and so is a byte that is not UTF-8.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' | '\\' => text.extend(['\\', letter]),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    text.push_str(&format!("\\u{:04x}", letter as u32));
                }
                _ => text.push(letter),
            }
        }
        for _ in chunk.invalid() {
            text.push_str("\\ufffd");
        }
    }
    text.push('"');
    text
}

fn append(path: &Path) -> Result<(File, u64)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("open({path:?}, O_APPEND)"))?;
    let size = file
        .metadata()
        .with_context(|| format!("fstat({path:?})"))?
        .len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Entry;

    #[test]
    fn texts_are_quoted_as_dockers() {
        let quoted = quoted(b"a\t\"\\<&>\r\n\x01 \xc3\xa4 \xe2\x80\xa8 \xff\xfe\xe2\x80");
        let expected = concat!(
            r#""a\u0009\"\\\u003c\u0026\u003e\r\n\u0001 "#,
            "ä",
            r#" \u2028 \ufffd\ufffd\ufffd\ufffd""#
        );
        assert_eq!(quoted, expected);
    }

    fn lines(directory: &Path, number: u32) -> Vec<Entry> {
        let text = fs::read_to_string(file(directory, number)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_line_comes_in_pieces_and_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Writer::open(directory.path(), LogSettings::default()).unwrap();
        log.put(Output::Stdout, b"one ").unwrap();
        log.put(Output::Stderr, b"err\n").unwrap();
        log.put(Output::Stdout, b"line\nand the \xff").unwrap();
        log.end(Output::Stdout).unwrap();
        log.end(Output::Stderr).unwrap();
        let all = lines(directory.path(), 0);
        let texts: Vec<_> = all.iter().map(|entry| entry.log.as_str()).collect();
        assert_eq!(texts, ["err\n", "one line\n", "and the \u{fffd}"]);
    }

    #[test]
    fn a_long_line_is_cut_at_16_kib() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Writer::open(directory.path(), LogSettings::default()).unwrap();
        let mut line = vec![b'x'; 2 * LONGEST + 5];
        line.push(b'\n');
        log.put(Output::Stdout, &line).unwrap();
        let lengths: Vec<_> = lines(directory.path(), 0)
            .iter()
            .map(|entry| entry.log.len())
            .collect();
        assert_eq!(lengths, [LONGEST, LONGEST, 6]);
    }

    #[test]
    fn the_oldest_file_goes() {
        let directory = tempfile::tempdir().unwrap();
        let settings = LogSettings {
            max_size: Some(1),
            max_file: 2,
            ..LogSettings::default()
        };
        let mut log = Writer::open(directory.path(), settings).unwrap();
        for line in ["a\n", "b\n", "c\n"] {
            log.put(Output::Stdout, line.as_bytes()).unwrap();
        }
        assert_eq!(lines(directory.path(), 0)[0].log, "c\n");
        assert_eq!(lines(directory.path(), 1)[0].log, "b\n");
        assert!(!file(directory.path(), 2).exists());
    }
}
