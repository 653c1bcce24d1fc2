//! JSON documents as Go reads them. All engines and tools that write images are
//! written in Go, and images contain what its encoding/json accepts:
//!
//! - `null` empties a list, a map or an optional value, and leaves a text, a
//!   number or an object as it was
//! - a key means the field of its name in upper or lower case
//! - if a key occurs twice, the last value counts; two objects are merged
//! - unknown keys are ignored
//! - invalid UTF-8, and halves of surrogate pairs, become U+FFFD
//!
//! What Go refuses is refused: a byte order mark, a value of another type, and
//! data after the document unless [`Tail::Ignored`].

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value. An object keeps the order of its keys.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object. A key may occur several times.
    Object(Vec<(String, Json)>),
}

/// The data that may follow a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Blanks only, as with json.Unmarshal.
    Refused,
    /// Anything, as with json.Decoder.
    Ignored,
}

/// A value that is read from a document, piece by piece: what the document does
/// not mention stays as it was.
pub trait FromJson: Default {
    /// Sets the value, or parts of it, from `json`.
    ///
    /// # Errors
    /// If `json` is of another type.
    fn fill(&mut self, json: Json) -> Result<()>;
}

/// Parses a document.
///
/// # Errors
/// As [`json`], and if it has a value of another type than is expected.
pub fn parse<T: FromJson>(bytes: &[u8], tail: Tail) -> Result<T> {
    let mut read = T::default();
    read.fill(json(bytes, tail)?)?;
    Ok(read)
}

/// Parses a document whose fields are not known.
///
/// # Errors
/// If it is not JSON, or is nested more than 128 deep.
pub fn json(bytes: &[u8], tail: Tail) -> Result<Json> {
    let text = whole_surrogates(&String::from_utf8_lossy(bytes));
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let json = Json::deserialize(&mut deserializer).context("it is no JSON")?;
    if tail == Tail::Refused {
        deserializer.end().context("something follows the JSON")?;
    }
    Ok(json)
}

/// Replaces each of `\uD800` to `\uDFFF` that is not in a pair by the escape of
/// U+FFFD.
fn whole_surrogates(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        whole.push_str(before);
        let (mut replaced, mut length) = (None, escape.chars().take(2).map(char::len_utf8).sum());
        if let Some(unit) = unit(escape) {
            length = 6;
            match unit {
                0xd800..0xdc00 if matches!(unit_at(escape, 6), Some(0xdc00..0xe000)) => length = 12,
                0xd800..0xe000 => replaced = Some("\\ufffd"),
                _ => {}
            }
        }
        let (escape, after) = escape.split_at(length);
        whole.push_str(replaced.unwrap_or(escape));
        rest = after;
    }
    whole.push_str(rest);
    whole
}

/// The UTF-16 code unit of the `\uXXXX` at the beginning.
fn unit(escape: &str) -> Option<u32> {
    let digits = escape.strip_prefix("\\u")?.get(..4)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(digits, 16).ok())?
}

fn unit_at(text: &str, at: usize) -> Option<u32> {
    unit(text.get(at..)?)
}

/// Whether `key` means `field`: Go ignores case, which includes the long s and
/// the Kelvin sign.
pub fn is_called(key: &str, field: &str) -> bool {
    let folded = |c: char| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(folded).eq(field.chars().map(folded))
}

/// The fields of an object; none for `null`.
///
/// # Errors
/// If it is not an object.
pub fn fields(json: Json) -> Result<Vec<(String, Json)>> {
    match json {
        Json::Null => Ok(Vec::new()),
        Json::Object(fields) => Ok(fields),
        other => bail!("{other} where an object is expected"),
    }
}

/// Implements [`FromJson`] for a struct, from the key of each field.
macro_rules! from_json {
    ($name:ident { $($field:ident: $key:literal,)* }) => {
        impl $crate::image::document::FromJson for $name {
            fn fill(&mut self, json: $crate::image::document::Json) -> anyhow::Result<()> {
                use anyhow::Context as _;
                for (key, value) in $crate::image::document::fields(json)? {
                    $(if $crate::image::document::is_called(&key, $key) {
                        self.$field.fill(value).context($key)?;
                        continue;
                    })*
                }
                Ok(())
            }
        }
    };
}
pub(crate) use from_json;

impl FromJson for String {
    fn fill(&mut self, json: Json) -> Result<()> {
        match json {
            Json::Null => {}
            Json::Text(text) => *self = text,
            other => bail!("{other} where a text is expected"),
        }
        Ok(())
    }
}

/// The integer that a number is, also as `5.0` or `5e0`.
fn whole(number: &serde_json::Number) -> Option<i64> {
    // Beyond this an f64 does not hold every integer.
    let is_whole = |n: &f64| n.abs() < 9e15 && n.fract() == 0.0;
    number.as_f64().filter(is_whole).map(|n| n as i64)
}

impl FromJson for u64 {
    fn fill(&mut self, json: Json) -> Result<()> {
        match json {
            Json::Null => {}
            Json::Number(ref number) => match whole(number).map(u64::try_from) {
                Some(Ok(n)) => *self = n,
                _ => bail!("{json} where a count is expected"),
            },
            other => bail!("{other} where a count is expected"),
        }
        Ok(())
    }
}

