//! How long records live, as people write it.

use std::time::Duration;

/// How long a record lives: a [`Duration`], or text: digits, optionally a point and more digits, optionally blanks, and
/// one of `s`, `m`, `h` and `d`. `"1.5h"` is 5,400,000 ms, `"30 m"` is 1,800,000 ms. What is left below a millisecond is
/// cut off, and at least one must remain; the text is read when the bucket is defined.
///
/// ```
/// use std::time::Duration;
/// use ractor_persistence::records::{BucketDefinition, Field, Schema};
/// let cache = BucketDefinition::new("cache").key("key").field("key", Field::string());
/// assert_eq!(Schema::new(cache.clone().ttl("1.5h"))?.ttl_ms(), Some(5_400_000));
/// assert_eq!(Schema::new(cache.clone().ttl(Duration::from_secs(10)))?.ttl_ms(), Some(10_000));
/// assert!(Schema::new(cache.ttl("10x")).is_err());
/// # Ok::<(), ractor_persistence::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ttl(Given);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    Duration(Duration),
    Text(String),
}

impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self(Given::Duration(duration))
    }
}

impl From<&str> for Ttl {
    fn from(text: &str) -> Self {
        Self(Given::Text(text.to_owned()))
    }
}

impl From<String> for Ttl {
    fn from(text: String) -> Self {
        Self(Given::Text(text))
    }
}

impl Ttl {
    /// In milliseconds, at least 1, or what is wrong with it.
    pub(super) fn ms(&self) -> Result<i64, String> {
        let ms = match &self.0 {
            Given::Duration(duration) => i64::try_from(duration.as_millis()).ok(),
            Given::Text(text) => Some(parse(text).ok_or_else(|| {
                format!("the ttl {text:?} is no digits, optionally with a fraction, and one of s, m, h and d")
            })?),
        };
        match ms {
            Some(0) => Err("the ttl is less than a millisecond".to_owned()),
            Some(ms) if ms < i64::MAX => Ok(ms),
            _ => Err("the ttl is longer than 64 bits of milliseconds".to_owned()),
        }
    }
}

/// Milliseconds of a text; more than 64 bits of them are `i64::MAX`.
fn parse(text: &str) -> Option<i64> {
    let unit: i128 = match text.bytes().next_back()? {
        b's' => 1_000,
        b'm' => 60_000,
        b'h' => 3_600_000,
        b'd' => 86_400_000,
        _ => return None,
    };
    let number = text.get(..text.len() - 1)?.trim_end_matches([' ', '\t']);
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !fraction.is_none_or(is_number) {
        return None;
    }
    let add = |value: i128, byte: u8| value.saturating_mul(10).saturating_add(i128::from(byte - b'0'));
    let whole = whole.bytes().fold(0, add).min(i128::from(i64::MAX));
    // A digit beyond the eighteenth is less than a millionth of a nanosecond, even of days.
    let (mut part, mut scale) = (0, 1);
    for byte in fraction.unwrap_or_default().bytes().take(18) {
        (part, scale) = (add(part, byte), scale * 10);
    }
    let ms = whole * unit + part * unit / scale;
    Some(i64::try_from(ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_read_exactly_or_refused() {
        for (text, ms) in [
            ("1.5h", 5_400_000),
            ("30 m", 1_800_000),
            ("30 \t m", 1_800_000),
            ("10s", 10_000),
            ("10m", 600_000),
            ("1d", 86_400_000),
            ("007s", 7_000),
            ("0.001s", 1),
            ("0.0019s", 1),
            ("1.10s", 1_100),
            ("0.333333333333333333333333333333333333333333d", 28_799_999),
        ] {
            assert_eq!(Ttl::from(text).ms(), Ok(ms), "{text}");
        }
        for text in [
            "",
            "1000",
            "h",
            "10x",
            "-5m",
            "+5m",
            "0s",
            "0.0009s",
            "0.0d",
            "1H",
            "1.h",
            ".5h",
            "1..5h",
            "1.5.5h",
            " 1h",
            "1h ",
            "1 0s",
            "1e3s",
            "١s",
            "1sm",
            "m1s",
            "1ß",
            "99999999999999999999999999999999999999999999999999d",
            "106751991168d",
        ] {
            assert!(Ttl::from(text).ms().is_err(), "{text}");
        }
        assert_eq!(Ttl::from(Duration::from_millis(1)).ms(), Ok(1));
        assert!(Ttl::from(Duration::from_micros(999)).ms().is_err());
        assert!(Ttl::from(Duration::MAX).ms().is_err());
    }
}
