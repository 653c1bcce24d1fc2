//! Text in documents (serde): values in the spelling of the command line, and
//! names that may contain any bytes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Implements `Serialize` by `Display` and `Deserialize` by `FromStr`: a
/// document has the spelling of the command line.
#[macro_export]
macro_rules! serde_as_text {
    ($($type:ty),+) => {$(
        impl $crate::text::serde::Serialize for $type {
            fn serialize<S: $crate::text::serde::Serializer>(
                &self,
                to: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> $crate::text::serde::Deserialize<'de> for $type {
            fn deserialize<D: $crate::text::serde::Deserializer<'de>>(
                from: D,
            ) -> ::std::result::Result<Self, D::Error> {
                let text = <::std::string::String as $crate::text::serde::Deserialize>::deserialize(
                    from,
                )?;
                text.parse()
                    .map_err(|error| $crate::text::serde::de::Error::custom(format!("{error:#}")))
            }
        }
    )+};
}

#[doc(hidden)]
pub use serde;

/// A name in a document: a string if it is UTF-8, else its bytes.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Bytes(Vec<u8>),
}

/// A type that holds names, for `#[serde(with = "kit::text")]`.
pub trait Names: Sized {
    /// The serialised form.
    #[doc(hidden)]
    type Written: Serialize + for<'de> Deserialize<'de>;
    #[doc(hidden)]
    fn to_written(&self) -> Self::Written;
    #[doc(hidden)]
    fn from_written(written: Self::Written) -> Self;
}

#[doc(hidden)]
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Written(Name);

impl Names for OsString {
    type Written = Written;

    fn to_written(&self) -> Written {
        Written(match self.to_str() {
            Some(text) => Name::Text(text.to_owned()),
            None => Name::Bytes(self.as_encoded_bytes().to_vec()),
        })
    }

    fn from_written(Written(name): Written) -> Self {
        match name {
            Name::Text(text) => text.into(),
            Name::Bytes(bytes) => OsString::from_vec(bytes),
        }
    }
}

impl Names for PathBuf {
    type Written = Written;

    fn to_written(&self) -> Written {
        self.as_os_str().to_owned().to_written()
    }

    fn from_written(written: Written) -> Self {
        OsString::from_written(written).into()
    }
}

impl<N: Names> Names for Option<N> {
    type Written = Option<N::Written>;

    fn to_written(&self) -> Self::Written {
        self.as_ref().map(N::to_written)
    }

    fn from_written(written: Self::Written) -> Self {
        written.map(N::from_written)
    }
}

impl<N: Names> Names for Vec<N> {
    type Written = Vec<N::Written>;

    fn to_written(&self) -> Self::Written {
        self.iter().map(N::to_written).collect()
    }

    fn from_written(written: Self::Written) -> Self {
        written.into_iter().map(N::from_written).collect()
    }
}

/// Serialises names.
pub fn serialize<N: Names, S: Serializer>(names: &N, to: S) -> Result<S::Ok, S::Error> {
    names.to_written().serialize(to)
}

/// Deserialises names.
pub fn deserialize<'de, N: Names, D: Deserializer<'de>>(from: D) -> Result<N, D::Error> {
    N::Written::deserialize(from).map(N::from_written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Document {
        #[serde(with = "super")]
        words: Vec<OsString>,
        #[serde(with = "super")]
        file: Option<PathBuf>,
    }

    #[test]
    fn a_name_of_any_bytes_comes_back() {
        let document = Document {
            words: vec!["größe".into(), OsString::from_vec(vec![b'a', 0xff])],
            file: None,
        };
        let json = serde_json::to_string(&document).unwrap();
        assert_eq!(json, r#"{"words":["größe",[97,255]],"file":null}"#);
        assert_eq!(serde_json::from_str::<Document>(&json).unwrap(), document);
    }
}
