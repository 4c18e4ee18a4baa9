//! A commit, taken apart by subjects: each is written on its own, as a whole.

use std::collections::BTreeMap;

use crate::adapters::json_file::error::Refused;
use crate::adapters::json_file::state::{BucketLine, BucketState, ChannelLine, ChannelState, HintText, State};
use crate::base::name::Subject;
use crate::persistence::Save;
use crate::records::BucketChange;

/// What a commit does to one subject.
pub(super) enum Work<'a, S: State> {
    /// One journal line.
    Append(Vec<S::Line<'a>>),
    /// Everything that is stored goes and this takes its place: one checkpoint.
    Replace(S),
    /// Everything that is stored goes.
    Drop,
}

/// The saves of each subject, in the order in which the subjects first occur.
pub(super) fn by_subject(saves: &[Save]) -> Vec<(Subject, Vec<&Save>)> {
    let mut groups: Vec<(Subject, Vec<&Save>)> = Vec::new();
    let mut places: BTreeMap<Subject, usize> = BTreeMap::new();
    for save in saves {
        let subject = match save {
            Save::Bucket(name, _) | Save::DropBucket(name) => Subject::Bucket(name.clone()),
            Save::ChannelMeta(id, _) | Save::History(id, _) | Save::Hint(id, ..) | Save::DropChannel(id) => {
                Subject::Channel(id.clone())
            }
        };
        let place = *places.entry(subject).or_insert_with_key(|subject| {
            groups.push((subject.clone(), Vec::new()));
            groups.len() - 1
        });
        if let Some((_, group)) = groups.get_mut(place) {
            group.push(save);
        }
    }
    groups
}

impl<'a, S: State> Work<'a, S> {
    fn push(self, line: S::Line<'a>) -> Result<Self, Refused> {
        S::check(line)?;
        Ok(match self {
            Self::Append(mut lines) => {
                lines.push(line);
                Self::Append(lines)
            }
            Self::Replace(mut state) => {
                state.apply(line);
                Self::Replace(state)
            }
            Self::Drop => {
                let mut state = S::default();
                state.apply(line);
                Self::Replace(state)
            }
        })
    }
}

/// What the saves of one bucket add up to.
pub(super) fn bucket<'a>(saves: &[&'a Save]) -> Result<Work<'a, BucketState>, Refused> {
    let mut work = Work::Append(Vec::new());
    for save in saves {
        work = match save {
            Save::Bucket(_, change) => match change.as_ref() {
                BucketChange::Delta(delta) => work.push(BucketLine(delta))?,
                BucketChange::Full(snapshot) => {
                    let mut state = BucketState::default();
                    state.replace(snapshot)?;
                    Work::Replace(state)
                }
            },
            Save::DropBucket(_) => Work::Drop,
            // `by_subject` puts these elsewhere.
            Save::ChannelMeta(..) | Save::History(..) | Save::Hint(..) | Save::DropChannel(_) => work,
        };
    }
    Ok(work)
}

/// What the saves of one channel add up to.
pub(super) fn channel<'a>(saves: &[&'a Save]) -> Result<Work<'a, ChannelState>, Refused> {
    let mut work = Work::Append(Vec::new());
    for save in saves {
        work = match save {
            Save::ChannelMeta(_, meta) => work.push(ChannelLine::Meta(meta))?,
            Save::History(_, update) if update.is_empty() => work,
            Save::History(_, update) => work.push(ChannelLine::History(update))?,
            Save::Hint(_, message, hint) => work.push(ChannelLine::Hint(HintText { message, hint }))?,
            Save::DropChannel(_) => Work::Drop,
            // `by_subject` puts these elsewhere.
            Save::Bucket(..) | Save::DropBucket(_) => work,
        };
    }
    Ok(work)
}
