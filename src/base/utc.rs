//! Moments as people read them: UTC dates and times of day.

use std::fmt;

/// A moment, in milliseconds since the Unix epoch, that shows itself as `2026-01-31T12:00:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Utc(pub(crate) i64);

struct Parts {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    milli: i64,
}

impl Utc {
    /// Days to a date by Howard Hinnant's `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>):
    /// years count from March, in eras of 400 years, which have 146,097 days.
    fn parts(self) -> Parts {
        let (days, millis) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Parts {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: millis / 3_600_000,
            minute: millis / 60_000 % 60,
            second: millis / 1_000 % 60,
            milli: millis % 1_000,
        }
    }

    /// The moment to the second, in a form that any file system takes in a name: `20260131T120000Z`.
    #[cfg(any(feature = "json-file", test))]
    pub(crate) fn in_file_name(self) -> String {
        let Parts { year, month, day, hour, minute, second, .. } = self.parts();
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { year, month, day, hour, minute, second, milli } = self.parts();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_769_860_799_999, "2026-01-31T11:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (-2_203_891_200_000, "1900-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Utc(ms).to_string(), text);
        }
        assert_eq!(Utc(1_769_860_800_000).in_file_name(), "20260131T120000Z");
        // The ends of the range are far beyond any calendar, and still no panic.
        let _ = (Utc(i64::MIN).to_string(), Utc(i64::MAX).to_string());
    }
}
