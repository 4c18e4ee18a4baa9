//! How errors become a line of text: with all that stands behind them, and without what would break the line.

use std::fmt::{self, Write};

use crate::base::error::facts::Misfit;
use crate::base::name::RESERVED;

/// An error and what stands behind it, outermost first, each after a colon. What has been said is not said again.
pub(super) struct Report<'a>(pub(super) &'a (dyn std::error::Error + 'static));

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Plain(self.0).to_string();
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = Plain(error).to_string();
            if !said.contains(&text) {
                write!(said, ": {text}")?;
            }
            next = error.source();
        }
        f.write_str(&said)
    }
}

/// Text from elsewhere as it may be shown: control characters are escaped, and what keeps reserved names apart is left out.
pub(crate) struct Plain<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Plain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(char::is_control) {
            match piece.char_indices().next_back() {
                Some((at, control)) if control.is_control() => {
                    self.0.write_str(&piece[..at])?;
                    if control != RESERVED {
                        write!(self.0, "{}", control.escape_debug())?;
                    }
                }
                _ => self.0.write_str(piece)?,
            }
        }
        Ok(())
    }
}

/// All of them, in one line.
pub(super) struct Listed<'a, T>(pub(super) &'a [T]);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{}", Plain(item))?;
        }
        Ok(())
    }
}

/// Each reason once, in the order in which they come first, with how many there are of it; and how many are not listed.
pub(super) struct Counted<'a>(pub(super) &'a [Misfit], pub(super) usize);

