//! Values as MessagePack, written and read without a serializer in between: byte for byte what `stored` makes of them
//! with `rmp_serde`, at a fraction of the cost. What it does not know how to read it leaves to that.

use crate::base::value::{Key, KeyRef, MAX_DEPTH, Object, Text, Value};

/// Appends MessagePack, in the shortest form of each number and length.
pub(crate) mod write {
    /// A head byte and a big-endian number behind it.
    #[inline]
    fn head<const N: usize>(out: &mut Vec<u8>, head: u8, number: [u8; N]) {
        out.reserve(1 + N);
        out.push(head);
        out.extend_from_slice(&number);
    }

    pub(crate) fn nil(out: &mut Vec<u8>) {
        out.push(0xc0);
    }

    pub(crate) fn bool(out: &mut Vec<u8>, value: bool) {
        out.push(if value { 0xc3 } else { 0xc2 });
    }

    pub(crate) fn uint(out: &mut Vec<u8>, number: u64) {
        if let Ok(number) = u8::try_from(number) {
            if number < 0x80 { out.push(number) } else { head(out, 0xcc, number.to_be_bytes()) }
        } else if let Ok(number) = u16::try_from(number) {
            head(out, 0xcd, number.to_be_bytes());
        } else if let Ok(number) = u32::try_from(number) {
            head(out, 0xce, number.to_be_bytes());
        } else {
            head(out, 0xcf, number.to_be_bytes());
        }
    }

    pub(crate) fn int(out: &mut Vec<u8>, number: i64) {
        if let Ok(number) = u64::try_from(number) {
            uint(out, number);
        } else if let Ok(number) = i8::try_from(number) {
            if number >= -32 { out.push(number.cast_unsigned()) } else { head(out, 0xd0, number.to_be_bytes()) }
        } else if let Ok(number) = i16::try_from(number) {
            head(out, 0xd1, number.to_be_bytes());
        } else if let Ok(number) = i32::try_from(number) {
            head(out, 0xd2, number.to_be_bytes());
        } else {
            head(out, 0xd3, number.to_be_bytes());
        }
    }

    pub(crate) fn float(out: &mut Vec<u8>, number: f64) {
        head(out, 0xcb, number.to_be_bytes());
    }

    /// The heads of a kind that counts what follows: up to how many fit into the head itself, that head, and those that
    /// are followed by a length of one, two and four bytes.
    struct Heads {
        fixed: (u8, u8),
        one: Option<u8>,
        two: u8,
        four: u8,
    }

    const TEXT: Heads = Heads { fixed: (32, 0xa0), one: Some(0xd9), two: 0xda, four: 0xdb };
    const BYTES: Heads = Heads { fixed: (0, 0), one: Some(0xc4), two: 0xc5, four: 0xc6 };
    const ARRAY: Heads = Heads { fixed: (16, 0x90), one: None, two: 0xdc, four: 0xdd };
    const MAP: Heads = Heads { fixed: (16, 0x80), one: None, two: 0xde, four: 0xdf };

    #[inline(always)]
    fn length(out: &mut Vec<u8>, heads: &Heads, length: usize) {
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length), _) if length < heads.fixed.0 => out.push(heads.fixed.1 | length),
            (Ok(length), _) if heads.one.is_some() => out.extend_from_slice(&[heads.one.unwrap_or_default(), length]),
            (_, Ok(length)) => head(out, heads.two, length.to_be_bytes()),
            // Nothing that a value may hold is longer than that.
            _ => head(out, heads.four, u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()),
        }
    }

    #[inline]
    pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
        length(out, &TEXT, text.len());
        out.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
        length(out, &BYTES, bytes.len());
        out.extend_from_slice(bytes);
    }

    /// The beginning of an array of so many items.
    pub(crate) fn array(out: &mut Vec<u8>, items: usize) {
        length(out, &ARRAY, items);
    }

    /// The beginning of a map of so many entries.
    pub(crate) fn map(out: &mut Vec<u8>, entries: usize) {
        length(out, &MAP, entries);
    }
}

impl Value {
    /// Appends the value as MessagePack.
    pub(crate) fn pack(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => write::nil(out),
            Self::Bool(value) => write::bool(out, *value),
            Self::Int(number) => write::int(out, *number),
            Self::Float(number) => write::float(out, *number),
            Self::String(text) => write::text(out, text),
            Self::Bytes(bytes) => write::bytes(out, bytes),
            Self::Array(items) => {
                write::array(out, items.len());
                for item in items {
                    item.pack(out);
                }
            }
            Self::Object(object) => {
                write::map(out, object.len());
                for (name, value) in object.iter() {
                    write::text(out, name);
                    value.pack(out);
                }
            }
        }
    }
}

