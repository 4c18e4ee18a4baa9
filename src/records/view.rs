//! A bucket as it was at one revision, and the answers to queries over it.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use imbl::OrdMap;

use crate::base::error::{Error, Result};
use crate::base::value::Key;
use crate::records::cursor::Position;
use crate::records::filter::{Filter, Node};
use crate::records::index::{Index, Postings, Values};
use crate::records::matcher::Matcher;
use crate::records::path::Lookup;
use crate::records::place::Place;
use crate::records::plan::{Found, Part, Walk, Way, fixed};
use crate::records::query::{Direction, Explain, Origin, Page, Paged, Query};
use crate::records::record::Record;
use crate::records::schema::Schema;
use crate::records::span::{Cut, NULL, Refs};
use crate::records::table::Expiry;

/// A bucket as it was at one revision: immutable, cheap to make and to clone, and independent of the bucket from then on.
/// Records that have expired by its `now` are absent from every answer.
#[derive(Debug)]
pub struct View {
    pub(super) schema: Arc<Schema>,
    /// All records in bucket order, expired ones included.
    pub(super) order: OrdMap<Place, Arc<Record>>,
    /// One per index of the schema.
    pub(super) indexes: Box<[Index]>,
    /// The records that expire ever, by when.
    pub(super) expiry: Expiry,
    pub(super) revision: u64,
    pub(super) now: i64,
    /// The records of the keys that the filter to be answered names, sorted by key; none where they were not looked up.
    pub(super) keyed: Option<Vec<Arc<Record>>>,
    /// Whether nothing but these can match.
    only_keyed: bool,
    /// How many entries the answers so far have examined.
    pub(super) examined: AtomicU64,
}

impl View {
    /// A view of a bucket's parts.
    pub(super) fn new(
        schema: Arc<Schema>,
        order: OrdMap<Place, Arc<Record>>,
        indexes: Box<[Index]>,
        expiry: Expiry,
        revision: u64,
        now: i64,
    ) -> Self {
        Self {
            schema,
            order,
            indexes,
            expiry,
            revision,
            now,
            keyed: None,
            only_keyed: false,
            examined: AtomicU64::new(0),
        }
    }

    /// Gives the view the records of exactly those keys that [`Filter::keys`] names, as far as they exist; from then on
    /// it answers only about that filter. Needed where the bucket is not ordered, and of use only there. `only` says that
    /// nothing else can match.
    #[must_use]
    pub(super) fn with_keyed(mut self, mut records: Vec<Arc<Record>>, only: bool) -> Self {
        records.sort_unstable_by(|left, right| left.key().cmp(right.key()));
        self.keyed = Some(records);
        self.only_keyed = only;
        self
    }

    /// Whether an answer takes little time: it comes from a bucket of fewer records than this, or from few keys.
    pub(crate) fn is_short(&self, records: usize) -> bool {
        let keyed = self.keyed.as_ref().filter(|_| self.only_keyed);
        self.order.len() < records || keyed.is_some_and(|keyed| keyed.len() < records)
    }

    /// The revision that is answered from.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many records and index entries the answers so far have looked at.
    pub fn examined(&self) -> u64 {
        self.examined.load(Atomic::Relaxed)
    }

    /// Everything, in bucket order.
    pub fn all(&self) -> Vec<Arc<Record>> {
        self.live(self.order.values()).cloned().collect()
    }

    /// The first `n` records, ascending.
    pub fn first(&self, n: usize) -> Vec<Arc<Record>> {
        self.live(self.order.values()).take(n).cloned().collect()
    }

    /// The last `n` records, ascending.
    pub fn last(&self, n: usize) -> Vec<Arc<Record>> {
        let mut records: Vec<_> = self.live(self.order.values().rev()).take(n).cloned().collect();
        records.reverse();
        records
    }

    /// The records that a query asks for, in its order.
    ///
    /// # Errors
    /// `InvalidArgument`, see [`Filter`].
    pub fn find(&self, query: &Query) -> Result<Vec<Arc<Record>>> {
        query.check()?;
        Ok(self.found_by(query, query.limit))
    }

    fn found_by(&self, query: &Query, limit: Option<usize>) -> Vec<Arc<Record>> {
        let Some(postings) = self.simple(query) else {
            let found = self.answer(query, None, limit);
            return self.shown(query, found);
        };
        let postings = postings.map(Postings::iter).into_iter().flatten();
        let limit = limit.unwrap_or(usize::MAX);
        self.live(postings).skip(query.offset).take(limit).cloned().collect()
    }

