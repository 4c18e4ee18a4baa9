//! What an event is about.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::value::Text;
use crate::bus::pattern::{Pattern, Segment};

/// A list of segments, each of which may contain anything; a clone costs a reference count.
///
/// Its text joins the segments with `.`, and puts a backslash before each `.`, `*` and `\` inside of them, so that the
/// text reads back as the same topic, and as the pattern that matches this topic alone.
///
/// ```
/// use ractor_persistence::bus::Topic;
/// let topic = Topic::bucket("a.b", "inserted");
/// assert_eq!(topic.segments().collect::<Vec<_>>(), ["bucket", "a.b", "inserted"]);
/// assert_eq!(topic.to_string(), r"bucket.a\.b.inserted");
/// assert_eq!(topic.to_string().parse::<Topic>()?, topic);
/// # Ok::<_, ractor_persistence::base::error::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<[Text]>);

impl Topic {
    /// A topic of these segments.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no segment, or an empty one.
    pub fn new<S: Into<Text>>(segments: impl IntoIterator<Item = S>) -> Result<Self> {
        let segments: Arc<[Text]> = segments.into_iter().map(Into::into).collect();
        if segments.is_empty() {
            return Err(Error::invalid_argument("a topic needs a segment"));
        }
        if segments.iter().any(|segment| segment.is_empty()) {
            return Err(Error::invalid_argument("a topic cannot have an empty segment"));
        }
        Ok(Self(segments))
    }

    /// `bucket.<name>.<change>`; changes are `inserted`, `updated`, `deleted` and `cleared`. Neither may be empty.
    pub fn bucket(name: &str, change: &str) -> Self {
        Self::own("bucket", name, change)
    }

    /// `channel.<id>.<kind>`; kinds are `ready`, `sent`, `lost`, `missing`, `sync`, `repair` and `resend`. Neither may
    /// be empty.
    pub fn channel(id: &str, kind: &str) -> Self {
        Self::own("channel", id, kind)
    }

    /// `persistence.<name>.<outcome>`; outcomes are `saved`, `failed` and `recovered`. Neither may be empty.
    pub fn persistence(name: &str, outcome: &str) -> Self {
        Self::own("persistence", name, outcome)
    }

    fn own(room: &str, name: &str, what: &str) -> Self {
        debug_assert!(!name.is_empty() && !what.is_empty(), "checked names are not empty");
        Self(Arc::from([Text::from(room), Text::from(name), Text::from(what)]))
    }

    /// The segments, in order; there is at least one.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(Text::as_str)
    }

    pub(crate) fn as_slice(&self) -> &[Text] {
        &self.0
    }
}

/// Writes a segment so that it cannot be taken for anything else than itself.
pub(super) fn write_escaped(f: &mut fmt::Formatter<'_>, segment: &str) -> fmt::Result {
    for character in segment.chars() {
        if matches!(character, '.' | '*' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(character)?;
    }
    Ok(())
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_char('.')?;
            }
            write_escaped(f, segment)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

/// Reads what `Display` writes; fails as [`Pattern::parse`] does, and on a `*` that is not escaped.
impl FromStr for Topic {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let pattern = Pattern::parse(text)?;
        let segments: Option<Arc<[Text]>> = pattern
            .segments()
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => Some(text.clone()),
                Segment::Any => None,
            })
            .collect();
        segments.map(Self).ok_or_else(|| Error::invalid_argument(r"a topic has no wildcards: write `\*` for a star"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_topic_has_at_least_one_segment_and_no_empty_one() {
        assert!(Topic::new(["a"]).is_ok());
        assert!(matches!(Topic::new::<&str>([]), Err(Error::InvalidArgument { .. })));
        assert!(matches!(Topic::new(["a", ""]), Err(Error::InvalidArgument { .. })));
    }

    #[test]
    fn the_own_topics_name_their_room_first() {
        assert_eq!(Topic::bucket("users", "inserted").to_string(), "bucket.users.inserted");
        assert_eq!(Topic::channel("c1", "sent").to_string(), "channel.c1.sent");
        assert_eq!(Topic::persistence("users", "saved").to_string(), "persistence.users.saved");
    }

    #[test]
    fn a_wildcard_is_no_topic() {
        assert!(matches!("bucket.*.inserted".parse::<Topic>(), Err(Error::InvalidArgument { .. })));
        assert_eq!(r"bucket.\*.inserted".parse::<Topic>().unwrap(), Topic::bucket("*", "inserted"));
    }

    proptest! {
        #[test]
        fn any_topic_comes_back_from_its_text(segments in prop::collection::vec("[a.*\\\\:/😀\u{1}]{1,6}", 1..5)) {
            let topic = Topic::new(segments.iter().map(String::as_str)).unwrap();
            prop_assert_eq!(&topic.to_string().parse::<Topic>().unwrap(), &topic);
            let pattern = Pattern::parse(&topic.to_string()).unwrap();
            prop_assert!(pattern.matches(&topic));
        }

        #[test]
        fn different_topics_have_different_texts(
            one in prop::collection::vec("[a.*\\\\]{1,3}", 1..4),
            other in prop::collection::vec("[a.*\\\\]{1,3}", 1..4),
        ) {
            let (a, b) = (Topic::new(one.iter()).unwrap(), Topic::new(other.iter()).unwrap());
            prop_assert_eq!(a.to_string() == b.to_string(), one == other);
            prop_assert_eq!(Pattern::parse(&a.to_string()).unwrap().matches(&b), one == other);
        }
    }
}