impl Key {
    /// Appends the key as MessagePack.
    pub(crate) fn pack(&self, out: &mut Vec<u8>) {
        match self.parts() {
            KeyRef::Int(number) => write::int(out, number),
            KeyRef::Text(text) => write::text(out, text),
        }
    }
}

/// Reads MessagePack from the front of some bytes. `None`: that is not what stands there, or not all of it; where it
/// stands then is not defined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// Exactly these bytes.
    #[inline]
    pub(crate) fn exactly(&mut self, bytes: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(bytes)?;
        Some(())
    }

    #[inline]
    fn head(&mut self) -> Option<u8> {
        let (head, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*head)
    }

    #[inline]
    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (number, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*number)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A length of one, two or four bytes.
    #[inline]
    fn length<const N: usize>(&mut self) -> Option<usize> {
        let bytes = self.number::<N>()?;
        Some(bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    #[inline]
    fn text_behind(&mut self, head: u8) -> Option<&'a str> {
        std::str::from_utf8(self.text_bytes_behind(head)?).ok()
    }

    #[inline]
    fn text_bytes_behind(&mut self, head: u8) -> Option<&'a [u8]> {
        let length = match head {
            0xa0..=0xbf => usize::from(head & 0x1f),
            0xd9 => self.length::<1>()?,
            0xda => self.length::<2>()?,
            0xdb => self.length::<4>()?,
            _ => return None,
        };
        self.take(length)
    }

    #[inline]
    fn uint_behind(&mut self, head: u8) -> Option<u64> {
        Some(match head {
            0..=0x7f => u64::from(head),
            0xcc => u64::from(u8::from_be_bytes(self.number()?)),
            0xcd => u64::from(u16::from_be_bytes(self.number()?)),
            0xce => u64::from(u32::from_be_bytes(self.number()?)),
            0xcf => u64::from_be_bytes(self.number()?),
            _ => return None,
        })
    }

    #[inline]
    fn int_behind(&mut self, head: u8) -> Option<i64> {
        Some(match head {
            0xe0..=0xff => i64::from(head.cast_signed()),
            0xd0 => i64::from(i8::from_be_bytes(self.number()?)),
            0xd1 => i64::from(i16::from_be_bytes(self.number()?)),
            0xd2 => i64::from(i32::from_be_bytes(self.number()?)),
            0xd3 => i64::from_be_bytes(self.number()?),
            _ => i64::try_from(self.uint_behind(head)?).ok()?,
        })
    }

    /// A text.
    #[inline]
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let head = self.head()?;
        self.text_behind(head)
    }

    /// The bytes of a text, to compare them with those of one: they need not be UTF-8.
    #[inline]
    pub(crate) fn text_bytes(&mut self) -> Option<&'a [u8]> {
        let head = self.head()?;
        self.text_bytes_behind(head)
    }

    /// A number without sign.
    #[inline]
    pub(crate) fn uint(&mut self) -> Option<u64> {
        let head = self.head()?;
        self.uint_behind(head)
    }

    /// A number with sign, in whatever form.
    #[inline]
    pub(crate) fn int(&mut self) -> Option<i64> {
        let head = self.head()?;
        self.int_behind(head)
    }

    /// A key.
    pub(crate) fn key(&mut self) -> Option<Key> {
        match self.0.first()? {
            0xa0..=0xbf | 0xd9..=0xdb => self.text().map(Key::from),
            _ => self.int().map(Key::from),
        }
    }

    /// The beginning of a map: how many entries follow.
    #[inline]
    pub(crate) fn map(&mut self) -> Option<usize> {
        match self.head()? {
            head @ 0x80..=0x8f => Some(usize::from(head & 0x0f)),
            0xde => self.length::<2>(),
            0xdf => self.length::<4>(),
            _ => None,
        }
    }

    /// Names and values, as many as a map's beginning said.
    pub(crate) fn entries(&mut self, count: usize) -> Option<Vec<(Text, Value)>> {
        self.entries_at(count, 0)
    }

    fn entries_at(&mut self, count: usize, depth: usize) -> Option<Vec<(Text, Value)>> {
        // Each entry takes two bytes at least: a length that nobody wrote allocates nothing.
        let mut entries = Vec::with_capacity(count.min(self.0.len() / 2));
        for _ in 0..count {
            entries.push((self.text()?.into(), self.value_at(depth)?));
        }
        Some(entries)
    }

    fn items(&mut self, count: usize, depth: usize) -> Option<Value> {
        let mut items = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            items.push(self.value_at(depth)?);
        }
        Some(Value::Array(items.into()))
    }

    /// A value.
    #[inline]
    pub(crate) fn value(&mut self) -> Option<Value> {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Option<Value> {
        // The bound guards the stack against bytes that nobody wrote.
        if depth > MAX_DEPTH {
            return None;
        }
        let head = self.head()?;
        Some(match head {
            0xa0..=0xbf | 0xd9..=0xdb => Value::String(self.text_behind(head)?.into()),
            0..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff => Value::Int(self.int_behind(head)?),
            0xcb => Value::Float(f64::from_be_bytes(self.number()?)),
            0xc0 => Value::Null,
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc4..=0xc6 => {
                let length = match head {
                    0xc4 => self.length::<1>()?,
                    0xc5 => self.length::<2>()?,
                    _ => self.length::<4>()?,
                };
                Value::Bytes(self.take(length)?.into())
            }
            0x90..=0x9f | 0xdc | 0xdd => {
                let count = match head {
                    0xdc => self.length::<2>()?,
                    0xdd => self.length::<4>()?,
                    _ => usize::from(head & 0x0f),
                };
                self.items(count, depth + 1)?
            }
            0x80..=0x8f | 0xde | 0xdf => {
                let count = match head {
                    0xde => self.length::<2>()?,
                    0xdf => self.length::<4>()?,
                    _ => usize::from(head & 0x0f),
                };
                Value::Object(Object::from_unsorted(self.entries_at(count, depth + 1)?))
            }
            // Extensions, floats of four bytes and the byte that is never used: nothing of ours.
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Float),
            "\\PC{0,40}".prop_map(Value::from),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Value::Bytes(bytes.into())),
        ];
        leaf.prop_recursive(4, 40, 20, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..20).prop_map(|items| Value::Array(items.into())),
                proptest::collection::vec(("[a-z]{0,3}", inner), 0..20)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    fn packed(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.pack(&mut out);
        out
    }

    /// The bytes are those of the serializer, and both ways of reading them give the value back, kind by kind.
    fn agrees(value: &Value) {
        let bytes = packed(value);
        assert_eq!(bytes, rmp_serde::to_vec_named(value).unwrap(), "{value:?}");
        let mut reader = Reader::new(&bytes);
        let back = reader.value().unwrap();
        assert!(reader.is_at_end());
        // Not compared as values: an Int equals a Float there.
        assert_eq!(packed(&back), bytes);
        let slowly: Value = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(packed(&slowly), bytes);
    }

    proptest! {
        #[test]
        fn packed_values_are_those_of_the_serializer(value in values()) {
            agrees(&value);
        }

        #[test]
        fn what_is_read_of_arbitrary_bytes_is_what_the_deserializer_reads(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            if let Some(value) = Reader::new(&bytes).value() {
                let slowly: Value = rmp_serde::from_slice(&bytes).unwrap();
                prop_assert_eq!(packed(&value), packed(&slowly));
            }
        }
    }

    #[test]
    fn every_size_of_number_and_length_is_that_of_the_serializer() {
        for power in 0..63 {
            for near in -1..=1 {
                let number = (1_i64 << power) + near;
                for number in [number, -number, -number - 31] {
                    agrees(&Value::Int(number));
                }
            }
        }
        agrees(&Value::Int(i64::MIN));
        agrees(&Value::Int(i64::MAX));
        for length in [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536] {
            agrees(&"x".repeat(length).into());
            agrees(&Value::Bytes(vec![7; length].into()));
            agrees(&vec![Value::Null; length].into());
            agrees(&Value::Object((0..length).map(|number| (format!("{number:05}"), Value::Null)).collect()));
        }
        for number in [0, 127, 128, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            let mut out = Vec::new();
            write::uint(&mut out, number);
            assert_eq!(out, rmp_serde::to_vec_named(&number).unwrap());
            assert_eq!(Reader::new(&out).uint(), Some(number));
        }
    }

    #[test]
    fn hostile_depth_and_lengths_are_not_read() {
        assert!(Reader::new(&[0x91; 1_000]).value().is_none());
        assert!(Reader::new(&[0xdd, 0xff, 0xff, 0xff, 0xff]).value().is_none());
        assert!(Reader::new(&[0xdf, 0xff, 0xff, 0xff, 0xff]).value().is_none());
        assert!(Reader::new(&[0xc6, 0xff, 0xff, 0xff, 0xff]).value().is_none());
    }
}
