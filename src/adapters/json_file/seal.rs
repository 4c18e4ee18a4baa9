//! Text that begins with a checksum over all that follows it.
//!
//! ```text
//! {"crc":"0a1b2c3d",…}          a line
//! {\n  "checksum": "0a1b2c3d",… a checkpoint
//! ```
//!
//! The checksum is crc32c, over everything behind the closing quote of its digits, continued from a seed that says where
//! the text belongs.

/// The version of every format here, but for those of `WITH_REQUESTS`.
pub(super) const VERSION: u64 = 1;
/// The version of a bucket's checkpoint and journal that have request ids in them.
pub(super) const WITH_REQUESTS: u64 = 2;
/// What stands before a line's digits.
pub(super) const LINE: &str = "{\"crc\":\"";
/// What stands before a checkpoint's digits.
pub(super) const DOCUMENT: &str = "{\n  \"checksum\": \"";
/// How many digits there are.
const DIGITS: usize = 8;

/// The seed of text that belongs to nothing else.
pub(super) const ALONE: u32 = 0;

pub(super) fn digits(crc: u32) -> String {
    format!("{crc:08x}")
}

/// Seals a line: `members` are the object's other members, as in `"n":1,"end":2`. There is no newline at the end.
pub(super) fn line(seed: u32, members: &[u8]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(members.len() + 3);
    rest.extend_from_slice(b"\",");
    rest.extend_from_slice(members);
    rest.push(b'}');
    // The closing quote is outside of the checksum, as any other byte would not fit the form.
    let crc = crc32c::crc32c_append(seed, rest.get(1..).unwrap_or_default());
    [LINE.as_bytes(), digits(crc).as_bytes(), &rest].concat()
}

/// The checksum of a text that is sealed by it; none if it is not sealed, or broken.
pub(super) fn open(prefix: &str, seed: u32, text: &[u8]) -> Option<u32> {
    let (stored, rest) = text.strip_prefix(prefix.as_bytes())?.split_at_checked(DIGITS)?;
    let crc = crc32c::crc32c_append(seed, rest.strip_prefix(b"\"")?);
    (stored == digits(crc).as_bytes()).then_some(crc)
}

/// What a line has behind its seal.
pub(super) fn members(line: &[u8]) -> &[u8] {
    line.get(LINE.len() + DIGITS + 2..).unwrap_or_default()
}

/// What a text that is not sealed as expected says about its format and version, for telling a later version from damage.
pub(super) fn claimed(text: &[u8]) -> Option<(String, u64)> {
    let head = String::from_utf8_lossy(text.get(..text.len().min(1_024))?).into_owned();
    let after = |name: &str| Some(head.split_once(&format!("\"{name}\":"))?.1.trim_start());
    let format = after("format")?.strip_prefix('"')?.split_once('"')?.0.to_owned();
    let version = after("version")?;
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    Some((format, version.get(..end)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_broken_by_every_flipped_bit_and_by_another_seed() {
        let text = line(7, br#""n":1,"changes":[{"a":"b"}]"#);
        assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
        assert!(open(LINE, 7, &text).is_some());
        assert!(open(LINE, 8, &text).is_none());
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(LINE, 7, &damaged).is_none(), "bit {bit}");
        }
        for length in 0..text.len() {
            assert!(open(LINE, 7, &text[..length]).is_none(), "length {length}");
        }
    }

    #[test]
    fn a_text_says_which_version_it_is_of() {
        assert_eq!(claimed(br#"{"crc":"x","format":"a/b","version":12,"#), Some(("a/b".to_owned(), 12)));
        assert_eq!(claimed(b"{\n  \"format\": \"a\",\n  \"version\": 3\n}"), Some(("a".to_owned(), 3)));
        for text in [&b""[..], b"\xff\xfe", br#""format":"a""#, br#""format":"a","version":-1"#, br#""version":1"#] {
            assert_eq!(claimed(text), None);
        }
    }
}
