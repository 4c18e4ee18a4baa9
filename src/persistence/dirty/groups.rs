//! Which subjects are saved together, because their changes belong together.

use std::time::Duration;

use hashbrown::HashMap;

use crate::base::name::Subject;
use crate::persistence::dirty::retry::Retry;
use crate::persistence::dirty::set::DirtySet;
use crate::persistence::dirty::subject::Entry;

impl<W> DirtySet<W> {
    /// Subjects have changed, each to its revision, and these changes belong together: until all of them are saved, the
    /// subjects are committed together or not at all. Answers whether the shell has to be woken. O(subjects known).
    ///
    /// Both at once: a subject that is not known to be unsaved would be left out of the next commit, or lose its group
    /// when one ends.
    pub(crate) fn join(&mut self, changes: &[(&Subject, u64)], now: impl Fn() -> Duration) -> bool {
        let mut wake = false;
        for (subject, revision) in changes {
            wake |= self.changed(subject, *revision, 0, &now);
        }
        self.groups += 1;
        let group = Some(self.groups);
        let joined = |subject: &Subject| changes.iter().any(|(other, _)| *other == subject);
        let known: Vec<u64> = changes.iter().filter_map(|(subject, _)| self.entries.get(*subject)?.group).collect();
        let members = |subject: &Subject, entry: &Entry| {
            joined(subject) || entry.group.is_some_and(|group| known.contains(&group))
        };
        // Whoever joins one that is tried alone is tried with it.
        let alone = self.entries.iter().filter(|(subject, entry)| members(subject, entry));
        let alone = alone.filter_map(|(_, entry)| entry.isolated).max_by_key(|retry| (retry.attempt, retry.at));
        for (subject, entry) in &mut self.entries {
            if members(subject, entry) {
                entry.group = group;
                entry.isolated = alone;
            }
        }
        wake
    }

    /// These subjects and all unsaved ones that are committed with any of them.
    pub(super) fn whole(&self, mut subjects: Vec<Subject>) -> Vec<Subject> {
        let groups: Vec<u64> = subjects.iter().filter_map(|subject| self.entries.get(subject)?.group).collect();
        if !groups.is_empty() {
            let members = self
                .entries
                .iter()
                .filter(|(_, entry)| entry.group.is_some_and(|group| groups.contains(&group)) && entry.is_unsaved());
            subjects.extend(members.map(|(subject, _)| subject.clone()));
            subjects.sort_unstable();
            subjects.dedup();
        }
        subjects
    }

    /// Splits subjects into what can be committed apart, each with all that it is committed with.
    pub(super) fn split(&self, subjects: Vec<Subject>) -> Vec<Vec<Subject>> {
        let mut pieces: Vec<Vec<Subject>> = Vec::new();
        for subject in subjects {
            if !pieces.iter().any(|piece| piece.contains(&subject)) {
                pieces.push(self.whole(vec![subject]));
            }
        }
        pieces
    }

    /// Subjects that have nothing unsaved belong to no group any more, and have nothing to be tried alone for, even where
    /// the commit of another one has saved them. Those that do are tried alone if any of theirs is: one that was in flight
    /// when it joined has only saved what it had before.
    pub(super) fn part(&mut self) {
        let mut alone: HashMap<u64, Retry> = HashMap::new();
        for entry in self.entries.values_mut() {
            if !entry.is_unsaved() {
                (entry.group, entry.isolated) = (None, None);
            }
            if let (Some(group), Some(retry)) = (entry.group, entry.isolated) {
                alone.insert(group, retry);
            }
        }
        for entry in self.entries.values_mut() {
            if let Some(retry) = entry.group.and_then(|group| alone.get(&group)) {
                entry.isolated = Some(*retry);
            }
        }
    }
}
