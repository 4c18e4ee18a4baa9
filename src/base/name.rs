//! Names: of stores, buckets, channels and messages, and the keys that back-ends file their data under.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::error::{Error, Result};

/// Most bytes of a store's, bucket's or channel's name.
pub const MAX_NAME_BYTES: usize = 128;
/// Most bytes of a message id or participant.
pub const MAX_ID_BYTES: usize = 1_024;
/// First character of the names that the crate keeps for itself; no user's name can contain it.
pub const RESERVED: char = '\u{1}';

fn check_name(kind: &'static str, name: &str) -> Result<()> {
    let fault = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "is longer than 128 bytes"
    } else if name.chars().any(char::is_control) {
        "contains a control character"
    } else {
        return Ok(());
    };
    Err(Error::InvalidName { kind, name: name.escape_debug().take(160).collect(), fault })
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes 1 to 128 bytes of Unicode without control characters; names are compared byte for byte.
            ///
            /// # Errors
            /// `InvalidName` says what is wrong with it.
            pub fn new(name: impl AsRef<str>) -> Result<Self> {
                check_name($kind, name.as_ref())?;
                Ok(Self(Arc::from(name.as_ref())))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // People are not shown what keeps reserved names apart.
                f.write_str(self.0.trim_start_matches(RESERVED))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // A reserved name has no quotes around it: nobody gave it.
                if self.0.starts_with(RESERVED) { fmt::Display::fmt(self, f) } else { fmt::Debug::fmt(&self.0, f) }
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;
            fn try_from(name: &str) -> Result<Self> {
                Self::new(name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                Self::new(&name).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_name!(
    /// The name of a store, under which an adapter keeps everything of it.
    StoreName, "store"
);
text_name!(
    /// The name of a bucket within its store.
    BucketName, "bucket"
);
text_name!(
    /// The id of a channel that is open in a store. On the wire, where peers choose, an id may be any bytes.
    ChannelId, "channel"
);

text_name!(
    /// The name of a durable value within its store.
    DurableName, "durable value"
);

impl BucketName {
    /// A name that the crate keeps for itself: [`RESERVED`], then this text. No user's bucket has one, because
    /// [`new`](Self::new) refuses it.
    pub(crate) fn reserved(text: &str) -> Self {
        Self(Arc::from(format!("{RESERVED}{text}")))
    }

    /// A name as a back-end has kept it, a reserved one too; none if it cannot be one.
    #[cfg(feature = "redb")]
    pub(crate) fn stored(name: &str) -> Option<Self> {
        match name.strip_prefix(RESERVED) {
            Some(text) => Self::new(text).is_ok().then(|| Self::reserved(text)),
            None => Self::new(name).ok(),
        }
    }

    /// Whether the name is one that the crate keeps for itself, such as that of the durable values.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED)
    }

    /// The name with what it is the name of: `bucket users`, or what the crate keeps for itself, `durable values`.
    pub(crate) fn with_kind(&self) -> impl fmt::Display + '_ {
        WithKind(self)
    }
}

struct WithKind<'a>(&'a BucketName);

impl fmt::Display for WithKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_reserved() { "" } else { "bucket " })?;
        self.0.fmt(f)
    }
}

/// What a back-end files a bucket under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketKey {
    /// The store that the bucket belongs to.
    pub store: StoreName,
    /// The bucket's name.
    pub bucket: BucketName,
}

impl BucketKey {
    /// Joins the two names.
    pub fn new(store: StoreName, bucket: BucketName) -> Self {
        Self { store, bucket }
    }
}

/// What a back-end files a channel under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelKey {
    /// The store that the channel belongs to.
    pub store: StoreName,
    /// The channel's id.
    pub channel: ChannelId,
}

impl ChannelKey {
    /// Joins the two names.
    pub fn new(store: StoreName, channel: ChannelId) -> Self {
        Self { store, channel }
    }
}

/// One thing that is saved as a unit: a bucket or a channel of a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Subject {
    /// A bucket.
    Bucket(BucketName),
    /// A channel.
    Channel(ChannelId),
}

impl Subject {
    /// The name without its kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Bucket(name) => name.as_str(),
            Self::Channel(id) => id.as_str(),
        }
    }

    /// The name as people are shown it: without what keeps reserved names apart.
    pub(crate) fn shown_name(&self) -> &str {
        self.name().trim_start_matches(RESERVED)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket(name) => write!(f, "{}", name.with_kind()),
            Self::Channel(id) => write!(f, "channel {id}"),
        }
    }
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Bytes);

        impl $name {
            /// Takes the bytes as they are; bounds are checked where an id is used.
            pub fn new(id: impl Into<Bytes>) -> Self {
                Self(id.into())
            }

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// The text, if it is UTF-8.
            pub fn as_str(&self) -> Option<&str> {
                std::str::from_utf8(&self.0).ok()
            }

            /// Whether there are no bytes at all.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl Borrow<[u8]> for $name {
            fn borrow(&self) -> &[u8] {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(Bytes::copy_from_slice(id.as_bytes()))
            }
        }

        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self(Bytes::from(id))
            }
        }

        impl From<&[u8]> for $name {
            fn from(id: &[u8]) -> Self {
                Self(Bytes::copy_from_slice(id))
            }
        }

        impl From<Bytes> for $name {
            fn from(id: Bytes) -> Self {
                Self(id)
            }
        }

        impl From<&$name> for $name {
            fn from(id: &$name) -> Self {
                id.clone()
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_bytes() == other.as_bytes()
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_bytes() == other.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.escape_ascii())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{}\"", self.0.escape_ascii())
            }
        }

        /// Bytes in binary formats; in readable ones text, or `{"base64": …}` where it is not UTF-8.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                crate::base::codec::id_bytes::serialize(&self.0, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                crate::base::codec::id_bytes::deserialize(deserializer).map(Self)
            }
        }
    };
}

byte_id!(
    /// The id of a message: any bytes, compared byte for byte.
    MessageId
);
byte_id!(
    /// Who takes part in a channel: any bytes; empty means nobody in particular.
    ParticipantId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_free_of_control_characters() {
        assert!(BucketName::new("a.b:c/d *😀").is_ok());
        assert!(BucketName::new("x".repeat(128)).is_ok());
        for bad in ["".to_owned(), "x".repeat(129), "a\nb".to_owned(), "\u{1}x".to_owned(), "\u{7f}".to_owned()] {
            assert!(matches!(BucketName::new(&bad), Err(Error::InvalidName { .. })), "{bad:?}");
        }
    }

    #[test]
    fn reserved_names_are_the_crates_own() {
        let name = BucketName::reserved("durable values");
        assert!(name.is_reserved() && matches!(BucketName::new(name.as_str()), Err(Error::InvalidName { .. })));
        assert!(serde_json::from_str::<BucketName>(&serde_json::to_string(&name).unwrap()).is_err());
        assert_eq!(name.to_string(), "durable values");
        assert!(!BucketName::new("durable values").unwrap().is_reserved());
    }

    #[test]
    fn ids_that_are_not_text_survive_both_kinds_of_format() {
        for id in [MessageId::from("m1"), MessageId::from(&[0xff, 0x00][..]), MessageId::from("")] {
            let json = serde_json::to_string(&id).unwrap();
            assert_eq!(serde_json::from_str::<MessageId>(&json).unwrap(), id, "{json}");
            let packed = rmp_serde::to_vec_named(&id).unwrap();
            assert_eq!(rmp_serde::from_slice::<MessageId>(&packed).unwrap(), id);
        }
    }
}