    /// The first of the records that a query asks for.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_one(&self, query: &Query) -> Result<Option<Arc<Record>>> {
        query.check()?;
        let limit = query.limit.map_or(1, |limit| limit.min(1));
        Ok(self.found_by(query, Some(limit)).pop())
    }

    /// How many records a filter matches.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn count(&self, filter: &Filter) -> Result<usize> {
        filter.check()?;
        if filter.is_all() {
            let expired = self.expiry.keys().take_while(|(at, _)| *at <= self.now).count();
            return Ok(self.order.len() - expired);
        }
        let found = Found::best(self, filter, self.order.len());
        if let Some(found) = &found
            && found.exact
            && found.disjoint
            && !self.has_expired()
            && found.parts.iter().all(|part| matches!(part, Part::Run { .. }))
        {
            return Ok(found.estimate);
        }
        Ok(self.matching(filter, found).len())
    }

    /// One page of the records that a query asks for.
    ///
    /// # Errors
    /// `InvalidArgument` for a limit of 0, a query with offset or limit, a cursor of another bucket or order, and
    /// `after_key` where the bucket is not ordered or the query sorts; otherwise as [`find`](Self::find).
    pub fn paginate(&self, query: &Query, page: &Page) -> Result<Paged> {
        query.check()?;
        if page.limit == 0 {
            return Err(Error::invalid_argument("a page has room for at least one record"));
        }
        if query.offset != 0 || query.limit.is_some() {
            return Err(Error::invalid_argument("a query that is paged has neither offset nor limit"));
        }
        let after = match &page.from {
            Origin::Start => None,
            Origin::After(cursor) => Some(Position::of_cursor(cursor, &self.schema, query)?),
            Origin::AfterKey(_) if !self.schema.ordered() || !query.order.is_empty() => {
                return Err(Error::invalid_argument("only bucket order by key goes on after a key"));
            }
            Origin::AfterKey(key) => Some(Position { values: Vec::new(), place: Place::Key(key.clone()) }),
        };
        // One more tells whether there are more.
        let mut found = self.answer(query, after.as_ref(), Some(page.limit.saturating_add(1)));
        let has_more = found.len() > page.limit;
        found.truncate(page.limit);
        let next_cursor = match found.last() {
            Some(last) => {
                let values = query.order.iter().map(|(path, _)| Lookup::new(path, &self.schema.layout).value(last));
                let position = Position { values: values.collect(), place: self.schema.place_of(last) };
                Some(position.to_cursor(&self.schema, query)?)
            }
            None => None,
        };
        Ok(Paged { records: self.shown(query, found), has_more, next_cursor })
    }

    /// How a query would be answered.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn explain(&self, query: &Query) -> Result<Explain> {
        query.check()?;
        Ok(Way::new(self, query, query.limit.is_some()).explain(self))
    }

    /// Whether records can be found by their keys.
    pub(super) fn finds_keys(&self) -> bool {
        self.schema.ordered() || self.keyed.is_some()
    }

    fn by_key(&self, key: &Key) -> Option<&Arc<Record>> {
        if self.schema.ordered() {
            return self.order.get(&Place::Key(key.clone()));
        }
        let keyed = self.keyed.as_ref()?;
        keyed.get(keyed.binary_search_by(|record| record.key().cmp(key)).ok()?)
    }

    fn has_expired(&self) -> bool {
        self.expiry.get_min().is_some_and(|((at, _), _)| *at <= self.now)
    }

    fn live<'v>(&'v self, records: impl Iterator<Item = &'v Arc<Record>>) -> impl Iterator<Item = &'v Arc<Record>> {
        let mut eye = Eye::new(self);
        records.filter(move |record| eye.sees(record))
    }

    /// The commonest query, one equality that one index answers in bucket order, without a plan.
    fn simple(&self, query: &Query) -> Option<Option<&Postings>> {
        let Node::Eq(path, value) = &query.filter.node else { return None };
        if !query.order.is_empty() || query.select.is_some() {
            return None;
        }
        let fits = |rule: &super::schema::IndexRule| matches!(&*rule.paths, [own] if own.text == *path);
        let index = self.schema.indexes.iter().position(fits)?;
        Some(self.indexes.get(index)?.equal(std::slice::from_ref(value)))
    }

    /// Cuts the records down to what the query selects.
    fn shown(&self, query: &Query, found: Vec<&Arc<Record>>) -> Vec<Arc<Record>> {
        match &query.select {
            None => found.into_iter().cloned().collect(),
            Some(paths) => found.into_iter().map(|record| Arc::new(record.select(paths))).collect(),
        }
    }

    /// The records that a filter matches, in any order.
    pub(super) fn matching<'v>(&'v self, filter: &Filter, found: Option<Found<'_>>) -> Vec<&'v Arc<Record>> {
        let mut records = Vec::new();
        self.gather(filter, found, |record| records.push(record));
        records
    }

    /// Calls with each record that a filter matches, once, in any order.
    fn gather<'v>(&'v self, filter: &Filter, found: Option<Found<'_>>, mut hit: impl FnMut(&'v Arc<Record>)) {
        let matcher = Matcher::new(filter, &self.schema.layout);
        let Some(found) = found else {
            self.live(self.order.values()).filter(|record| matcher.matches(record)).for_each(hit);
            return;
        };
        let mut eye = Eye::new(self);
        let mut fits = |record: &Record| eye.sees(record) && (found.exact || matcher.matches(record));
        if found.disjoint {
            self.found(&found.parts, |record| {
                if fits(record) {
                    hit(record);
                }
            });
            return;
        }
        let mut records: Vec<&Arc<Record>> = Vec::new();
        self.found(&found.parts, |record| {
            if fits(record) {
                records.push(record);
            }
        });
        records.sort_unstable_by(|left, right| self.by_place(left, right));
        records.dedup_by(|left, right| Arc::ptr_eq(left, right));
        records.into_iter().for_each(hit);
    }

    fn found<'v>(&'v self, parts: &[Part<'_>], mut each: impl FnMut(&'v Arc<Record>)) {
        for part in parts {
            match part {
                Part::Keys(keys) => keys.iter().filter_map(|key| self.by_key(key)).for_each(&mut each),
                Part::Run { index, span } => {
                    let (rule, index) = (&self.schema.indexes[*index], &self.indexes[*index]);
                    if span.equal.as_slice().len() == rule.paths.len() {
                        if let Some(postings) = index.equal_refs(&span.equal) {
                            postings.iter().for_each(&mut each);
                        }
                        continue;
                    }
                    for (_, postings) in index.between(span.start(), span.end()) {
                        postings.iter().for_each(&mut each);
                    }
                }
            }
        }
    }

    /// What a query asks for, after a position where one is given: in order, its offset and this limit applied.
    fn answer<'v>(&'v self, query: &Query, after: Option<&Position>, limit: Option<usize>) -> Vec<&'v Arc<Record>> {
        let mut taken = Taken { skip: query.offset, limit: limit.unwrap_or(usize::MAX), records: Vec::new() };
        if taken.limit == 0 {
            return taken.records;
        }
        let sorter = Sorter::new(self, query);
        let way = match Way::new(self, query, limit.is_some()) {
            // The position is one of another filter with the same order: its place alone says nothing here.
            way if after.is_some_and(|after| !seekable(query, after)) => match way {
                Way::Scan { .. } => Way::Gather(None),
                Way::Entry { found, .. } | Way::Walk { instead: Some((_, found)), .. } => Way::Gather(Some(found)),
                Way::Walk { instead: None, .. } => Way::Gather(Found::best(self, &query.filter, self.order.len())),
                gather @ Way::Gather(_) => gather,
            },
            way => way,
        };
        let matcher = Matcher::new(&query.filter, &self.schema.layout);
        let place = after.map(|after| &after.place);
        match way {
            Way::Scan { backward } => {
                let fits = |record: &&Arc<Record>| matcher.matches(record);
                match (backward, place) {
                    (false, None) => taken.fill(self.live(self.order.values()).filter(fits)),
                    (true, None) => taken.fill(self.live(self.order.values().rev()).filter(fits)),
                    (false, Some(place)) => {
                        let rest = self.order.range::<_, Place>((Bound::Excluded(place), Bound::Unbounded));
                        taken.fill(self.live(rest.map(|(_, record)| record)).filter(fits));
                    }
                    (true, Some(place)) => {
                        let rest = self.order.range::<_, Place>(..place).rev();
                        taken.fill(self.live(rest.map(|(_, record)| record)).filter(fits));
                    }
                }
            }
            Way::Entry { found, backward } => {
                let entry = match &*found.parts {
                    [Part::Run { index, span }] => self.indexes[*index].equal_refs(&span.equal),
                    _ => None,
                };
                let Some(postings) = entry else { return taken.records };
                let fits = |record: &&Arc<Record>| found.exact || matcher.matches(record);
                match (backward, place) {
                    (_, Some(place)) => {
                        taken.fill(self.live(postings.from(&self.schema, place, backward)).filter(fits));
                    }
                    (false, None) => taken.fill(self.live(postings.iter()).filter(fits)),
                    (true, None) => taken.fill(self.live(postings.iter().rev()).filter(fits)),
                }
            }
            Way::Walk { walk, instead } => {
                let budget = instead.as_ref().map_or(usize::MAX, |(budget, _)| *budget);
                if !self.walk(query, &walk, after, &matcher, budget, &mut taken)
                    && let Some((_, found)) = instead
                {
                    taken = Taken { skip: query.offset, limit: taken.limit, records: Vec::new() };
                    self.sorted(query, Some(found), after, &sorter, &mut taken);
                }
            }
            Way::Gather(found) => self.sorted(query, found, after, &sorter, &mut taken),
        }
        taken.records
    }

    /// Takes records along an index; answers whether that was done within the budget of entries.
    fn walk<'v>(
        &'v self,
        query: &Query,
        walk: &Walk<'_>,
        after: Option<&Position>,
        matcher: &Matcher<'_>,
        budget: usize,
        taken: &mut Taken<'v>,
    ) -> bool {
        let (rule, index) = (&self.schema.indexes[walk.index], &self.indexes[walk.index]);
        let mut refs = Refs::new();
        let from = after.map(|after| {
            for path in &rule.paths {
                let ordered = query.order.iter().position(|(own, _)| *own == path.text);
                let value = ordered.and_then(|at| after.values.get(at)).or_else(|| fixed(&query.filter, &path.text));
                refs.push(value.unwrap_or(&NULL));
            }
            let values = refs.as_slice().iter().copied().cloned().collect();
            (Values::Many(values), &after.place)
        });
        let (mut lower, mut upper) = (walk.span.start(), walk.span.end());
        if let Some((values, _)) = &from {
            use equivalent::Comparable;
            let cut = |after| Cut { equal: refs, edge: None, after };
            // The position may be outside of this filter's run, before or after it.
            match (lower.compare(values), upper.compare(values), walk.backward) {
                (Ordering::Greater, _, true) | (_, Ordering::Less, false) => return true,
                (_, Ordering::Less, true) | (Ordering::Greater, _, false) => {}
                (.., true) => upper = cut(true),
                (.., false) => lower = cut(false),
            }
        }
        let (mut left, mut eye) = (budget, Eye::new(self));
        let mut visit = |values: &Values, postings: &'v Postings| {
            let mut each = |records: &mut dyn Iterator<Item = &'v Arc<Record>>| {
                for record in records {
                    if left == 0 {
                        return Some(false);
                    }
                    left -= 1;
                    if eye.sees(record) && matcher.matches(record) && taken.take(record) {
                        return Some(true);
                    }
                }
                None
            };
            match &from {
                // Within an entry records are in bucket order, whichever way the index is walked.
                Some((own, place)) if own == values => each(&mut postings.from(&self.schema, place, false)),
                _ => each(&mut postings.iter()),
            }
        };
        let mut entries = index.between(lower, upper);
        let done = if walk.backward {
            entries.rev().find_map(|(values, postings)| visit(values, postings))
        } else {
            entries.find_map(|(values, postings)| visit(values, postings))
        };
        done.unwrap_or(true)
    }

    fn sorted<'v>(
        &'v self,
        query: &Query,
        found: Option<Found<'_>>,
        after: Option<&Position>,
        sorter: &Sorter<'_>,
        taken: &mut Taken<'v>,
    ) {
        let mut top = Top { limit: taken.limit.saturating_add(taken.skip), kept: Vec::new(), worst: None };
        let compare = |left: &Record, right: &Record| sorter.compare(left, right);
        self.gather(&query.filter, found, |record| {
            if after.is_none_or(|after| sorter.compare_with(record, after).is_gt()) {
                top.push(record, compare);
            }
        });
        taken.fill(top.finish(compare).into_iter());
    }

    fn by_place(&self, left: &Record, right: &Record) -> Ordering {
        if self.schema.ordered() { left.key().cmp(right.key()) } else { left.place().cmp(&right.place()) }
    }
}