impl fmt::Display for Counted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(misfits, total) = self;
        let mut reasons: Vec<(&str, usize)> = Vec::new();
        for misfit in *misfits {
            match reasons.iter_mut().find(|(reason, _)| *reason == misfit.reason) {
                Some((_, count)) => *count += 1,
                None => reasons.push((&misfit.reason, 1)),
            }
        }
        for (index, (reason, count)) in reasons.into_iter().enumerate() {
            f.write_str(if index > 0 { "; " } else { "" })?;
            write!(f, "{}", Plain(reason))?;
            if count > 1 {
                write!(f, " ({count} of them)")?;
            }
        }
        match total.saturating_sub(misfits.len()) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::base::disk::DiskError;
    use crate::base::error::{Error, Failure, Issue, IssueCode, Place};
    use crate::base::name::{BucketName, Subject};

    fn full_disk() -> Error {
        DiskError::new("write", Path::new("/data/shop.redb"), io::Error::other("No space left on device"))
            .into_error("commit")
    }

    #[test]
    fn a_report_is_the_error_and_all_that_stands_behind_it() {
        let error = Error::NotSaved { revision: 7, source: Arc::new(full_disk()) };
        assert_eq!(
            error.report().to_string(),
            "the change is in memory as revision 7, but not saved yet: transient failure of commit: \
             cannot write /data/shop.redb: No space left on device"
        );
        assert_eq!(Error::Stopping.report().to_string(), "the store is stopping");
    }

    /// A cause whose text the one above it has, as those of many libraries do.
    #[derive(Debug, thiserror::Error)]
    #[error("I/O error: {0}")]
    struct Wrapping(#[source] io::Error);

    #[test]
    fn a_report_says_nothing_twice() {
        let error = Error::transient("commit", Wrapping(io::Error::other("No space left on device")));
        assert_eq!(error.report().to_string(), "transient failure of commit: I/O error: No space left on device");
        let error = Error::transient("commit", io::Error::other(""));
        assert_eq!(error.report().to_string(), "transient failure of commit");
    }

    #[test]
    fn a_failure_is_shown_as_a_report() {
        let subject = Subject::Bucket(BucketName::new("parcels").unwrap());
        let failure = Failure::new(Some(subject), "save", full_disk(), 2);
        assert_eq!(
            failure.to_string(),
            "save of bucket parcels failed (attempt 2): transient failure of commit: cannot write /data/shop.redb: \
             No space left on device"
        );
    }

    #[test]
    fn what_is_shown_has_no_control_characters() {
        let bad = || "a\u{1}b\nc\u{1b}[0m\u{7f}\u{85}".to_owned();
        let reserved = || BucketName::reserved("durable value d");
        let bucket = || BucketName::new("b").unwrap();
        let place = || Place::new(bad()).at(bad());
        let issue = || Issue::new(bad(), IssueCode::Type, bad());
        let errors = [
            Error::Validation { bucket: bucket(), index: None, issues: vec![issue()] },
            Error::InvalidValue { path: bad(), reason: bad() },
            Error::UniqueViolation { bucket: bucket(), index: bad(), values: Vec::new(), holder: 1.into() },
            Error::Conflict { bucket: reserved(), key: None },
            Error::Superseded { name: bad(), activation: 1, current: 2 },
            Error::InvalidArgument { reason: bad() },
            Error::InvalidName { kind: "bucket", name: bad(), fault: "is bad" },
            Error::InvalidDefinition { bucket: bad(), problems: vec![bad()] },
            Error::InvalidOptions { problems: vec![bad()] },
            Error::Decode { bucket: Some(reserved()), key: 1.into(), source: Arc::new(io::Error::other(bad())) },
            Error::QueryAlreadyDefined { name: bad() },
            Error::QueryNotDefined { name: bad() },
            Error::BucketNotDefined { bucket: reserved() },
            Error::unsupported(bad()),
            Error::Migration {
                bucket: reserved(),
                from: 1,
                to: 2,
                records: vec![Misfit::new(1.into(), bad())],
                total: 1,
            },
            Error::SchemaTooNew { bucket: reserved(), stored: 2, defined: 1 },
            Error::UnknownFormat { format: bad(), at: place(), found: 2, known: 1 },
            Error::GivenUp {
                subject: Subject::Bucket(reserved()),
                restarts: 1,
                within: std::time::Duration::from_secs(1),
            },
            Error::transient(bad(), io::Error::other(bad())),
            Error::permanent(bad(), DiskError::new("write", Path::new(&bad()), io::Error::other(bad()))),
            Error::unknown(bad(), Wrapping(io::Error::other(bad()))),
            Error::corrupt(place(), bad()),
            Error::Locked { path: bad().into(), holder: Some(bad()) },
            Error::UnknownChannel { id: bad() },
            Error::ChannelExists { id: bad() },
        ];
        for error in errors {
            let failure = Failure::new(Some(Subject::Bucket(reserved())), "save", error.clone(), 1);
            for shown in [error.to_string(), error.report().to_string(), failure.to_string()] {
                assert!(!shown.contains(char::is_control), "{shown:?}");
            }
        }
        assert_eq!(place().to_string(), r"ab\nc\u{1b}[0m\u{7f}\u{85}, ab\nc\u{1b}[0m\u{7f}\u{85}");
    }

    #[test]
    fn what_the_crate_keeps_for_itself_is_shown_as_what_it_is() {
        let of = |name: &str| Error::Conflict { bucket: BucketName::reserved(name), key: None };
        assert_eq!(of("durable value d").to_string(), "durable value d: what was read has changed meanwhile");
        assert_eq!(format!("{:?}", of("durable value d")), "Conflict { bucket: durable value d, .. }");
        let damage = Error::corrupt(Place::new("rows/1/d/\u{1}durable values"), "torn");
        assert_eq!(damage.to_string(), "corrupt data at rows/1/d/durable values: torn");
        assert_eq!(Subject::Bucket(BucketName::reserved("durable values")).to_string(), "durable values");
    }

    #[test]
    fn each_reason_for_which_records_do_not_fit_is_said_once() {
        let misfits = |reasons: &[&str]| -> Vec<Misfit> {
            reasons.iter().zip(0..).map(|(reason, key): (_, i64)| Misfit::new(key.into(), *reason)).collect()
        };
        let counted = |reasons: &[&str], total| Counted(&misfits(reasons), total).to_string();
        assert_eq!(counted(&["a"], 1), "a");
        assert_eq!(counted(&["a", "b", "a"], 3), "a (2 of them); b");
        assert_eq!(counted(&["a", "b"], 5), "a; b; and 3 more");
    }
}
