//! The instructions of a Dockerfile that change an image's defaults, without a
//! build: `commit --change`, `import --change`.
//!
//! A line or two each. Step 14, above this one, has a reader of whole Dockerfiles.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use anyhow::{Context, Result, bail, ensure};
use lifecycle::health::duration;
use serde_json::{Map, Value, json};

use crate::image::config::{RawConfig, list, object};

/// Changes defaults: `CMD ["sh"]`, `ENV A=b`, an instruction a line.
///
/// # Errors
/// If there is none, or one is wrong.
pub fn apply(config: &mut RawConfig, text: &str) -> Result<()> {
    // A backslash at the end continues a line.
    let text = text.replace("\\\n", "");
    let lines = text.lines().map(str::trim);
    let mut lines = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .peekable();
    ensure!(lines.peek().is_some(), "there is no instruction");
    lines.try_for_each(|line| instruction(config, line))
}

fn instruction(config: &mut RawConfig, line: &str) -> Result<()> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let word = word.to_ascii_uppercase();
    ensure!(!rest.is_empty(), "{word} requires at least one argument");
    let config = config.container()?;
    let variables = Variables::of(config);
    let whole = || variables.words(rest, false).map(|words| words.concat());
    match &*word {
        "CMD" => drop(config.insert("Cmd".into(), command(rest))),
        "ENTRYPOINT" => {
            config.insert("Entrypoint".into(), command(rest));
            // Docker drops the image's command with its entrypoint.
            config.remove("Cmd");
        }
        "ENV" => {
            for (name, value) in variables.pairs(rest)? {
                let env = list(config, "Env")?;
                let begins = format!("{name}=");
                env.retain(|one| !one.as_str().is_some_and(|one| one.starts_with(&begins)));
                env.push(json!(format!("{name}={value}")));
            }
        }
        "LABEL" => {
            for (name, value) in variables.pairs(rest)? {
                object(config, "Labels")?.insert(name, json!(value));
            }
        }
        "EXPOSE" => {
            for word in variables.words(rest, true)? {
                for port in ports(&word).with_context(|| format!("EXPOSE {word:?}"))? {
                    object(config, "ExposedPorts")?.insert(port, json!({}));
                }
            }
        }
        "VOLUME" => {
            let paths = match command_list(rest) {
                Some(paths) => paths,
                None => variables.words(rest, true)?,
            };
            for path in paths {
                object(config, "Volumes")?.insert(path, json!({}));
            }
        }
        "USER" => drop(config.insert("User".into(), json!(whole()?))),
        "WORKDIR" => {
            let before = config.get("WorkingDir").and_then(Value::as_str);
            let before = std::path::Path::new("/").join(before.unwrap_or_default());
            config.insert("WorkingDir".into(), json!(before.join(whole()?)));
        }
        "STOPSIGNAL" => drop(config.insert("StopSignal".into(), json!(whole()?))),
        "HEALTHCHECK" => drop(config.insert("Healthcheck".into(), healthcheck(rest)?)),
        "ONBUILD" => list(config, "OnBuild")?.push(json!(rest)),
        other => bail!("{other} is not a valid change command"),
    }
    Ok(())
}

/// A command: a list in JSON, else a line for the shell.
fn command(rest: &str) -> Value {
    match command_list(rest) {
        Some(words) => json!(words),
        None => json!(["/bin/sh", "-c", rest]),
    }
}

fn command_list(rest: &str) -> Option<Vec<String>> {
    rest.starts_with('[')
        .then(|| serde_json::from_str(rest).ok())?
}