/// Whether the filter agrees with the position on what it fixes.
fn seekable(query: &Query, after: &Position) -> bool {
    let mut pairs = query.order.iter().zip(&after.values);
    pairs.all(|((path, _), value)| fixed(&query.filter, path).is_none_or(|fixed| fixed == value))
}

/// Looks at records, steps over expired ones, and counts what it has looked at; the view is told when it is dropped.
struct Eye<'v> {
    /// Set where some record has expired.
    now: Option<i64>,
    examined: u64,
    total: &'v AtomicU64,
}

impl<'v> Eye<'v> {
    fn new(view: &'v View) -> Self {
        Self { now: view.has_expired().then_some(view.now), examined: 0, total: &view.examined }
    }

    fn sees(&mut self, record: &Record) -> bool {
        self.examined += 1;
        self.now.is_none_or(|now| !record.is_expired(now))
    }
}

impl Drop for Eye<'_> {
    fn drop(&mut self) {
        self.total.fetch_add(self.examined, Atomic::Relaxed);
    }
}

/// What is answered so far.
struct Taken<'v> {
    skip: usize,
    limit: usize,
    records: Vec<&'v Arc<Record>>,
}

impl<'v> Taken<'v> {
    /// Takes the next record; answers whether that was the last that is wanted.
    fn take(&mut self, record: &'v Arc<Record>) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
        } else {
            self.records.push(record);
        }
        self.records.len() >= self.limit
    }

    fn fill(&mut self, mut records: impl Iterator<Item = &'v Arc<Record>>) {
        let _ = records.find(|record| self.take(record));
    }
}

