//! The one framed record: length, checksum, the owner's header, payload, zeros to 8 bytes.
//!
//! ```text
//! 0       len: u32      bytes of the payload
//! 4       crc: u32      crc32c of: salt (u64), bytes 0..4, bytes 8..8 + h + len
//! 8       header        h bytes, fixed by the kind of file; their meaning is the owner's
//! 8 + h   payload       len bytes
//!         zeros         up to the next multiple of 8
//! ```
//!
//! Integers are little endian. The salt is not stored: it is 0 where the owner has none, and a random one per file makes
//! frames of other files, and stale bytes, fail.
//!
//! ```
//! use ractor_persistence::base::frame::{self, Decoded};
//! let mut file = Vec::new();
//! frame::append(&mut file, 7, b"kind", b"payload").unwrap();
//! assert_eq!(file.len() % frame::ALIGN, 0);
//! let Decoded::Frame(read) = frame::decode(&file, 7, 4) else { panic!("a whole frame") };
//! assert_eq!((read.header, read.payload, read.size), (&b"kind"[..], &b"payload"[..], file.len()));
//! assert!(matches!(frame::decode(&file, 8, 4), Decoded::Damaged(_)));
//! assert!(matches!(frame::decode(&file[..16], 7, 4), Decoded::Torn));
//! ```

/// Bytes before the owner's header.
pub const PREFIX: usize = 8;
/// Frames begin and end at multiples of this.
pub const ALIGN: usize = 8;

/// A payload that no frame can hold: it, or the frame around it, has more bytes than can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {0} bytes is too large for a frame")]
pub struct TooLarge(pub usize);

/// What stands at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// Nothing, or nothing but zeros, up to the end of the bytes: a clean end, preallocated room included.
    End,
    /// Fewer bytes than the frame says that it has. A write that was cut off leaves this; so does a damaged length, and
    /// only an owner who knows how far the file was synced can tell the two apart.
    Torn,
    /// All bytes are there and do not fit together.
    Damaged(Damage),
    /// An intact frame.
    Frame(Frame<'a>),
}

/// In what way the bytes of a frame do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Length, header or payload are not what was written, or they were written under another salt.
    #[error("checksum mismatch")]
    Checksum,
    /// The bytes that fill the frame up are not zero.
    #[error("the fill behind the payload is not zero")]
    Fill,
}

/// An intact frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The owner's header.
    pub header: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// Bytes that the frame takes, from its first to the next frame's: a multiple of [`ALIGN`].
    pub size: usize,
}

/// Bytes that a frame takes, or none if they cannot be counted.
pub fn size(header: usize, payload: usize) -> Option<usize> {
    PREFIX.checked_add(header)?.checked_add(payload)?.checked_next_multiple_of(ALIGN)
}

fn checksum(salt: u64, len: [u8; 4], header: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &len);
    let crc = crc32c::crc32c_append(crc, header);
    crc32c::crc32c_append(crc, payload)
}

/// Appends a frame to `out`, whose length must be a multiple of [`ALIGN`] for the frame to stand at one.
///
/// # Errors
/// [`TooLarge`] for a payload beyond 4 GiB, with `out` unchanged.
pub fn append(out: &mut Vec<u8>, salt: u64, header: &[u8], payload: &[u8]) -> Result<(), TooLarge> {
    let too_large = TooLarge(payload.len());
    let len = u32::try_from(payload.len()).map_err(|_| too_large)?.to_le_bytes();
    let size = size(header.len(), payload.len()).ok_or(too_large)?;
    let end = out.len().checked_add(size).ok_or(too_large)?;
    out.reserve(size);
    out.extend_from_slice(&len);
    out.extend_from_slice(&checksum(salt, len, header, payload).to_le_bytes());
    out.extend_from_slice(header);
    out.extend_from_slice(payload);
    out.resize(end, 0);
    Ok(())
}

