//! `--format`: listings and documents through Go's templates, with the functions
//! that Docker adds to them.
//!
//! | `--format` | what a listing prints |
//! |---|---|
//! | none, or `table` | its usual columns, under a head |
//! | `table TEMPLATE` | the template for a head, and for each line |
//! | `json` | an object for each line |
//! | `TEMPLATE` | the template for each line |

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Error, Result, anyhow};
use gotmpl::{MissingKey, Template, TemplateError, Value};
use process::Failure;
use serde::Serialize;

use crate::cli::words::table;

/// What a listing can show of one thing: names as templates use them, with their
/// texts.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The texts by name.
    pub cells: BTreeMap<&'static str, String>,
    /// The labels, which `{{.Label "NAME"}}` asks for.
    pub labels: BTreeMap<String, String>,
}

/// A kind of listing.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    /// The usual columns, as a template.
    pub usual: &'static str,
    /// What stands over each column, by the name that templates use.
    pub heads: &'static [(&'static str, &'static str)],
}

/// The name under which a row's labels are kept: no template can name it.
const LABELS: &str = " labels";

impl Listing {
    /// The text of a listing.
    ///
    /// # Errors
    /// If the template cannot be read, or names what these rows do not have.
    pub fn print(&self, format: Option<&str>, rows: &[Row]) -> Result<String> {
        let format = format.unwrap_or("table").trim_end_matches('\n');
        if format == "json" {
            let mut text = String::new();
            for row in rows {
                text.push_str(&serde_json::to_string(&row.cells).context("write JSON")?);
                text.push('\n');
            }
            return Ok(text);
        }
        let (is_table, source) = match format.strip_prefix("table") {
            Some(rest) if rest.trim().is_empty() => (true, self.usual),
            Some(rest) if rest.starts_with(char::is_whitespace) => (true, rest.trim_start()),
            _ => (false, format),
        };
        // As Docker reads them; and its templates have a method here, which a
        // map cannot have.
        let source = source
            .replace("\\t", "\t")
            .replace("\\n", "\n")
            .replace(".Label ", "label $ ");
        let template = parse(&source)
            .map_err(|error| anyhow!("failed to parse template: template: {error}"))?;
        let line = |row: &Value| {
            template
                .execute_to_string(row)
                .map_err(|error| anyhow!("failed to execute template: template: {error}"))
        };
        let lines: Vec<String> = rows
            .iter()
            .map(|row| line(&value(row)))
            .collect::<Result<_>>()?;
        if !is_table {
            return Ok(lines.iter().map(|line| format!("{line}\n")).collect());
        }
        let heads = Row {
            cells: self
                .heads
                .iter()
                .map(|(name, head)| (*name, (*head).to_owned()))
                .collect(),
            labels: BTreeMap::new(),
        };
        let rows: Vec<Vec<String>> = [line(&value(&heads))?]
            .into_iter()
            .chain(lines)
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect();
        Ok(table(&rows))
    }
}

/// A row as templates see it.
fn value(row: &Row) -> Value {
    let text = |text: &str| Value::String(text.into());
    let labels = row.labels.iter().map(|(k, v)| (k.as_str().into(), text(v)));
    let cells = row
        .cells
        .iter()
        .map(|(name, cell)| ((*name).into(), text(cell)));
    let labels = Value::Map(Arc::new(labels.collect()));
    Value::Map(Arc::new(cells.chain([(LABELS.into(), labels)]).collect()))
}

