//! What a host can do, said in a map that describes itself, so that an older peer can carry what it does not know.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bytes::{Malformed, Reader, put_bytes, put_count, put_text};

/// One value of the map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(u64),
    /// Text.
    Text(String),
    /// Bytes with a meaning of their own.
    Bytes(Vec<u8>),
    /// A value of a kind that this version does not know, kept as it came.
    Other(u8, Vec<u8>),
}

/// Names with values, in the order of the names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Capabilities(pub BTreeMap<String, Value>);

impl Capabilities {
    /// Sets `name` to `value`.
    pub fn set(&mut self, name: &str, value: Value) -> &mut Capabilities {
        self.0.insert(name.into(), value);
        self
    }

    /// True if `name` is there and is the flag true.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name) == Some(&Value::Flag(true))
    }

    /// The number called `name`.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// The text called `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_count(out, self.0.len());
        for (name, value) in &self.0 {
            put_text(out, name);
            let (kind, bytes) = match value {
                Value::Flag(flag) => (1, &[u8::from(*flag)][..]),
                Value::Number(number) => (2, &number.to_le_bytes()[..]),
                Value::Text(text) => (3, text.as_bytes()),
                Value::Bytes(bytes) => (4, &bytes[..]),
                Value::Other(kind, bytes) => (*kind, &bytes[..]),
            };
            out.push(kind);
            put_bytes(out, bytes);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Capabilities, Malformed> {
        const FIELD: &str = "capability";
        let mut map = BTreeMap::new();
        for _ in 0..reader.count(7)? {
            let name = reader.text(FIELD)?;
            let kind = reader.u8()?;
            let bytes = reader.bytes(65_536)?;
            let bad = Malformed::BadValue(FIELD);
            let value = match kind {
                0 => return Err(bad),
                1 => match bytes[..] {
                    [flag @ (0 | 1)] => Value::Flag(flag == 1),
                    _ => return Err(bad),
                },
                2 => Value::Number(u64::from_le_bytes(bytes.try_into().map_err(|_| bad)?)),
                3 => Value::Text(String::from_utf8(bytes).map_err(|_| bad)?),
                4 => Value::Bytes(bytes),
                other => Value::Other(other, bytes),
            };
            if map.insert(name, value).is_some() {
                return Err(bad);
            }
        }
        Ok(Capabilities(map))
    }
}
