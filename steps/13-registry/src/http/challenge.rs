//! What a server asks for: `WWW-Authenticate` (RFC 9110, section 11.6.1).

use std::collections::BTreeMap;

/// One demand of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// `bearer`, `basic`, in lower case.
    pub scheme: String,
    /// The parameters, their names in lower case.
    pub parameters: BTreeMap<String, String>,
}

/// The challenges in the value of a header. What cannot be read is left out.
pub fn challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let word_end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_end);
        let is_parameter = after.trim_start().starts_with('=');
        if !is_parameter {
            if !word.is_empty() {
                found.push(Challenge {
                    scheme: word.to_ascii_lowercase(),
                    parameters: BTreeMap::new(),
                });
            }
            rest = after.trim_start_matches([' ', ',']);
            if word.is_empty() && rest.len() == after.len() {
                break;
            }
            continue;
        }
        let value = after.trim_start()[1..].trim_start();
        let (value, after) = value_of(value);
        if let Some(challenge) = found.last_mut() {
            challenge
                .parameters
                .entry(word.to_ascii_lowercase())
                .or_insert(value);
        }
        rest = after.trim_start_matches([' ', ',']);
    }
    found
}

/// A token or a quoted string, and what follows.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_may_hold_several() {
        let header = r#"Bearer realm="https://h/token?a=b,c",service="r \"x\"",scope="repository:a/b:pull,push", Basic realm=x"#;
        let found = challenges(header);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].scheme, "bearer");
        assert_eq!(found[0].parameters["realm"], "https://h/token?a=b,c");
        assert_eq!(found[0].parameters["service"], "r \"x\"");
        assert_eq!(found[0].parameters["scope"], "repository:a/b:pull,push");
        assert_eq!(found[1].scheme, "basic");
        assert_eq!(found[1].parameters["realm"], "x");
    }

    proptest! {
        #[test]
        fn any_header_comes_to_an_end(header in ".{0,100}") {
            challenges(&header);
        }

        #[test]
        fn any_punctuation_comes_to_an_end(header in "[ ,=\"\\\\ab]{0,30}") {
            challenges(&header);
        }
    }
}