impl FromJson for i64 {
    fn fill(&mut self, json: Json) -> Result<()> {
        match json {
            Json::Null => {}
            Json::Number(ref number) => match whole(number) {
                Some(n) => *self = n,
                None => bail!("{json} where an integer is expected"),
            },
            other => bail!("{other} where an integer is expected"),
        }
        Ok(())
    }
}

/// Accepts anything.
impl FromJson for () {
    fn fill(&mut self, _: Json) -> Result<()> {
        Ok(())
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn fill(&mut self, json: Json) -> Result<()> {
        match json {
            Json::Null => *self = None,
            some => self.get_or_insert_default().fill(some)?,
        }
        Ok(())
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn fill(&mut self, json: Json) -> Result<()> {
        self.clear();
        let list = match json {
            Json::Null => return Ok(()),
            Json::List(list) => list,
            other => bail!("{other} where a list is expected"),
        };
        for json in list {
            let mut one = T::default();
            one.fill(json)?;
            self.push(one);
        }
        Ok(())
    }
}

impl<T: FromJson> FromJson for BTreeMap<String, T> {
    fn fill(&mut self, json: Json) -> Result<()> {
        if json == Json::Null {
            self.clear();
        }
        for (key, json) in fields(json)? {
            let mut one = T::default();
            one.fill(json).with_context(|| format!("{key:?}"))?;
            self.insert(key, one);
        }
        Ok(())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(is) => write!(f, "{is}"),
            Json::Number(n) => write!(f, "the number {n}"),
            Json::Text(text) => write!(f, "the text {text:.40?}"),
            Json::List(_) => f.write_str("a list"),
            Json::Object(_) => f.write_str("an object"),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, is: bool) -> Result<Json, E> {
        Ok(Json::Bool(is))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Json, E> {
        Ok(Json::Number(n.into()))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Json, E> {
        Ok(Json::Number(n.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Json, E> {
        let number = serde_json::Number::from_f64(n);
        number
            .map(Json::Number)
            .ok_or_else(|| E::custom("it is no number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = list.next_element()? {
            all.push(one);
        }
        Ok(Json::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = object.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Inner {
        list: Vec<String>,
        map: BTreeMap<String, String>,
    }

    from_json!(Inner {
        list: "list",
        map: "Map",
    });

    #[derive(Debug, Default, PartialEq)]
    struct Outer {
        text: String,
        inner: Option<Inner>,
        size: Option<u64>,
    }

    from_json!(Outer {
        text: "text",
        inner: "inner",
        size: "size",
    });

    fn read(text: &str) -> Result<Outer> {
        parse(text.as_bytes(), Tail::Refused)
    }

    #[test]
    fn null_is_nothing() {
        for text in [
            "null",
            "{}",
            r#"{"text":null,"inner":null,"size":null,"more":null}"#,
            r#"{"inner":{},"inner":null}"#,
        ] {
            assert_eq!(read(text).unwrap(), Outer::default(), "{text}");
        }
        let inner = read(r#"{"inner":{"list":[null],"MAP":{"a":null}}}"#)
            .unwrap()
            .inner
            .unwrap();
        assert_eq!(inner.list, [""]);
        assert_eq!(inner.map, [("a".to_owned(), String::new())].into());
    }

    #[test]
    fn the_last_key_counts_in_whatever_case() {
        let outer = read(r#"{"text":"a","TEXT":"b","tExt":null,"ſize":1}"#).unwrap();
        assert_eq!((outer.text.as_str(), outer.size), ("b", Some(1)));
        let twice = r#"{"inner":{"list":["a"],"map":{"x":"1"}},"Inner":{"map":{"y":"2"}}}"#;
        let inner = read(twice).unwrap().inner.unwrap();
        assert_eq!((inner.list.len(), inner.map.len()), (1, 2));
    }

    #[test]
    fn what_is_no_text_becomes_one() {
        let bytes = b"{\"text\":\"a\xffb\"}";
        assert_eq!(
            parse::<Outer>(bytes, Tail::Refused).unwrap().text,
            "a\u{fffd}b"
        );
        for (text, expected) in [
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\ude00\ud83d!""#, "\u{fffd}\u{fffd}!"),
            (r#""\\ud83d""#, "\\ud83d"),
        ] {
            let text = format!(r#"{{"text":{text}}}"#);
            assert_eq!(read(&text).unwrap().text, expected, "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        let deep = "[".repeat(100_000);
        for text in [
            "\u{feff}{}",
            "{} x",
            "",
            "[]",
            "{",
            r#"{"text":1}"#,
            r#"{"size":"1"}"#,
            r#"{"size":-1}"#,
            r#"{"size":1.5}"#,
            r#"{"size":1e300}"#,
            r#"{"inner":[]}"#,
            &deep,
        ] {
            assert!(read(text).is_err(), "{text:.40}");
        }
        assert!(parse::<Outer>(b"{} x", Tail::Ignored).is_ok());
    }

    proptest! {
        #[test]
        fn no_document_is_too_odd(text in r#"[\[\]{}":,a-cnul\\ud89ef0-2 .-]{0,60}"#, at in 0..20_usize) {
            let whole = r#"{"text":"\ud83d\ude00","inner":{"list":["a"],"map":{"k":null}}}"#;
            let mut mixed = whole.to_owned();
            mixed.insert_str(at, &text);
            for text in [&text, &mixed] {
                drop(read(text));
                drop(parse::<Outer>(text.as_bytes(), Tail::Ignored));
            }
        }
    }
}