/// The first records in an order, of any number that is pushed; holds at most twice as many.
struct Top<'v> {
    limit: usize,
    kept: Vec<&'v Arc<Record>>,
    /// As many as are wanted are before it or are it.
    worst: Option<&'v Arc<Record>>,
}

impl<'v> Top<'v> {
    fn push(&mut self, record: &'v Arc<Record>, compare: impl Fn(&Record, &Record) -> Ordering) {
        if self.worst.is_some_and(|worst| compare(record, worst).is_gt()) {
            return;
        }
        self.kept.push(record);
        // Half of them go at once, so that each costs a constant number of comparisons.
        if self.kept.len() >= self.limit.saturating_mul(2).max(64) {
            let (_, worst, _) = self.kept.select_nth_unstable_by(self.limit - 1, |left, right| compare(left, right));
            self.worst = Some(worst);
            self.kept.truncate(self.limit);
        }
    }

    fn finish(mut self, compare: impl Fn(&Record, &Record) -> Ordering) -> Vec<&'v Arc<Record>> {
        self.kept.sort_unstable_by(|left, right| compare(left, right));
        self.kept.truncate(self.limit);
        self.kept
    }
}

/// The order of a query: its paths, then bucket order.
struct Sorter<'q> {
    view: &'q View,
    terms: Vec<(Lookup<'q>, Direction)>,
}

impl<'q> Sorter<'q> {
    fn new(view: &'q View, query: &'q Query) -> Self {
        let terms = query.order.iter().map(|(path, way)| (Lookup::new(path, &view.schema.layout), *way)).collect();
        Self { view, terms }
    }

    fn compare(&self, left: &Record, right: &Record) -> Ordering {
        for (path, direction) in &self.terms {
            let order =
                path.with(left, |left| path.with(right, |right| left.unwrap_or(&NULL).cmp(right.unwrap_or(&NULL))));
            if order.is_ne() {
                return direction.apply(order);
            }
        }
        self.view.by_place(left, right)
    }

    fn compare_with(&self, record: &Record, position: &Position) -> Ordering {
        for ((path, direction), value) in self.terms.iter().zip(&position.values) {
            let order = path.with(record, |own| own.unwrap_or(&NULL).cmp(value));
            if order.is_ne() {
                return direction.apply(order);
            }
        }
        self.view.schema.place_of(record).cmp(&position.place)
    }
}

impl Direction {
    fn apply(self, order: Ordering) -> Ordering {
        match self {
            Self::Ascending => order,
            Self::Descending => order.reverse(),
        }
    }
}
