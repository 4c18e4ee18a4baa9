//! What a field's value has to be besides of its kind: checked when the bucket is defined, then asked of every value.

use std::fmt;

use regex::{Regex, RegexBuilder};

use crate::base::error::{Issue, IssueCode};
use crate::base::value::{MAX_KEY_BYTES, Value};
use crate::records::check::{coerce, is_too_deep};
use crate::records::date;
use crate::records::field::{Field, Kind};
use crate::records::format::Format;

/// Most bytes of a compiled pattern.
const PATTERN_BYTES: usize = 4 << 20;

/// The limits of a field that has any.
pub(super) struct Limits {
    /// The field is the key: a text of 1 to 1,024 bytes.
    key: bool,
    /// Sorted.
    one_of: Option<Box<[Value]>>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    pattern: Option<Regex>,
    format: Option<Format>,
    min: Option<Bound>,
    max: Option<Bound>,
}

/// The end of a range, itself in it.
#[derive(PartialEq, PartialOrd)]
enum Bound {
    Number(Value),
    /// Nanoseconds since the Unix epoch.
    Moment(i128),
}

impl Bound {
    fn of(kind: Kind, value: &Value) -> Option<Self> {
        match (kind, value) {
            (Kind::Date, Value::Int(ms)) => Some(Self::Moment(date::moment_of_ms(*ms))),
            (Kind::Date, Value::String(text)) => date::moment(text).map(Self::Moment),
            (Kind::Int | Kind::Float | Kind::Number, Value::Int(_)) => Some(Self::Number(value.clone())),
            (Kind::Int | Kind::Float | Kind::Number, Value::Float(number)) => {
                number.is_finite().then(|| Self::Number(value.clone()))
            }
            _ => None,
        }
    }

    /// Where a value of the field's kind lies.
    fn compare(&self, value: &Value) -> Option<std::cmp::Ordering> {
        match (self, value) {
            (Self::Number(bound), number) => Some(number.cmp(bound)),
            (Self::Moment(bound), Value::Int(ms)) => Some(date::moment_of_ms(*ms).cmp(bound)),
            (Self::Moment(bound), Value::String(text)) => Some(date::moment(text)?.cmp(bound)),
            (Self::Moment(_), _) => None,
        }
    }
}

impl Limits {
    /// The limits of a field, none if it has none. What is wrong with them is added to `problems`.
    pub(super) fn new(field: &Field, key: bool, problems: &mut Vec<String>) -> Option<Box<Self>> {
        let kind = field.kind;
        let wrong_kind = |what: &str| format!("a {} has no {what}", kind.name());
        let limits = Self {
            key: key && kind == Kind::String,
            one_of: field.one_of.as_deref().map(|members| of_members(kind, members, problems)),
            min_length: field.min_length,
            max_length: field.max_length,
            pattern: field.pattern.as_deref().and_then(|pattern| {
                let regex = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build();
                regex.map_err(|error| problems.push(format!("its pattern: {error}"))).ok()
            }),
            format: field.format,
            min: of_bound(kind, "min", field.min.as_ref(), problems),
            max: of_bound(kind, "max", field.max.as_ref(), problems),
        };
        let has_length = matches!(kind, Kind::String | Kind::Bytes | Kind::Array);
        if !has_length && (field.min_length.is_some() || field.max_length.is_some()) {
            problems.push(wrong_kind("length"));
        }
        if let (Some(min), Some(max)) = (field.min_length, field.max_length)
            && min > max
        {
            problems.push(format!("its min_length {min} is over its max_length {max}"));
        }
        if kind != Kind::String && field.pattern.is_some() {
            problems.push(wrong_kind("pattern"));
        }
        if kind != Kind::String && field.format.is_some() {
            problems.push(wrong_kind("format"));
        }
        if let (Some(min), Some(max)) = (&limits.min, &limits.max)
            && min > max
        {
            problems.push("its min is over its max".to_owned());
        }
        let any = limits.key
            || limits.one_of.is_some()
            || limits.min_length.is_some()
            || limits.max_length.is_some()
            || limits.pattern.is_some()
            || limits.format.is_some()
            || limits.min.is_some()
            || limits.max.is_some();
        any.then(|| Box::new(limits))
    }

    /// Every limit that a value of the field's kind breaks, in the order of the specification.
    pub(super) fn check(&self, name: &str, value: &Value, issues: &mut Vec<Issue>) {
        let mut found = |code, message: String| issues.push(Issue::new(name, code, message));
        if let Some(members) = &self.one_of
            && members.binary_search(value).is_err()
        {
            found(IssueCode::Enum, format!("is none of the {} values allowed", members.len()));
        }
        let text = value.as_str();
        let bytes = text.map_or(0, str::len);
        if self.min_length.is_some() || self.max_length.is_some() || self.key {
            let length = length(value);
            let least = self.min_length.unwrap_or(0).max(usize::from(self.key));
            if length < least {
                found(IssueCode::MinLength, format!("is shorter than {least}"));
            }
            match self.max_length {
                Some(most) if length > most => found(IssueCode::MaxLength, format!("is longer than {most}")),
                _ if self.key && bytes > MAX_KEY_BYTES => {
                    found(IssueCode::MaxLength, format!("a key has at most {MAX_KEY_BYTES} bytes"));
                }
                _ => {}
            }
        }
        if let (Some(pattern), Some(text)) = (&self.pattern, text)
            && !pattern.is_match(text)
        {
            found(IssueCode::Pattern, "does not match the pattern".to_owned());
        }
        if let (Some(format), Some(text)) = (self.format, text)
            && !format.fits(text)
        {
            found(IssueCode::Format, format!("is no {}", format.name()));
        }
        if self.min.as_ref().and_then(|min| min.compare(value)).is_some_and(std::cmp::Ordering::is_lt) {
            found(IssueCode::Min, "is below the least value allowed".to_owned());
        }
        if self.max.as_ref().and_then(|max| max.compare(value)).is_some_and(std::cmp::Ordering::is_gt) {
            found(IssueCode::Max, "is above the greatest value allowed".to_owned());
        }
    }
}

/// Unicode scalar values of a string, octets of bytes, items of an array.
fn length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    }
}

/// The members in the kind of the field, sorted. Null among them allows nothing more: it passes where it is optional.
fn of_members(kind: Kind, members: &[Value], problems: &mut Vec<String>) -> Box<[Value]> {
    if members.is_empty() {
        problems.push("its one_of has no member".to_owned());
    }
    let mut fitting = Vec::with_capacity(members.len());
    for (index, member) in members.iter().enumerate() {
        let mut member = member.clone();
        let fits = member.is_null()
            || (!is_too_deep(&member, 1) && member.settle_numbers().is_none() && coerce(kind, &mut member).is_ok());
        if !fits {
            problems.push(format!("member {index} of its one_of is no {}", kind.name()));
        }
        fitting.push(member);
    }
    fitting.sort();
    fitting.into()
}

fn of_bound(kind: Kind, which: &str, value: Option<&Value>, problems: &mut Vec<String>) -> Option<Bound> {
    let value = value?;
    if !matches!(kind, Kind::Int | Kind::Float | Kind::Number | Kind::Date) {
        problems.push(format!("a {} has no {which}", kind.name()));
        return None;
    }
    let bound = Bound::of(kind, value);
    if bound.is_none() {
        problems.push(format!("its {which} is nothing that a {} compares with", kind.name()));
    }
    bound
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}
