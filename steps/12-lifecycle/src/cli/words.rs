//! Ages and tables as Docker prints them.

use std::time::{Duration, SystemTime};

/// A duration in words: Docker's `units.HumanDuration`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Rounded to the nearest, as Docker does.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// The time since a point in time of a record, in words.
pub fn since(then: &str) -> String {
    let then = humantime::parse_rfc3339(then).ok();
    let age = then.and_then(|then| SystemTime::now().duration_since(then).ok());
    duration(age.unwrap_or_default())
}

/// A number of bytes in Docker's units, which are powers of 1000: `1.99MB`.
pub fn bytes(bytes: u64) -> String {
    decimal(bytes as f64, 3)
}

/// A size in units that are `base` apart: Docker's `units.CustomSize`.
fn size(mut value: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// A size in powers of 1000, as `1.05kB`: Docker's `units.HumanSizeWithPrecision`.
pub fn decimal(bytes: f64, digits: usize) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    size(bytes, 1000.0, &units, digits)
}

/// A size in powers of 1024, as `1.944GiB`: Docker's `units.BytesSize`.
pub fn binary(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    size(bytes, 1024.0, &units, 4)
}

/// A number with so many digits, without zeros at its end: Go's `%.3g`.
pub fn significant(number: f64, digits: usize) -> String {
    let whole = (number.abs().max(1.0).log10().floor() as usize) + 1;
    let text = format!("{number:.*}", digits.saturating_sub(whole));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A point in time of a record as Go prints one: `2026-11-30 12:00:00 +0000 UTC`.
/// Docker's client converts it to the zone that TZ names; this one does not.
pub fn local_time(time: &str) -> String {
    let seconds = time.get(..19).unwrap_or(time);
    format!("{} +0000 UTC", seconds.replace('T', " "))
}

/// A text of at most this many characters, the last of which says that there
/// were more.
pub fn shortened(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        false => text.to_owned(),
        true => {
            let head: String = text.chars().take(most - 1).collect();
            format!("{head}…")
        }
    }
}

/// A table whose columns are as wide as they need to be, three blanks apart, and
/// ten characters at least, as Docker's. The first row is its head.
pub fn table(rows: &[Vec<String>]) -> String {
    table_of(rows, 10)
}

/// The same with another least width.
pub fn table_of(rows: &[Vec<String>], least: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            (cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + 3).max(least)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
        }
        // Docker's last column has its blanks, too; they are no use to anybody.
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_dockers() {
        let hour = 3600;
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (hour, "About an hour"),
            (2 * hour, "2 hours"),
            (47 * hour, "47 hours"),
            (48 * hour, "2 days"),
            (14 * 24 * hour, "2 weeks"),
            (61 * 24 * hour, "2 months"),
            (800 * 24 * hour, "2 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn sizes_are_dockers() {
        for (size, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_985_753, "1.99MB"),
            (123_456_789, "123MB"),
            (5_000_000_000, "5GB"),
        ] {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(decimal(0.0, 3), "0B");
        assert_eq!(decimal(1054.0, 3), "1.05kB");
        assert_eq!(decimal(1_981_000.0, 4), "1.981MB");
        assert_eq!(binary(626_688.0), "612KiB");
        assert_eq!(binary(25_280_000_000.0), "23.54GiB");
        assert_eq!(binary(1023.0), "1023B");
        assert_eq!(binary(64.0 * 1024.0 * 1024.0), "64MiB");
    }

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let rows = [["A", "B"], ["longer", "x"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table_of(&rows, 0), "A        B\nlonger   x\n");
        assert_eq!(table(&rows), "A         B\nlonger    x\n");
    }
}
