//! The JSON of a configuration, read as Go reads it ([`engine::image::document`])
//! and with its fields under the names that Go writes: whoever edits the JSON
//! then finds what a start would find.

use engine::image::document::{Json, is_called};
use serde_json::{Map, Value, json};

/// What the value of a field is.
enum Shape {
    /// Anything: the last value counts.
    Any,
    /// A list of texts. A single text is one, too.
    Texts,
    /// An object whose keys are data: two are merged.
    Map,
    /// An object: two are merged, and `null` changes nothing.
    Fields(&'static [Field]),
    /// An object: two are merged, and `null` is none.
    Optional(&'static [Field]),
    /// A list of objects.
    List(&'static [Field]),
}

type Field = (&'static str, Shape);

/// The fields of a configuration (config.md of the OCI, and Docker's own).
const IMAGE: &[Field] = &[
    ("architecture", Shape::Any),
    ("author", Shape::Any),
    ("config", Shape::Fields(CONTAINER)),
    ("created", Shape::Any),
    ("history", Shape::List(STEP)),
    ("os", Shape::Any),
    ("os.features", Shape::Texts),
    ("os.version", Shape::Any),
    ("rootfs", Shape::Optional(ROOT_FS)),
    ("variant", Shape::Any),
];

const CONTAINER: &[Field] = &[
    ("ArgsEscaped", Shape::Any),
    ("Cmd", Shape::Texts),
    ("Entrypoint", Shape::Texts),
    ("Env", Shape::Texts),
    ("ExposedPorts", Shape::Map),
    ("Healthcheck", Shape::Optional(HEALTHCHECK)),
    ("Labels", Shape::Map),
    ("OnBuild", Shape::Texts),
    ("Shell", Shape::Texts),
    ("StopSignal", Shape::Any),
    ("StopTimeout", Shape::Any),
    ("User", Shape::Any),
    ("Volumes", Shape::Map),
    ("WorkingDir", Shape::Any),
];

const HEALTHCHECK: &[Field] = &[
    ("Interval", Shape::Any),
    ("Retries", Shape::Any),
    ("StartInterval", Shape::Any),
    ("StartPeriod", Shape::Any),
    ("Test", Shape::Texts),
    ("Timeout", Shape::Any),
];

const ROOT_FS: &[Field] = &[("diff_ids", Shape::Texts), ("type", Shape::Any)];

const STEP: &[Field] = &[
    ("author", Shape::Any),
    ("comment", Shape::Any),
    ("created", Shape::Any),
    ("created_by", Shape::Any),
    ("empty_layer", Shape::Any),
];

/// The configuration in `json`. Fields that nobody knows are kept.
pub fn configuration(json: Json) -> Value {
    let mut whole = Value::Null;
    merge(&mut whole, json, &Shape::Fields(IMAGE));
    whole
}

fn merge(into: &mut Value, json: Json, shape: &Shape) {
    match (shape, json) {
        (Shape::Any, Json::Null) if !into.is_array() && !into.is_object() => {}
        (Shape::Fields(_), Json::Null) => {}
        (Shape::Fields(known) | Shape::Optional(known), Json::Object(fields)) => {
            let mut object = taken_object(into);
            for (key, json) in fields {
                let field = known.iter().find(|(name, _)| is_called(&key, name));
                match field {
                    Some((name, shape)) => {
                        merge(object.entry(*name).or_insert(Value::Null), json, shape)
                    }
                    None => drop(object.insert(key, value(json))),
                }
            }
            *into = Value::Object(object);
        }
        (Shape::Map, Json::Object(fields)) => {
            let fields = fields.into_iter().map(|(key, json)| (key, value(json)));
            let mut object = taken_object(into);
            object.extend(fields);
            *into = Value::Object(object);
        }
        (Shape::Texts, Json::Text(text)) => *into = json!([text]),
        (Shape::Texts, Json::List(list)) => {
            let text = |json| match json {
                Json::Null => json!(""),
                other => value(other),
            };
            *into = list.into_iter().map(text).collect();
        }
        (Shape::List(known), Json::List(list)) => {
            let object = |json| {
                let mut object = json!({});
                merge(&mut object, json, &Shape::Fields(known));
                object
            };
            *into = list.into_iter().map(object).collect();
        }
        (_, other) => *into = value(other),
    }
}

/// The object, or an empty one in place of anything else.
fn taken_object(value: &mut Value) -> Map<String, Value> {
    match value.take() {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn value(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(is) => Value::Bool(is),
        Json::Number(number) => Value::Number(number),
        Json::Text(text) => Value::String(text),
        Json::List(list) => list.into_iter().map(value).collect(),
        Json::Object(fields) => {
            let fields = fields.into_iter().map(|(key, json)| (key, value(json)));
            Value::Object(fields.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::image::config::RawConfig;
    use serde_json::{Value, json};

    fn read(text: &[u8]) -> Value {
        let config = RawConfig::parse(text).unwrap().to_vec().unwrap();
        serde_json::from_slice(&config).unwrap()
    }

    #[test]
    fn a_field_has_one_name_and_one_value() {
        let text = br#"{"Config":{"user":"1","Env":["A=1"],"LABELS":{"a":"1"},"z":1},
            "config":{"USER":null,"env":["B=2",null],"labels":{"b":"2"},"onbuild":["USER 2"],
            "Entrypoint":"sh","healthcheck":{"TEST":["NONE"]}},
            "RootFS":{"Type":"layers","Diff_IDs":["x"]},"History":[{"Empty_layer":true}],
            "rest":{"Env":1}}"#;
        assert_eq!(
            read(text),
            json!({
                "config": {
                    "User": "1", "Env": ["B=2", ""], "Labels": {"a": "1", "b": "2"}, "z": 1,
                    "OnBuild": ["USER 2"], "Entrypoint": ["sh"],
                    "Healthcheck": {"Test": ["NONE"]},
                },
                "rootfs": {"type": "layers", "diff_ids": ["x"]},
                "history": [{"empty_layer": true}],
                "rest": {"Env": 1},
            })
        );
    }

    #[test]
    fn what_nobody_reads_stays_what_it_was() {
        let text = "{\"config\":{\"Labels\":{\"a\":\"\\ud800\",\"b\":\"\u{e4}\"}},\"n\":9007199254740993,\"f\":1.5}";
        let value = read(text.as_bytes());
        assert_eq!(
            value["config"]["Labels"],
            json!({"a": "\u{fffd}", "b": "\u{e4}"})
        );
        assert_eq!(value["n"], json!(9_007_199_254_740_993_u64));
        assert_eq!(value["f"], json!(1.5));
        assert!(RawConfig::parse(b"[]").is_err());
    }
}
