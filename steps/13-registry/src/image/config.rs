//! An image's configuration as it came, changed in places.
//!
//! Step 09 reads the fields that a start needs. Whoever makes an image of another
//! one passes on what it does not know: `Healthcheck`, `Shell`, what somebody
//! else has added. So the JSON itself is edited.

use anyhow::{Context, Result, bail, ensure};
use engine::image::config::{Config, ImageConfig};
use engine::image::digest::Digest;
use serde_json::{Map, Value, json};

/// A configuration, as JSON.
#[derive(Clone, Debug)]
pub struct RawConfig(Map<String, Value>);

/// How a layer was made: an entry of `history`.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// The command.
    pub by: String,
    /// Who did it.
    pub author: String,
    /// What they say about it.
    pub comment: String,
}

impl RawConfig {
    /// Reads a configuration.
    pub fn parse(json: &[u8]) -> Result<Self> {
        match serde_json::from_slice(json).context("the image's configuration")? {
            Value::Object(object) => Ok(RawConfig(object)),
            _ => bail!("the image's configuration is not an object"),
        }
    }

    /// The configuration of an image without layers.
    pub fn empty() -> Result<Self> {
        let mut config = ImageConfig::plain(Digest::of(b""), Config::default());
        if let Some(rootfs) = &mut config.rootfs {
            rootfs.diff_ids.clear();
        }
        Self::parse(&serde_json::to_vec(&config).context("write a configuration")?)
    }

    /// The configuration as JSON.
    pub fn to_vec(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.0).context("write a configuration")
    }

    /// The whole configuration, to be changed.
    pub fn whole(&mut self) -> &mut Map<String, Value> {
        &mut self.0
    }

    /// The defaults of the containers, to be changed.
    pub fn container(&mut self) -> Result<&mut Map<String, Value>> {
        object(&mut self.0, "config")
    }

    /// Adds a layer on top, with how it was made.
    pub fn add_layer(&mut self, diff_id: &Digest, made: &Made, now: &str) -> Result<()> {
        let rootfs = object(&mut self.0, "rootfs")?;
        rootfs.insert("type".into(), json!("layers"));
        list(rootfs, "diff_ids")?.push(json!(diff_id.to_string()));
        self.note(made, now)
    }

    /// Notes how the topmost layer was made.
    pub fn note(&mut self, made: &Made, now: &str) -> Result<()> {
        let mut entry = Map::new();
        let texts = [
            ("created", now),
            ("created_by", &made.by),
            ("author", &made.author),
            ("comment", &made.comment),
        ];
        for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            entry.insert(name.into(), json!(text));
        }
        list(&mut self.0, "history")?.push(Value::Object(entry));
        self.0.insert("created".into(), json!(now));
        if !made.author.is_empty() {
            self.0.insert("author".into(), json!(made.author));
        }
        Ok(())
    }

    /// Changes a default, by an instruction of a Dockerfile: `CMD ["sh"]`,
    /// `ENV A=b`.
    pub fn change(&mut self, instruction: &str) -> Result<()> {
        let instruction = instruction.trim();
        let (word, rest) = instruction
            .split_once(char::is_whitespace)
            .unwrap_or((instruction, ""));
        let rest = rest.trim();
        let word = word.to_ascii_uppercase();
        ensure!(!rest.is_empty(), "{word} requires at least one argument");
        let config = self.container()?;
        match &*word {
            "CMD" => drop(config.insert("Cmd".into(), command(rest))),
            "ENTRYPOINT" => {
                config.insert("Entrypoint".into(), command(rest));
                // Docker drops the image's command with its entrypoint.
                config.remove("Cmd");
            }
            "ENV" => {
                for (name, value) in pairs(rest)? {
                    let env = list(config, "Env")?;
                    let begins = format!("{name}=");
                    env.retain(|one| !one.as_str().is_some_and(|one| one.starts_with(&begins)));
                    env.push(json!(format!("{name}={value}")));
                }
            }
            "LABEL" => {
                for (name, value) in pairs(rest)? {
                    object(config, "Labels")?.insert(name, json!(value));
                }
            }
            "EXPOSE" => {
                for port in rest.split_whitespace() {
                    let port = match port.contains('/') {
                        true => port.to_owned(),
                        false => format!("{port}/tcp"),
                    };
                    let number = port.split('/').next().unwrap_or_default();
                    ensure!(
                        number.parse::<u16>().is_ok(),
                        "EXPOSE: {number:?} is not a port"
                    );
                    object(config, "ExposedPorts")?.insert(port, json!({}));
                }
            }
            "VOLUME" => {
                let paths = match command_list(rest) {
                    Some(paths) => paths,
                    None => words(rest)?,
                };
                for path in paths {
                    object(config, "Volumes")?.insert(path, json!({}));
                }
            }
            "USER" => drop(config.insert("User".into(), json!(rest))),
            "WORKDIR" => {
                let before = config
                    .get("WorkingDir")
                    .and_then(Value::as_str)
                    .unwrap_or("/");
                let path = std::path::Path::new("/").join(before).join(rest);
                config.insert("WorkingDir".into(), json!(path));
            }
            "STOPSIGNAL" => drop(config.insert("StopSignal".into(), json!(rest))),
            "ONBUILD" => list(config, "OnBuild")?.push(json!(rest)),
            other => bail!("{other} is not a valid change command"),
        }
        Ok(())
    }
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