/// What `inspect` prints of several things: an array, or the template for each.
///
/// # Errors
/// With exit status 64 if the template cannot be read, as Docker's.
pub fn documents<T: Serialize>(format: Option<&str>, documents: &[T]) -> Result<String> {
    let source = match format {
        None | Some("") => {
            let mut json = Vec::new();
            let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut to = serde_json::Serializer::with_formatter(&mut json, indent);
            documents.serialize(&mut to).context("write JSON")?;
            let json = String::from_utf8(json).context("write JSON")?;
            return Ok(format!("{json}\n"));
        }
        Some("json") => {
            let json = serde_json::to_string(documents).context("write JSON")?;
            return Ok(format!("{json}\n"));
        }
        Some(source) => source,
    };
    let wrong = |error: TemplateError| format!("template parsing error: template: {error}");
    let template = parse(source).map_err(|error| Failure::new(64, wrong(error)))?;
    let mut text = String::new();
    for document in documents {
        let value = gotmpl::to_value(document).map_err(Error::new)?;
        let line = template
            .execute_to_string(&value)
            .map_err(|error| Failure::new(1, wrong(error)))?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

/// A template with Docker's functions.
fn parse(source: &str) -> Result<Template, TemplateError> {
    let text = |change: fn(&str) -> String| {
        move |args: &[Value]| Ok(Value::String(change(&string(args, 0)?).into()))
    };
    Template::new("")
        .missing_key(MissingKey::Error)
        .func("json", |args| Ok(Value::String(json(one(args, 0)?).into())))
        .func("lower", text(str::to_lowercase))
        .func("upper", text(str::to_uppercase))
        .func("title", text(title))
        .func("split", |args| {
            let (text, between) = (string(args, 0)?, string(args, 1)?);
            let parts = text.split(&between).map(|part| Value::String(part.into()));
            Ok(Value::List(parts.collect()))
        })
        .func("join", |args| {
            let Value::List(parts) = one(args, 0)? else {
                return Err(TemplateError::Exec("join: give a list".into()));
            };
            let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
            Ok(Value::String(parts.join(&string(args, 1)?).into()))
        })
        .func("pad", |args| {
            let count = |index| {
                let count = one(args, index)?.as_int().unwrap_or(0).clamp(0, 4096);
                Ok::<_, TemplateError>(" ".repeat(count as usize))
            };
            let text = string(args, 0)?;
            let padded = match text.is_empty() {
                true => text,
                false => format!("{}{text}{}", count(1)?, count(2)?),
            };
            Ok(Value::String(padded.into()))
        })
        .func("truncate", |args| {
            let most = one(args, 1)?.as_int().unwrap_or(0).max(0);
            let text: String = string(args, 0)?.chars().take(most as usize).collect();
            Ok(Value::String(text.into()))
        })
        .func("label", |args| {
            let labels = one(args, 0)?.field(LABELS).cloned().unwrap_or(Value::Nil);
            let name = string(args, 1)?;
            let found = labels.field(&name).cloned();
            Ok(found.unwrap_or_else(|| Value::String("".into())))
        })
        .parse(source)
}

fn one(args: &[Value], index: usize) -> Result<&Value, TemplateError> {
    args.get(index)
        .ok_or_else(|| TemplateError::Exec("wrong number of arguments for a function".into()))
}

fn string(args: &[Value], index: usize) -> Result<String, TemplateError> {
    match one(args, index)? {
        Value::String(text) => Ok(text.to_string()),
        other => Err(TemplateError::Exec(format!(
            "wrong type for value; expected string; got {}",
            other.type_name()
        ))),
    }
}

/// Each word with a capital.
fn title(text: &str) -> String {
    let mut before = ' ';
    let mut titled = String::new();
    for letter in text.chars() {
        match before.is_alphanumeric() {
            true => titled.push(letter),
            false => titled.extend(letter.to_uppercase()),
        }
        before = letter;
    }
    titled
}

/// A value as JSON, without the labels that only functions see.
fn json(value: &Value) -> String {
    fn convert(value: &Value) -> serde_json::Value {
        match value {
            Value::Nil | Value::Function(_) => serde_json::Value::Null,
            Value::Bool(flag) => (*flag).into(),
            Value::Int(number) => (*number).into(),
            Value::Uint(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::String(text) => text.to_string().into(),
            Value::List(items) => items.iter().map(convert).collect(),
            Value::Map(fields) => fields
                .iter()
                .filter(|(name, _)| &***name != LABELS)
                .map(|(name, value)| (name.to_string(), convert(value)))
                .collect(),
        }
    }
    convert(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing = Listing {
        usual: "{{.ID}}\t{{.Names}}",
        heads: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
    };

    fn rows() -> Vec<Row> {
        let row = |id: &str, name: &str| Row {
            cells: [("ID", id.to_owned()), ("Names", name.to_owned())].into(),
            labels: [("a.b".to_owned(), id.to_owned())].into(),
        };
        vec![row("1", "web"), row("22", "box")]
    }

    #[test]
    fn listings_are_dockers() {
        for (format, text) in [
            (
                None,
                "CONTAINER ID   NAMES\n1              web\n22             box\n",
            ),
            (Some("table {{.Names}}"), "NAMES\nweb\nbox\n"),
            (Some("{{.Names}}\\t{{.ID}}"), "web\t1\nbox\t22\n"),
            (
                Some("json"),
                "{\"ID\":\"1\",\"Names\":\"web\"}\n{\"ID\":\"22\",\"Names\":\"box\"}\n",
            ),
            (
                Some("{{json .}}"),
                "{\"ID\":\"1\",\"Names\":\"web\"}\n{\"ID\":\"22\",\"Names\":\"box\"}\n",
            ),
            (Some("{{.Label \"a.b\"}}{{.Label \"x\"}}"), "1\n22\n"),
            (Some("{{upper .Names}}{{truncate .ID 1}}"), "WEB1\nBOX2\n"),
            (
                Some("{{pad .ID 1 2}}|{{title .Names}}"),
                " 1  |Web\n 22  |Box\n",
            ),
            (Some("{{if eq .Names \"web\"}}yes{{end}}"), "yes\n\n"),
        ] {
            assert_eq!(LISTING.print(format, &rows()).unwrap(), text, "{format:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        for (format, word) in [
            ("{{.Foo}}", "Foo"),
            ("{{", "unclosed"),
            ("{{nofunc .ID}}", "nofunc"),
        ] {
            let error = LISTING.print(Some(format), &rows()).unwrap_err();
            assert!(format!("{error:#}").contains(word), "{format}: {error:#}");
        }
        // Also if there is no row: a template is read before.
        assert!(LISTING.print(Some("{{"), &[]).is_err());
    }

    #[test]
    fn documents_are_arrays_or_templates() {
        #[derive(Serialize)]
        struct One {
            a: Vec<u64>,
            b: Option<String>,
        }
        let one = || One {
            a: vec![1, 2],
            b: None,
        };
        let print = |format| documents(Some(format), &[one()]).unwrap();
        assert_eq!(print("json"), "[{\"a\":[1,2],\"b\":null}]\n");
        assert_eq!(print("{{index .a 1}} {{json .b}} {{.a}}"), "2 null [1 2]\n");
        assert_eq!(print("{{range .a}}{{.}},{{end}}"), "1,2,\n");
        assert!(
            documents(None, &[one()])
                .unwrap()
                .starts_with("[\n    {\n        \"a\": [\n")
        );
        let error = documents(Some("{{"), &[one()]).unwrap_err();
        assert_eq!(Failure::status_of(&error), 64);
        let error = documents(Some("{{.c}}"), &[one()]).unwrap_err();
        assert_eq!(Failure::status_of(&error), 1);
    }
}
