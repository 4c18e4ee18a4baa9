//! ISO 8601 dates, checked as they are written.

/// Whether the text is `YYYY-MM-DD`, then optionally `Thh:mm:ss`, a fraction, and `Z` or `±hh:mm`, with parts that a
/// calendar and a clock have.
pub(super) fn is_iso_date(text: &str) -> bool {
    parse(text.as_bytes()).is_some()
}

/// Nanoseconds since the Unix epoch of such a text; without an offset it is in UTC, and a date is its first moment. What
/// is below a nanosecond is cut off.
pub(super) fn moment(text: &str) -> Option<i128> {
    parse(text.as_bytes())
}

/// Nanoseconds since the Unix epoch of milliseconds since then.
pub(super) fn moment_of_ms(ms: i64) -> i128 {
    i128::from(ms) * 1_000_000
}

fn parse(text: &[u8]) -> Option<i128> {
    let (year, rest) = number(text, 4)?;
    let (month, rest) = number(tagged(rest, b'-')?, 2)?;
    let (day, rest) = number(tagged(rest, b'-')?, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if day < 1 || day > days {
        return None;
    }
    let day = days_since_epoch(year, month, day);
    let nanos_of = |seconds: i64| i128::from(day * 86_400 + seconds) * 1_000_000_000;
    if rest.is_empty() {
        return Some(nanos_of(0));
    }
    let (hour, rest) = number(tagged(rest, b'T')?, 2)?;
    let (minute, rest) = number(tagged(rest, b':')?, 2)?;
    let (second, mut rest) = number(tagged(rest, b':')?, 2)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut nanos = 0;
    if let Some(fraction) = tagged(rest, b'.') {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let nine = fraction.iter().take(digits).chain(std::iter::repeat(&b'0')).take(9);
        nanos = nine.fold(0, |value, digit| value * 10 + i128::from(digit - b'0'));
        rest = fraction.get(digits..)?;
    }
    let local = nanos_of(i64::from(hour * 3_600 + minute * 60 + second)) + nanos;
    match rest {
        [] | [b'Z'] => Some(local),
        [sign @ (b'+' | b'-'), offset @ ..] => {
            let (hour, rest) = number(offset, 2)?;
            let (minute, rest) = number(tagged(rest, b':')?, 2)?;
            let ahead = i128::from(hour * 3_600 + minute * 60) * 1_000_000_000;
            let moment = if *sign == b'+' { local - ahead } else { local + ahead };
            (hour <= 23 && minute <= 59 && rest.is_empty()).then_some(moment)
        }
        _ => None,
    }
}

/// Howard Hinnant's `days_from_civil` (<https://howardhinnant.github.io/date_algorithms.html>), for years from 0 on.
fn days_since_epoch(year: u32, month: u32, day: u32) -> i64 {
    let (year, month, day) = (i64::from(year), i64::from(month), i64::from(day));
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn tagged(text: &[u8], tag: u8) -> Option<&[u8]> {
    text.strip_prefix(&[tag])
}

fn number(text: &[u8], digits: usize) -> Option<(u32, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    let value = number
        .iter()
        .try_fold(0_u32, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u32::from(byte - b'0')))?;
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_moment() {
        let ms = |text: &str| moment(text).map(|nanos| nanos / 1_000_000);
        for (text, expected) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400_000),
            ("2026-01-31T11:59:59.999Z", 1_769_860_799_999),
            ("2026-01-31T11:59:59.999", 1_769_860_799_999),
            ("2024-01-15T23:30:00-05:00", 1_705_379_400_000),
            ("2024-01-16T04:30:00Z", 1_705_379_400_000),
            ("2024-01-16T09:30:00.0009+05:00", 1_705_379_400_000),
            ("1900-03-01", -2_203_891_200_000),
            ("0000-01-01", -62_167_219_200_000),
        ] {
            assert_eq!(ms(text), Some(expected), "{text}");
        }
        assert_eq!(moment("1970-01-01T00:00:00.0000000019"), Some(1));
        assert_eq!(moment_of_ms(i64::MAX), i128::from(i64::MAX) * 1_000_000);
    }

    #[test]
    fn dates_are_checked_as_written() {
        for good in [
            "2024-01-15",
            "2024-02-29",
            "2000-02-29",
            "2024-01-15T23:30:00-05:00",
            "2024-01-15T00:00:00Z",
            "2024-01-15T23:59:59.123456789",
            "2024-12-31T23:59:59.5+14:00",
        ] {
            assert!(is_iso_date(good), "{good}");
        }
        for bad in [
            "",
            "2024-02-30",
            "2023-02-29",
            "1900-02-29",
            "2024-13-01",
            "2024-00-10",
            "2024-01-00",
            "24-01-15",
            "2024-1-15",
            "2024-01-15 10:00:00",
            "2024-01-15T24:00:00",
            "2024-01-15T10:60:00",
            "2024-01-15T10:00",
            "2024-01-15T10:00:00.",
            "2024-01-15T10:00:00+5",
            "2024-01-15T10:00:00+05:60",
            "2024-01-15Z",
            "2024-01-15T10:00:00Zx",
        ] {
            assert!(!is_iso_date(bad), "{bad}");
        }
    }
}