/// `PORT[-PORT][/PROTOCOL]`, each port by itself: `80/tcp`.
fn ports(word: &str) -> Result<Vec<String>> {
    let (numbers, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| {
        text.parse::<u16>()
            .with_context(|| format!("{text:?} is not a port"))
    };
    let (first, last) = (number(first)?, number(last)?);
    ensure!(first <= last, "the last port is below the first");
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

/// `NONE`, or `[OPTION…] CMD COMMAND`.
fn healthcheck(mut rest: &str) -> Result<Value> {
    let mut check = Map::new();
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .context("HEALTHCHECK: CMD or NONE is missing")?;
        let (name, value) = option
            .split_once('=')
            .with_context(|| format!("HEALTHCHECK: --{option} has no value"))?;
        let field = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            _ => bail!("HEALTHCHECK: unknown option --{name}"),
        };
        let wrong = || format!("HEALTHCHECK: --{name}");
        let number = match field {
            "Retries" => value.parse::<u32>().with_context(wrong)?.into(),
            _ => duration(value).with_context(wrong)?.as_nanos() as u64,
        };
        check.insert(field.into(), json!(number));
        rest = after.trim_start();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    let test = match (&*kind.to_ascii_uppercase(), command) {
        ("NONE", "") => json!(["NONE"]),
        ("CMD", "") => bail!("HEALTHCHECK CMD: the command is missing"),
        ("CMD", command) => match command_list(command) {
            Some(mut words) => {
                words.insert(0, "CMD".into());
                json!(words)
            }
            None => json!(["CMD-SHELL", command]),
        },
        _ => bail!("HEALTHCHECK: use NONE, or CMD and a command"),
    };
    check.insert("Test".into(), test);
    Ok(Value::Object(check))
}

/// The image's variables, before an instruction.
struct Variables(BTreeMap<String, String>);

impl Variables {
    fn of(config: &Map<String, Value>) -> Self {
        let env = config.get("Env").and_then(Value::as_array);
        let pairs = env.into_iter().flatten().filter_map(|one| {
            let (name, value) = one.as_str()?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        Variables(pairs.collect())
    }

    /// `NAME=VALUE…`, or a single `NAME VALUE`.
    fn pairs(&self, rest: &str) -> Result<Vec<(String, String)>> {
        let first = rest.split(char::is_whitespace).next().unwrap_or_default();
        if !first.contains('=') {
            let value = rest[first.len()..].trim();
            ensure!(!value.is_empty(), "{first:?} has no value");
            let name = self.words(first, false)?.concat();
            return Ok(vec![(name, self.words(value, false)?.concat())]);
        }
        let mut pairs = Vec::new();
        for word in self.words(rest, true)? {
            let (name, value) = word
                .split_once('=')
                .with_context(|| format!("{word:?} is not NAME=VALUE"))?;
            ensure!(!name.is_empty(), "{word:?} has no name");
            pairs.push((name.to_owned(), value.to_owned()));
        }
        Ok(pairs)
    }

    /// The words of a text, without quotes and backslashes and with the values
    /// of variables. If it is not to be split, it is one.
    fn words(&self, text: &str, split: bool) -> Result<Vec<String>> {
        let mut words = Vec::new();
        // A word of quotes alone is empty, and a word.
        let mut word = None;
        let mut quote = None;
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            let current = match (c, quote) {
                (c, None) if split && c.is_whitespace() => {
                    words.extend(word.take());
                    continue;
                }
                _ => word.get_or_insert_with(String::new),
            };
            match (c, quote) {
                (c, Some(open)) if c == open => quote = None,
                ('"' | '\'', None) => quote = Some(c),
                // Between double quotes it is for these only.
                ('\\', Some('"')) if !matches!(rest.peek(), Some('"' | '$' | '\\')) => {
                    current.push(c);
                }
                ('\\', None | Some('"')) => current.extend(rest.next()),
                ('$', None | Some('"')) => current.push_str(&self.expanded(&mut rest)?),
                (c, _) => current.push(c),
            }
        }
        ensure!(quote.is_none(), "{text:?}: a quote is not closed");
        words.extend(word);
        Ok(words)
    }

    /// What follows a `$`: `NAME`, `{NAME}`, `{NAME:-WORD}`, `{NAME:+WORD}`.
    fn expanded(&self, rest: &mut Peekable<Chars<'_>>) -> Result<String> {
        let is_of_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        let braces = rest.next_if_eq(&'{').is_some();
        let name: String = std::iter::from_fn(|| rest.next_if(is_of_name)).collect();
        let value = self.0.get(&name).cloned().unwrap_or_default();
        if !braces {
            return Ok(match name.is_empty() {
                true => "$".into(),
                false => value,
            });
        }
        let mut depth = 1;
        let modifier: String = rest
            .take_while(|c| {
                depth += i32::from(*c == '{') - i32::from(*c == '}');
                depth > 0
            })
            .collect();
        ensure!(depth == 0, "${{{name}: the brace is not closed");
        ensure!(!name.is_empty(), "${{{modifier}}} has no name");
        let modified = |word: &str| self.words(word, false).map(|words| words.concat());
        match (modifier.get(..2), modifier.get(2..)) {
            _ if modifier.is_empty() => Ok(value),
            (Some(":-"), Some(word)) if value.is_empty() => modified(word),
            (Some(":+"), Some(word)) if !value.is_empty() => modified(word),
            (Some(":-" | ":+"), _) => Ok(value),
            _ => bail!("${{{name}{modifier}}}: use :- or :+"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(instructions: &[&str]) -> Value {
        let json = br#"{"config":{"Env":["A=1"],"Cmd":["sh"],"Healthcheck":{"Test":["X"]},
            "Labels":null},"rootfs":{"type":"layers","diff_ids":[]},"x":{"y":1}}"#;
        let mut config = RawConfig::parse(json).unwrap();
        for instruction in instructions {
            apply(&mut config, instruction).unwrap();
        }
        serde_json::from_slice(&config.to_vec().unwrap()).unwrap()
    }

    #[test]
    fn what_is_not_known_is_passed_on() {
        let config = changed(&[]);
        assert_eq!(config["config"]["Healthcheck"]["Test"][0], "X");
        assert_eq!(config["x"]["y"], 1);
    }

    #[test]
    fn an_instruction_changes_one_thing() {
        let config = changed(&[
            "ENV A=2 B='c d'",
            "env C e f",
            "CMD [\"a\", \"b\"]",
            "LABEL x=1",
            "EXPOSE 80 53/udp",
            "WORKDIR /a",
            "WORKDIR b",
            "USER 7",
            "VOLUME /v",
        ]);
        let config = &config["config"];
        assert_eq!(config["Env"], json!(["A=2", "B=c d", "C=e f"]));
        assert_eq!(config["Cmd"], json!(["a", "b"]));
        assert_eq!(config["Labels"], json!({"x": "1"}));
        assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
        assert_eq!(config["WorkingDir"], "/a/b");
        assert_eq!(config["Volumes"], json!({"/v": {}}));
        assert_eq!(
            changed(&["CMD a b"])["config"]["Cmd"],
            json!(["/bin/sh", "-c", "a b"])
        );
        let entrypoint = changed(&["ENTRYPOINT [\"x\"]"]);
        assert_eq!(entrypoint["config"].get("Cmd"), None);
    }

    #[test]
    fn variables_are_those_before_the_instruction() {
        let of = |instructions: &[&str]| changed(instructions)["config"]["Env"].clone();
        assert_eq!(of(&["ENV A=2 B=$A"]), json!(["A=2", "B=1"]));
        let all = "ENV B=${A}x C=\"$A\\$ \\a\" D='$A' E=\\$A F=${Z:-$A} G=${A:+y} H=${Z:+y} I=$";
        let expected = json!([
            "A=1", "B=1x", "C=1$ \\a", "D=$A", "E=$A", "F=1", "G=y", "H=", "I=$"
        ]);
        assert_eq!(of(&[all]), expected);
        assert_eq!(of(&["ENV B a $A 'c'"]), json!(["A=1", "B=a 1 c"]));
        let config = changed(&[
            "# no\nUSER u$A\n\nWORKDIR \\\n/$A",
            "EXPOSE 8$A-82/udp",
            "CMD $A",
        ]);
        let config = &config["config"];
        assert_eq!(
            (&config["User"], &config["WorkingDir"]),
            (&json!("u1"), &json!("/1"))
        );
        assert_eq!(config["ExposedPorts"], json!({"81/udp": {}, "82/udp": {}}));
        assert_eq!(config["Cmd"][2], "$A");
    }

    #[test]
    fn a_check_of_health_is_one() {
        let of = |text: &str| changed(&[text])["config"]["Healthcheck"].clone();
        assert_eq!(of("HEALTHCHECK NONE"), json!({"Test": ["NONE"]}));
        assert_eq!(
            of("HEALTHCHECK --interval=1s --retries=2 CMD a $b"),
            json!({"Test": ["CMD-SHELL", "a $b"], "Interval": 1_000_000_000, "Retries": 2})
        );
        assert_eq!(of("HEALTHCHECK CMD [\"a\"]"), json!({"Test": ["CMD", "a"]}));
    }

    #[test]
    fn what_is_no_change_is_refused() {
        let mut config = RawConfig::empty().unwrap();
        for bad in [
            "",
            "# no",
            "RUN x",
            "ENV",
            "ENV A",
            "LABEL =1",
            "EXPOSE x",
            "EXPOSE 2-1",
            "ENV A='x",
            "ENV A=${x",
            "ENV A=${x%y}",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --retries=x NONE",
            "HEALTHCHECK x",
        ] {
            assert!(apply(&mut config, bad).is_err(), "{bad:?}");
        }
    }
}
