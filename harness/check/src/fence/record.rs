//! Records of checks on their way to the host.

use std::io::Write;

use anyhow::{Context, Result};

/// Writes a record for the host, as a line that begins with the token, so that
/// only those who know the token can write records.
pub fn write_line(mut out: impl Write, token: Option<&str>, json: &[u8]) -> Result<()> {
    let mut line = token.map(str::to_owned).unwrap_or_default().into_bytes();
    line.extend_from_slice(json);
    line.push(b'\n');
    out.write_all(&line)
        .and_then(|()| out.flush())
        .context("write a record")
}

/// The record in a line, or `None` if the line does not begin with the token.
pub fn read_line<'a>(line: &'a str, token: Option<&str>) -> Option<&'a str> {
    line.strip_prefix(token.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_the_token_is_none() {
        let mut line = Vec::new();
        write_line(&mut line, Some("secret "), b"{}").unwrap();
        let line = String::from_utf8(line).unwrap();
        assert_eq!(read_line(line.trim_end(), Some("secret ")), Some("{}"));
        assert_eq!(read_line("{}", Some("secret ")), None);
        assert_eq!(read_line("{}", None), Some("{}"));
    }
}
