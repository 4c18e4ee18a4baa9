//! The one MessagePack envelope: a version, a checksum, a body with field names.
//!
//! ```text
//! byte 0      format version
//! bytes 1..5  crc32c, little endian, over: context length (u32 LE), context, version byte, body
//! bytes 5..   body: MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md), structs as maps by field name
//! ```
//!
//! The *context* is not stored: it is what the bytes are filed under (a table and a key), so that a body that turns up
//! under another key is as damaged as one with a flipped bit.

use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(any(feature = "redb", feature = "postgres"))]
use crate::base::error::{Error, Place};

/// Bytes before the body.
pub const HEADER: usize = 5;

/// A thing that is persisted in an envelope: its name, for errors, and the version that this crate writes and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// What it is, as in `docs/format.md`.
    pub name: &'static str,
    /// The version written, and the only one read.
    pub version: u8,
}

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Fewer bytes than an envelope has.
    #[error("{0} bytes are too few for an envelope")]
    TooShort(usize),
    /// A version that this crate does not know.
    #[error("format version {found} is unknown, {known} is known")]
    Version {
        /// What the bytes say.
        found: u8,
        /// What this crate reads.
        known: u8,
    },
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
    /// The body is not the MessagePack that it should be, though its checksum matches.
    #[error("{0}")]
    Body(String),
}

impl CodecError {
    /// What it means for whoever wants what is stored at `at` in a format: `UnknownFormat`, or `Corrupt`.
    #[cfg(any(feature = "redb", feature = "postgres"))]
    pub(crate) fn at(self, format: Format, at: Place) -> Error {
        match self {
            Self::Version { found, known } => {
                Error::UnknownFormat { format: format.name.to_owned(), at, found: found.into(), known: known.into() }
            }
            damage => Error::corrupt(at, damage.to_string()),
        }
    }
}

/// The part of a checksum that a context makes up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filed(u32);

impl Filed {
    fn under(context: &[u8]) -> Self {
        Self(crc32c::crc32c_append(length_of(context.len()), context))
    }

    fn checksum(self, version: u8, body: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &[version]), body)
    }
}

/// What the length of a context makes up.
fn length_of(context: usize) -> u32 {
    crc32c::crc32c(&u32::try_from(context).unwrap_or(u32::MAX).to_le_bytes())
}

/// Contexts that begin alike. What that makes up of a checksum is kept for as long as their length stays the same.
#[derive(Debug)]
#[cfg(any(feature = "redb", feature = "postgres", test))]
pub(crate) struct Contexts {
    beginning: Vec<u8>,
    /// Length of the last end, and what its length and the beginning make up.
    last: Option<(usize, u32)>,
}

#[cfg(any(feature = "redb", feature = "postgres", test))]
impl Contexts {
    pub(crate) fn new(beginning: Vec<u8>) -> Self {
        Self { beginning, last: None }
    }

    /// What the context that ends so makes up.
    pub(crate) fn ending(&mut self, end: &[u8]) -> Filed {
        let begun = match self.last {
            Some((length, begun)) if length == end.len() => begun,
            _ => crc32c::crc32c_append(length_of(self.beginning.len() + end.len()), &self.beginning),
        };
        self.last = Some((end.len(), begun));
        Filed(crc32c::crc32c_append(begun, end))
    }
}

/// Wraps `value` for storing under `context`.
///
/// # Errors
/// `Body` with what the type says when it cannot be serialized.
pub fn encode<T: Serialize + ?Sized>(format: Format, context: &[u8], value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(192);
    let body = |bytes: &mut Vec<u8>| serialize(value, bytes);
    encode_into(format, Filed::under(context), &mut bytes, body)?;
    Ok(bytes)
}

/// Appends MessagePack with field names.
///
/// # Errors
/// `Body` with what the type says when it cannot be serialized.
pub(crate) fn serialize<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    let mut serializer = rmp_serde::Serializer::new(bytes).with_struct_map();
    value.serialize(&mut serializer).map_err(|error| CodecError::Body(error.to_string()))
}

/// Replaces what is in `bytes` by an envelope around what `body` appends.
pub(crate) fn encode_into<E>(
    format: Format,
    filed: Filed,
    bytes: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    bytes.clear();
    encode_onto(format, filed, bytes, body)
}

/// Appends an envelope around what `body` appends; after an error, what was appended is of no use.
pub(crate) fn encode_onto<E>(
    format: Format,
    filed: Filed,
    bytes: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = bytes.len();
    bytes.extend_from_slice(&[format.version, 0, 0, 0, 0]);
    body(bytes)?;
    seal(format, filed, &mut bytes[start..]);
    Ok(())
}

/// Makes an envelope of bytes that have room for its header before their body.
pub(crate) fn seal(format: Format, filed: Filed, bytes: &mut [u8]) {
    if let Some((header, body)) = bytes.split_first_chunk_mut::<HEADER>() {
        let [a, b, c, d] = filed.checksum(format.version, body).to_le_bytes();
        *header = [format.version, a, b, c, d];
    }
}

