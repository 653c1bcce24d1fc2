//! Messages of protocol buffers, written and read by the numbers of their fields.

use anyhow::{Context, Result, bail};

/// A message that is being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn new() -> Self {
        Message::default()
    }

    fn key(mut self, field: u32, wire_type: u32) -> Self {
        self.varint(u64::from(field << 3 | wire_type));
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Adds a number. Zero is what a missing field means.
    pub(crate) fn number(self, field: u32, value: i64) -> Self {
        let mut message = self.key(field, 0);
        message.varint(value as u64);
        message
    }

    /// Adds a string, once more for a repeated field.
    pub(crate) fn text(self, field: u32, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    /// Adds a message.
    pub(crate) fn message(self, field: u32, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }

    fn bytes(self, field: u32, value: &[u8]) -> Self {
        let mut message = self.key(field, 2);
        message.varint(value.len() as u64);
        message.0.extend(value);
        message
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A field of a message that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message, with their numbers.
#[derive(Clone, Debug)]
pub(crate) struct Fields(Vec<(u64, Field)>);

impl Fields {
    /// Parses a message.
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Self> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let field = match key & 7 {
                0 => Field::Number(varint(&mut bytes)?),
                2 => {
                    let length = varint(&mut bytes)? as usize;
                    let value = bytes.get(..length).context("a field is cut off")?;
                    bytes = &bytes[length..];
                    Field::Bytes(value.to_vec())
                }
                other => bail!("a field of wire type {other}"),
            };
            all.push((key >> 3, field));
        }
        Ok(Fields(all))
    }

    fn get(&self, number: u64) -> Option<&Field> {
        let mut fields = self.0.iter();
        fields.find(|(n, _)| *n == number).map(|(_, field)| field)
    }

    /// A string; empty if it is missing.
    pub(crate) fn text(&self, number: u64) -> String {
        match self.get(number) {
            Some(Field::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        }
    }

    /// A number; 0 if it is missing.
    pub(crate) fn number(&self, number: u64) -> u64 {
        match self.get(number) {
            Some(Field::Number(value)) => *value,
            _ => 0,
        }
    }

    /// A message; an empty one if it is missing.
    pub(crate) fn message(&self, number: u64) -> Result<Fields> {
        match self.get(number) {
            Some(Field::Bytes(bytes)) => Fields::parse(bytes),
            _ => Ok(Fields(Vec::new())),
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().context("a number is cut off")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number has more than 64 bits")
}
