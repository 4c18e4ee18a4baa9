//! Formats of strings.

use crate::records::date::is_iso_date;

/// A format that a string field can ask for.
///
/// ```
/// use ractor_persistence::records::Format;
/// assert!(Format::Email.fits("ada@example.com") && !Format::Email.fits("a@b..c"));
/// assert!(Format::Url.fits("https://example.com/?q=1") && !Format::Url.fits("mailto:ada@example.com"));
/// assert!(Format::IsoDate.fits("2024-01-15T23:30:00-05:00") && !Format::IsoDate.fits("2024-02-30"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// One `@`, something before it, two or more labels with something in them after it, no blanks, at most 254 bytes.
    Email,
    /// Absolute, with a scheme, `://` and a host, without blanks around it.
    Url,
    /// `YYYY-MM-DD`, then optionally `Thh:mm:ss`, a fraction, and `Z` or `±hh:mm`, with parts that a calendar and a
    /// clock have, as they are written.
    IsoDate,
}

impl Format {
    /// Whether a text has the format.
    pub fn fits(self, text: &str) -> bool {
        match self {
            Self::Email => is_email(text),
            Self::Url => is_url(text).is_some(),
            Self::IsoDate => is_iso_date(text),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Email => "e-mail address",
            Self::Url => "absolute URL",
            Self::IsoDate => "ISO 8601 date",
        }
    }
}

fn is_email(text: &str) -> bool {
    if text.len() > 254 || text.contains(char::is_whitespace) {
        return false;
    }
    let Some((local, domain)) = text.split_once('@') else { return false };
    let labels = domain.split('.');
    !local.is_empty()
        && !domain.contains('@')
        && domain.contains('.')
        && labels.into_iter().all(|label| !label.is_empty())
}

fn is_url(text: &str) -> Option<()> {
    if text.trim() != text {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    let scheme_fits = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit_once('@').map_or(authority, |(_user, place)| place);
    // A colon within brackets is an IPv6 address's.
    let (host, port) = match place.strip_prefix('[') {
        Some(bracketed) => {
            let (address, rest) = bracketed.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port_fits = port.is_none_or(|port| port.is_empty() || (digits(port) && port.parse::<u16>().is_ok()));
    let host_fits =
        !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || "<>[]\\^|".contains(c));
    (scheme_fits && host_fits && port_fits).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(format: Format, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(format.fits(text), "{text}");
        }
        for text in bad {
            assert!(!format.fits(text), "{text}");
        }
    }

    #[test]
    fn an_email_has_one_at_and_two_labels() {
        let long = format!("{}@example.com", "x".repeat(254 - 12));
        check(
            Format::Email,
            &["a@b.c", "ada.l+x@sub.example.com", "é@ü.de", &long],
            &[
                "",
                "a",
                "@b.c",
                "a@",
                "a@b",
                "a@b..c",
                "a@.b",
                "a@b.",
                "a@@b.c",
                "a@b@c.d",
                "a b@c.d",
                "a@b.c ",
                "a\n@b.c",
                &format!("x{long}"),
            ],
        );
    }

    #[test]
    fn a_url_is_absolute_and_has_a_host() {
        check(
            Format::Url,
            &[
                "http://a",
                "https://example.com",
                "https://user:pass@example.com:8080/a b?q=1#f",
                "ftp://[::1]:21/",
                "git+ssh://host/path",
                "http://münchen.de?x",
                "postgres://h:/db",
            ],
            &[
                "",
                "javascript:x",
                "mailto:x",
                "example.com",
                "//example.com",
                "://example.com",
                "http://",
                "http:///path",
                "http://:80",
                "http://user@",
                "http://?q",
                "http:/example.com",
                "1http://a",
                "ht tp://a",
                " http://a",
                "http://a\n",
                "http://a b/",
                "http://a:x/",
                "http://a:65536/",
                "http://a:+1/",
                "http://[::1",
                "http://[::1]x",
                "http://[hello]/",
            ],
        );
    }
}
