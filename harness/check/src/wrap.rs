//! Wraps words at a width.

/// Wraps a text into lines of at most `width` columns, with single spaces
/// between its words. A longer word has a line of its own. A text without words
/// is one empty line.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut length) = (String::new(), 0);
    for word in text.split_whitespace() {
        let wide = word.chars().count();
        if length > 0 && length + 1 + wide > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        line += word;
        length += wide;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_no_longer_than_the_width() {
        assert_eq!(wrap(" a  bc d ", 4), ["a bc", "d"]);
        assert_eq!(wrap("“ä” b abcdef c", 5), ["“ä” b", "abcdef", "c"]);
        assert_eq!(wrap("abcdef", 0), ["abcdef"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
