//! Which topics a subscriber wants.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::value::Text;
use crate::bus::topic::{Topic, write_escaped};

/// One segment of a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This segment and no other; compared byte for byte.
    Literal(Text),
    /// Any segment, written `*`; in last place any number of segments from one on.
    Any,
}

impl Segment {
    /// A segment that stands for itself, whatever it contains.
    pub fn literal(text: impl Into<Text>) -> Self {
        Self::Literal(text.into())
    }
}

/// Literals and wildcards that a topic's segments are compared with.
///
/// `*` matches exactly one segment, and in last place one or more. In text, segments are separated by `.`, and
/// a backslash before `.`, `*` or itself makes it part of a segment.
///
/// ```
/// use ractor_persistence::bus::{Pattern, Topic};
/// let deletions = Pattern::parse("bucket.*.deleted")?;
/// assert!(deletions.matches(&Topic::bucket("user.names", "deleted")));
/// assert!(!deletions.matches(&Topic::bucket("users", "inserted")));
/// assert!(Pattern::parse(r"bucket.user\.names.*")?.matches(&Topic::bucket("user.names", "inserted")));
/// # Ok::<_, ractor_persistence::base::error::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Arc<[Segment]>);

impl Pattern {
    /// A pattern of these segments.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no segment, or an empty literal.
    pub fn new(segments: impl IntoIterator<Item = Segment>) -> Result<Self> {
        let segments: Arc<[Segment]> = segments.into_iter().collect();
        if segments.is_empty() {
            return Err(Error::invalid_argument("a pattern needs a segment"));
        }
        if segments.iter().any(|segment| matches!(segment, Segment::Literal(text) if text.is_empty())) {
            return Err(Error::invalid_argument("a pattern cannot have an empty segment"));
        }
        Ok(Self(segments))
    }