/// The body of what was stored under `context`, once its envelope is found intact.
///
/// # Errors
/// `TooShort`, `Version` or `Checksum`.
pub fn open<'a>(format: Format, context: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], CodecError> {
    open_filed(format, Filed::under(context), bytes)
}

/// The body of what was stored, once its envelope is found intact.
pub(crate) fn open_filed(format: Format, filed: Filed, bytes: &[u8]) -> Result<&[u8], CodecError> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(CodecError::TooShort(bytes.len()));
    };
    let [version, crc @ ..] = *header;
    let intact = u32::from_le_bytes(crc) == filed.checksum(version, body);
    if version != format.version {
        // A damaged version byte is damage, not a later version: that one would carry a matching checksum.
        return Err(if intact {
            CodecError::Version { found: version, known: format.version }
        } else {
            CodecError::Checksum
        });
    }
    if intact { Ok(body) } else { Err(CodecError::Checksum) }
}

/// The checksum that an envelope carries, unchecked; none if it is too short for one.
pub fn stored_checksum(bytes: &[u8]) -> Option<u32> {
    let ([_, crc @ ..], _) = bytes.split_first_chunk::<HEADER>()?;
    Some(u32::from_le_bytes(*crc))
}

/// Unwraps what was stored under `context`.
///
/// # Errors
/// Each fault of the bytes by its name; the version is looked at before the checksum, so that bytes of a later version
/// are told as such.
pub fn decode<T: DeserializeOwned>(format: Format, context: &[u8], bytes: &[u8]) -> Result<T, CodecError> {
    deserialize(open(format, context, bytes)?)
}

/// Reads MessagePack.
///
/// # Errors
/// `Body` with what the type says.
pub(crate) fn deserialize<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    T::deserialize(&mut deserializer).map_err(|error| {
        use rmp_serde::decode::Error as Found;
        // These have the words of a type, which repeat what it has found.
        let words = matches!(error, Found::Syntax(_) | Found::Uncategorized(_));
        CodecError::Body(if words { "the contents are not of the type expected".to_owned() } else { error.to_string() })
    })
}

/// How ids, which may be any bytes, are written: bytes in binary formats, text or `{"base64": …}` in readable ones.
pub(crate) mod id_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Readable {
        Text(String),
        Encoded { base64: String },
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(bytes);
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Readable::Encoded { base64: STANDARD.encode(bytes) }.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        if !deserializer.is_human_readable() {
            return content_bytes::deserialize(deserializer);
        }
        match Readable::deserialize(deserializer)? {
            Readable::Text(text) => Ok(Bytes::from(text)),
            Readable::Encoded { base64 } => STANDARD.decode(base64).map(Bytes::from).map_err(serde::de::Error::custom),
        }
    }

    use super::content_bytes;
}

/// How content, which is bytes and nothing else, is written: bytes in binary formats, padded base64 in readable ones.
pub(crate) mod content_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(bytes))
        } else {
            serializer.serialize_bytes(bytes)
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
        } else {
            Bytes::deserialize(deserializer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { name: "test", version: 1 };

    #[test]
    fn a_body_comes_back_only_under_its_own_context() {
        let bytes = encode(FORMAT, b"key", &("a", 1_u8)).unwrap();
        assert_eq!(decode::<(String, u8)>(FORMAT, b"key", &bytes).unwrap(), ("a".to_owned(), 1));
        assert_eq!(decode::<(String, u8)>(FORMAT, b"other", &bytes), Err(CodecError::Checksum));
    }

    #[test]
    fn contexts_that_begin_alike_are_summed_up_as_if_they_stood_alone() {
        let mut contexts = Contexts::new(b"table\0".to_vec());
        for end in [&b"a"[..], b"b", b"", b"longer", b"the long one", b"c", b"d"] {
            let context = [&b"table\0"[..], end].concat();
            assert_eq!(contexts.ending(end).0, Filed::under(&context).0);
            let crc = crc32c::crc32c(&[&length(&context)[..], &context, &[1], b"body"].concat());
            assert_eq!(contexts.ending(end).checksum(1, b"body"), crc, "as documented");
        }
    }

    fn length(context: &[u8]) -> [u8; 4] {
        u32::try_from(context.len()).unwrap().to_le_bytes()
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encode(FORMAT, b"key", &("some text", 77_u32)).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<(String, u32)>(FORMAT, b"key", &damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode::<(String, u32)>(FORMAT, b"key", &bytes[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let later = encode(Format { name: "test", version: 9 }, b"k", &1_u8).unwrap();
        assert_eq!(decode::<u8>(FORMAT, b"k", &later), Err(CodecError::Version { found: 9, known: 1 }));
    }
}
