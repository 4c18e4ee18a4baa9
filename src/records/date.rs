//! ISO 8601 dates, checked as they are written.

/// Whether the text is `YYYY-MM-DD`, then optionally `Thh:mm:ss`, a fraction, and `Z` or `±hh:mm`, with parts that a
/// calendar and a clock have.
pub(super) fn is_iso_date(text: &str) -> bool {
    parse(text.as_bytes()).is_some()
}

fn parse(text: &[u8]) -> Option<()> {
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
    if rest.is_empty() {
        return Some(());
    }
    let (hour, rest) = number(tagged(rest, b'T')?, 2)?;
    let (minute, rest) = number(tagged(rest, b':')?, 2)?;
    let (second, mut rest) = number(tagged(rest, b':')?, 2)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    if let Some(fraction) = tagged(rest, b'.') {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        rest = fraction.get(digits..)?;
    }
    match rest {
        [] | [b'Z'] => Some(()),
        [b'+' | b'-', offset @ ..] => {
            let (hour, rest) = number(offset, 2)?;
            let (minute, rest) = number(tagged(rest, b':')?, 2)?;
            (hour <= 23 && minute <= 59 && rest.is_empty()).then_some(())
        }
        _ => None,
    }
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