    /// Reads a pattern from text.
    ///
    /// # Errors
    /// `InvalidArgument` if a segment is empty, a `*` that is not escaped shares its segment with other characters, or
    /// a backslash stands before anything but `.`, `*` and `\`.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = |fault: &str| Error::invalid_argument(format!("pattern {text:?}: {fault}"));
        let mut segments = Vec::new();
        // The segment being read; `stars` counts the stars in it that are not escaped.
        let (mut segment, mut stars) = (String::new(), 0_usize);
        let mut finish = |segment: String, stars: usize| {
            match (segment.is_empty(), stars) {
                (true, 0) => return Err(refused("a segment is empty")),
                (true, 1) => segments.push(Segment::Any),
                (false, 0) => segments.push(Segment::Literal(Text::from(segment))),
                _ => return Err(refused(r"`*` stands for whole segments: write `\*` for a star in a name")),
            }
            Ok(())
        };
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '.' => finish(std::mem::take(&mut segment), std::mem::take(&mut stars))?,
                '*' => stars += 1,
                '\\' => match characters.next() {
                    Some(escaped @ ('.' | '*' | '\\')) => segment.push(escaped),
                    _ => return Err(refused(r"a backslash stands only before `.`, `*` and `\`")),
                },
                _ => segment.push(character),
            }
        }
        finish(segment, stars)?;
        Ok(Self(segments.into()))
    }

    /// The segments, in order; there is at least one.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether a topic is one of those wanted.
    pub fn matches(&self, topic: &Topic) -> bool {
        let topic = topic.as_slice();
        let open = matches!(self.0.last(), Some(Segment::Any));
        let long_enough = if open { topic.len() >= self.0.len() } else { topic.len() == self.0.len() };
        long_enough
            && self.0.iter().zip(topic).all(|(wanted, segment)| match wanted {
                Segment::Literal(text) => text == segment,
                Segment::Any => true,
            })
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// The pattern that matches this topic alone.
impl Pattern {
    /// All events of one channel.
    pub fn channel(id: &str) -> Self {
        Self(Arc::from([Segment::literal("channel"), Segment::literal(id), Segment::Any]))
    }
}

impl From<&Topic> for Pattern {
    fn from(topic: &Topic) -> Self {
        Self(topic.as_slice().iter().cloned().map(Segment::Literal).collect())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_char('.')?;
            }
            match segment {
                Segment::Literal(text) => write_escaped(f, text)?,
                Segment::Any => f.write_char('*')?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(&topic.parse().unwrap())
    }

    #[test]
    fn bk_33_each_row_of_the_pattern_table_matches_and_misses_as_listed() {
        let all: &[&str] = &[
            "bucket.users.inserted",
            "bucket.users.updated",
            "bucket.users.deleted",
            "bucket.users.cleared",
            r"bucket.a\.b.inserted",
            "bucket.a:b.inserted",
            "bucket.a/b.inserted",
            r"bucket.\*.inserted",
            "bucket.😀.inserted",
            "bucket.Users.inserted",
            "bucket.orders.deleted",
            "channel.a.sent",
            "persistence.users.saved",
            "user",
            "user.created",
            "user.profile.updated",
            "order.created",
            "user.123.email",
            "user.email",
            "user.1.2.email",
        ];
        let buckets = &all[..11];
        let users = &all[..4];
        let rows: &[(&str, &[&str])] = &[
            ("*", all),
            ("bucket.*.*", buckets),
            ("bucket.*", buckets),
            ("bucket.users.*", users),
            ("bucket.*.deleted", &["bucket.users.deleted", "bucket.orders.deleted"]),
            ("user.*", &["user.created", "user.profile.updated", "user.123.email", "user.email", "user.1.2.email"]),
            ("user.*.email", &["user.123.email"]),
        ];
        for (pattern, hits) in rows {
            for topic in all {
                assert_eq!(matches(pattern, topic), hits.contains(topic), "{pattern} and {topic}");
            }
        }
    }

    #[test]
    fn a_name_is_one_segment_whatever_it_contains() {
        let names = ["a.b", "a:b", "a/b", "*", "A", "a", "😀", r"\", ".", "..", r"\*", r"a\.b"];
        for name in names {
            let topic = Topic::bucket(name, "inserted");
            let own = Pattern::new([Segment::literal("bucket"), Segment::literal(name), Segment::Any]).unwrap();
            assert!(Pattern::parse("bucket.*.*").unwrap().matches(&topic), "{name}");
            assert!(Pattern::parse("bucket.*.inserted").unwrap().matches(&topic), "{name}");
            for other in names {
                assert_eq!(own.matches(&Topic::bucket(other, "inserted")), name == other, "{name} and {other}");
            }
            assert_eq!(Pattern::parse(&own.to_string()).unwrap(), own, "{own}");
        }
    }

    #[test]
    fn a_star_before_the_last_place_is_one_segment_exactly() {
        assert!(matches("*.b", "a.b"));
        assert!(!matches("*.b", "b"));
        assert!(!matches("*.b", "a.a.b"));
        assert!(!matches("a.b", "a.b.c"), "a literal in last place is the end");
    }

    #[test]
    fn faulty_texts_are_refused() {
        for text in ["", ".", "a.", ".a", "a..b", "a*", "*a", "**", r"a\", r"\a", r"a.\n", r"*\*", "bucket.us*.x"] {
            assert!(matches!(Pattern::parse(text), Err(Error::InvalidArgument { .. })), "{text}");
        }
        assert!(matches!(Pattern::new([]), Err(Error::InvalidArgument { .. })));
        assert!(matches!(Pattern::new([Segment::literal("")]), Err(Error::InvalidArgument { .. })));
    }

    #[test]
    fn a_topic_as_a_pattern_matches_itself_alone() {
        let topic = Topic::bucket("*", "inserted");
        assert!(Pattern::from(&topic).matches(&topic));
        assert!(!Pattern::from(&topic).matches(&Topic::bucket("a", "inserted")));
    }
}
