//! `null` is what is missing, as in Go, which writes it for empty lists: a
//! property of that value is false, 0, an empty text, list or object.
//!
//! A deserialiser around another one, so that the types of the configuration
//! need not say so for each property. Elements of lists and the values of maps
//! are no properties: there `null` is an error.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// A deserialiser for which `null` is what is missing.
pub(crate) struct NullIsMissing<D> {
    inner: D,
    /// Whether this is the value of a property.
    property: bool,
}

impl<D> NullIsMissing<D> {
    /// Around the deserialiser of a document.
    pub(crate) fn new(inner: D) -> Self {
        NullIsMissing {
            inner,
            property: false,
        }
    }
}

/// What a property without a value is.
#[derive(Clone, Copy)]
enum Zero {
    False,
    Number,
    Text,
    List,
    /// Of a struct, whose values are properties in turn.
    Properties,
    /// Of a map.
    Map,
}

impl<'de, D: Deserializer<'de>> NullIsMissing<D> {
    fn filled<V: Visitor<'de>>(self, visitor: V, zero: Zero) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Filled {
            visitor,
            zero,
            property: self.property,
        })
    }
}

macro_rules! zero {
    ($($name:ident $zero:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.filled(visitor, Zero::$zero)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for NullIsMissing<D> {
    type Error = D::Error;

    zero! {
        deserialize_bool False
        deserialize_i8 Number deserialize_i16 Number deserialize_i32 Number deserialize_i64 Number
        deserialize_u8 Number deserialize_u16 Number deserialize_u32 Number deserialize_u64 Number
        deserialize_str Text deserialize_string Text
        deserialize_seq List
        deserialize_map Map
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.filled(visitor, Zero::Properties)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Inside(visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_ignored_any(visitor)
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct
        identifier
    }
}

/// A visitor that sees the zero in the place of `null`.
struct Filled<V> {
    visitor: V,
    zero: Zero,
    property: bool,
}

macro_rules! forward {
    ($($name:ident $type:ty)*) => {
        $(fn $name<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.visitor.$name(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Filled<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    forward! {
        visit_bool bool visit_i64 i64 visit_u64 u64 visit_f64 f64
        visit_str &str visit_borrowed_str &'de str visit_string String
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        let nothing = std::iter::empty::<()>;
        match self.zero {
            _ if !self.property => self.visitor.visit_unit(),
            Zero::False => self.visitor.visit_bool(false),
            Zero::Number => self.visitor.visit_u64(0),
            Zero::Text => self.visitor.visit_str(""),
            Zero::List => self.visitor.visit_seq(SeqDeserializer::new(nothing())),
            Zero::Properties | Zero::Map => {
                let nothing = nothing().map(|()| ((), ()));
                self.visitor.visit_map(MapDeserializer::new(nothing))
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(Access {
            inner,
            properties: false,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Access {
            inner,
            properties: matches!(self.zero, Zero::Properties),
        })
    }
}

/// A visitor of what may be missing: `null` is `None` there.
struct Inside<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Inside<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(NullIsMissing::new(inner))
    }
}

/// What is in a list or an object.
struct Access<A> {
    inner: A,
    properties: bool,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Access<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        self.inner.next_element_seed(Seed {
            seed,
            property: self.properties,
        })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Access<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.inner.next_value_seed(Seed {
            seed,
            property: self.properties,
        })
    }
}

struct Seed<T> {
    seed: T,
    property: bool,
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<T::Value, D::Error> {
        self.seed.deserialize(NullIsMissing {
            inner: from,
            property: self.property,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use serde::Deserialize;
    use serde_json::Deserializer as Json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct All {
        flag: bool,
        number: u32,
        signed: i64,
        path: PathBuf,
        list: Vec<String>,
        map: BTreeMap<String, String>,
        inner: Option<Box<All>>,
        own: Required,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    struct Required {
        name: String,
    }

    fn read(text: &str) -> Result<All, serde_json::Error> {
        All::deserialize(NullIsMissing::new(&mut Json::from_str(text)))
    }

    #[test]
    fn a_property_may_be_null_and_nothing_else() {
        let all = r#"{"flag":null,"number":null,"signed":null,"path":null,"list":null,"map":null,
                      "inner":null}"#;
        assert_eq!(read(all).unwrap(), All::default());
        let nested = read(r#"{"inner":{"list":null,"number":3}}"#).unwrap();
        assert_eq!(nested.inner.unwrap().number, 3);
        for (text, words) in [
            ("null", "invalid type: null"),
            (
                r#"{"list":["a",null]}"#,
                "invalid type: null, expected a string",
            ),
            (
                r#"{"map":{"a":null}}"#,
                "invalid type: null, expected a string",
            ),
            (r#"{"own":null}"#, "missing field `name`"),
            (
                r#"{"number":"1"}"#,
                "invalid type: string \"1\", expected u32",
            ),
            (
                r#"{"number":-1}"#,
                "invalid value: integer `-1`, expected u32",
            ),
            (r#"{"list":{}}"#, "invalid type: map, expected a sequence"),
            (r#"{"flag":1}"#, "expected a boolean"),
        ] {
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains(words), "{said}, not {words}");
        }
    }
}