/// `NAME=VALUE…`, or a single `NAME VALUE`.
fn pairs(rest: &str) -> Result<Vec<(String, String)>> {
    let words = words(rest)?;
    if !words[0].contains('=') {
        let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        ensure!(!value.is_empty(), "{name:?} has no value");
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let mut pairs = Vec::new();
    for word in words {
        let (name, value) = word
            .split_once('=')
            .with_context(|| format!("{word:?} is not NAME=VALUE"))?;
        ensure!(!name.is_empty(), "{word:?} has no name");
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

/// Words with quotes and backslashes, as in a Dockerfile. At least one.
fn words(text: &str) -> Result<Vec<String>> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let last = words.len() - 1;
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            ('\\', None | Some('"')) => words[last].extend(characters.next()),
            (c, None) if c.is_whitespace() => {
                if !words[last].is_empty() {
                    words.push(String::new());
                }
            }
            (c, _) => words[last].push(c),
        }
    }
    ensure!(quote.is_none(), "{text:?}: a quote is not closed");
    if words.len() > 1 && words.last().is_some_and(String::is_empty) {
        words.pop();
    }
    Ok(words)
}

/// The object of that name. `null` is none.
pub fn object<'a>(
    parent: &'a mut Map<String, Value>,
    name: &str,
) -> Result<&'a mut Map<String, Value>> {
    let value = parent.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value
        .as_object_mut()
        .with_context(|| format!("{name} of the configuration is not an object"))
}

/// The list of that name. `null` is none.
pub fn list<'a>(parent: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Vec<Value>> {
    let value = parent.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value
        .as_array_mut()
        .with_context(|| format!("{name} of the configuration is not a list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(instructions: &[&str]) -> Value {
        let json = br#"{"config":{"Env":["A=1"],"Cmd":["sh"],"Healthcheck":{"Test":["X"]},
            "Labels":null},"rootfs":{"type":"layers","diff_ids":[]},"x":{"y":1}}"#;
        let mut config = RawConfig::parse(json).unwrap();
        for instruction in instructions {
            config.change(instruction).unwrap();
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
    fn what_is_no_change_is_refused() {
        let mut config = RawConfig::empty().unwrap();
        for bad in [
            "", "RUN x", "ENV", "ENV A", "LABEL =1", "EXPOSE x", "ENV A='x",
        ] {
            assert!(config.change(bad).is_err(), "{bad:?}");
        }
    }
}