/// Reads the frame at the beginning of `bytes`, which are all that the file has from there on. `header` is the size of
/// the owner's header. Nothing is allocated.
pub fn decode(bytes: &[u8], salt: u64, header: usize) -> Decoded<'_> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Decoded::End;
    }
    let Some((len, rest)) = bytes.split_first_chunk::<4>() else { return Decoded::Torn };
    let Some((crc, rest)) = rest.split_first_chunk::<4>() else { return Decoded::Torn };
    // A length that the address space cannot count lies beyond the end of any bytes.
    let Ok(payload) = usize::try_from(u32::from_le_bytes(*len)) else { return Decoded::Torn };
    let Some(size) = size(header, payload) else { return Decoded::Torn };
    let Some(rest) = rest.get(..size - PREFIX) else { return Decoded::Torn };
    let (header, rest) = rest.split_at(header);
    let (payload, fill) = rest.split_at(payload);
    if u32::from_le_bytes(*crc) != checksum(salt, *len, header, payload) {
        return Decoded::Damaged(Damage::Checksum);
    }
    if fill.iter().any(|byte| *byte != 0) {
        return Decoded::Damaged(Damage::Fill);
    }
    Decoded::Frame(Frame { header, payload, size })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: usize = 20;

    fn framed(salt: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        append(&mut bytes, salt, &[3; HEADER], payload).unwrap();
        bytes
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = framed(0, b"abc");
        assert_eq!(bytes.len(), 32);
        assert_eq!(bytes[..4], [3, 0, 0, 0]);
        let crc = crc32c::crc32c(&[&[0; 8][..], &bytes[..4], &bytes[8..31]].concat());
        assert_eq!(bytes[4..8], crc.to_le_bytes());
        assert_eq!(bytes[8..28], [3; HEADER]);
        assert_eq!(&bytes[28..], b"abc\0");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for payload in [&b""[..], b"x", b"12345678", b"some longer payload"] {
            for salt in [0, 0x0123_4567_89ab_cdef] {
                let bytes = [framed(salt, payload), framed(salt, b"next")].concat();
                let first = framed(salt, payload).len();
                for bit in 0..first * 8 {
                    let mut damaged = bytes.clone();
                    damaged[bit / 8] ^= 1 << (bit % 8);
                    let read = decode(&damaged, salt, HEADER);
                    assert!(matches!(read, Decoded::Damaged(_) | Decoded::Torn), "bit {bit}: {read:?}");
                }
            }
        }
    }

    #[test]
    fn every_cut_is_torn_and_the_frames_before_it_are_whole() {
        let first = framed(1, b"first payload");
        let bytes = [first.clone(), framed(1, b"second")].concat();
        for length in 1..bytes.len() {
            let cut = &bytes[..length];
            let Decoded::Frame(frame) = decode(cut, 1, HEADER) else {
                assert!(length < first.len(), "length {length}");
                assert_eq!(decode(cut, 1, HEADER), Decoded::Torn, "length {length}");
                continue;
            };
            assert_eq!((frame.payload, frame.size), (&b"first payload"[..], first.len()));
            let rest = decode(&cut[frame.size..], 1, HEADER);
            assert_eq!(rest, if length == first.len() { Decoded::End } else { Decoded::Torn }, "length {length}");
        }
    }

    #[test]
    fn nothing_and_zeros_are_a_clean_end_and_never_a_frame() {
        for header in [0, 4, HEADER] {
            for length in 0..100 {
                assert_eq!(decode(&vec![0; length], 0, header), Decoded::End);
            }
        }
    }

    #[test]
    fn a_frame_of_another_salt_is_damaged() {
        assert_eq!(decode(&framed(1, b"abc"), 2, HEADER), Decoded::Damaged(Damage::Checksum));
    }

    #[test]
    fn the_largest_length_asks_for_no_memory() {
        assert_eq!(decode(&[0xff; 64], 0, HEADER), Decoded::Torn);
        assert_eq!(size(usize::MAX, 1), None);
    }

    proptest! {
        #[test]
        fn frames_come_back_in_order(
            salt in any::<u64>(),
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
        ) {
            let mut bytes = Vec::new();
            for payload in &payloads {
                append(&mut bytes, salt, b"headr", payload).unwrap();
            }
            bytes.resize(bytes.len() + 32, 0);
            let (mut at, mut read) = (0, Vec::new());
            while let Decoded::Frame(frame) = decode(&bytes[at..], salt, 5) {
                read.push(frame.payload.to_vec());
                at += frame.size;
            }
            prop_assert_eq!(decode(&bytes[at..], salt, 5), Decoded::End);
            prop_assert_eq!(read, payloads);
        }

        #[test]
        fn arbitrary_bytes_are_never_a_frame(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), header in 0_usize..30,
        ) {
            prop_assert!(!matches!(decode(&bytes, 0x5eed, header), Decoded::Frame(_)));
        }
    }
}
