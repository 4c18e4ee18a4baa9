//! How a query is answered: by keys, by runs of indexes, along an order, or by a scan. A plan never changes what is
//! answered, only how much is looked at.

use std::ops::Bound;

use crate::base::value::{Key, Value};
use crate::records::filter::{Filter, Kind, Node};
use crate::records::query::{Access, Direction, Explain, Query};
use crate::records::schema::IndexRule;
use crate::records::span::{Interval, Span};
use crate::records::view::View;

/// Most runs that lists of values may split one index into.
const MAX_SPANS: usize = 4_096;
/// How many entries of each index are counted in the first round; each further round counts four times as many.
const FIRST_COUNT: usize = 64;

/// Where some of the records are.
#[derive(Clone, Debug)]
pub(super) enum Part<'q> {
    Keys(Vec<Key>),
    Run { index: usize, span: Span<'q> },
}

/// Where all records are that a filter can match.
#[derive(Clone, Debug)]
pub(super) struct Found<'q> {
    pub(super) parts: Vec<Part<'q>>,
    /// How many entries that are.
    pub(super) estimate: usize,
    /// Every record there matches.
    pub(super) exact: bool,
    /// No record is there twice.
    pub(super) disjoint: bool,
}

/// A run of an index in whose order the answer is.
#[derive(Clone, Debug)]
pub(super) struct Walk<'q> {
    pub(super) index: usize,
    pub(super) span: Span<'q>,
    pub(super) backward: bool,
    exact: bool,
    estimate: usize,
}

/// How a query is answered.
#[derive(Clone, Debug)]
pub(super) enum Way<'q> {
    /// All records in bucket order, which is the query's.
    Scan { backward: bool },
    /// The records of one entry, in bucket order, which is the query's.
    Entry { found: Found<'q>, backward: bool },
    /// Along an index, which has the query's order. With a budget: no more entries than that, then as `Gather`.
    Walk { walk: Walk<'q>, instead: Option<(usize, Found<'q>)> },
    /// What is found, or everything, is collected and sorted.
    Gather(Option<Found<'q>>),
}

/// The order that remains when what cannot make a difference is left out of it.
enum Order<'q> {
    Bucket { backward: bool },
    Terms(Vec<(&'q str, Direction)>),
}

impl<'q> Way<'q> {
    /// The way with the fewest entries; `limited` says that the answer may end before all of them are looked at.
    pub(super) fn new(view: &View, query: &'q Query, limited: bool) -> Self {
        let found = Found::best(view, &query.filter, view.order.len());
        match order(view, query) {
            Order::Bucket { backward } => match found {
                None => Self::Scan { backward },
                Some(found) if found.is_entry(view) => Self::Entry { found, backward },
                Some(found) => Self::Gather(Some(found)),
            },
            Order::Terms(terms) => {
                let best = found.as_ref().map_or(view.order.len(), |found| found.estimate);
                match (walk(view, query, &terms, best), found) {
                    (None, found) => Self::Gather(found),
                    (Some(walk), None) => Self::Walk { walk, instead: None },
                    (Some(walk), Some(found)) => {
                        if walk.estimate <= found.estimate || (walk.exact && limited) {
                            Self::Walk { walk, instead: None }
                        } else if limited {
                            // The first hits may come early; if not, little is lost.
                            Self::Walk { walk, instead: Some((found.estimate / 4, found)) }
                        } else {
                            Self::Gather(Some(found))
                        }
                    }
                }
            }
        }
    }

    pub(super) fn explain(&self, view: &View) -> Explain {
        let label = |index: usize| view.schema.indexes.get(index).map(IndexRule::label);
        match self {
            Self::Scan { .. } | Self::Gather(None) => Explain {
                index: None,
                access: Access::Scan,
                estimate: view.order.len(),
                sort: matches!(self, Self::Gather(_)),
            },
            Self::Walk { walk, instead: None } => {
                let access = match walk.span.interval {
                    None if walk.span.equal.as_slice().is_empty() => Access::Scan,
                    _ => access_of(&walk.span),
                };
                Explain { index: label(walk.index), access, estimate: walk.estimate, sort: false }
            }
            Self::Entry { found, .. } | Self::Gather(Some(found)) | Self::Walk { instead: Some((_, found)), .. } => {
                let mut labels: Vec<String> = Vec::new();
                for part in &found.parts {
                    if let Part::Run { index, .. } = part
                        && let Some(label) = label(*index)
                        && !labels.contains(&label)
                    {
                        labels.push(label);
                    }
                }
                let access = match &*found.parts {
                    [Part::Keys(keys)] if keys.len() <= 1 => Access::Key,
                    [Part::Run { span, .. }] => access_of(span),
                    _ => Access::Union,
                };
                let sort = !matches!(self, Self::Entry { .. }) && found.estimate > 1;
                let index = (!labels.is_empty()).then(|| labels.join(" + "));
                Explain { index, access, estimate: found.estimate, sort }
            }
        }
    }
}

fn access_of(span: &Span<'_>) -> Access {
    match span.interval {
        None => Access::Equality,
        Some(interval) if interval.prefix => Access::Prefix,
        Some(_) => Access::Range,
    }
}

impl<'q> Found<'q> {
    /// The way with the fewest entries, if there is any with at most `limit`.
    pub(super) fn best(view: &View, filter: &'q Filter, limit: usize) -> Option<Self> {
        let conjuncts = filter.conjuncts();
        let key_field = &view.schema.fields[view.schema.key].name;
        let mut best: Option<Self> = None;
        let mut take = |found: Self| {
            let better = best.as_ref().is_none_or(|best| found.rank() < best.rank());
            if better && found.estimate <= limit {
                best = Some(found);
            }
        };
        if view.finds_keys() {
            for keys in conjuncts.iter().filter_map(|conjunct| conjunct.own_keys(key_field)) {
                // One key is never worse than a scan, even of an empty bucket.
                let estimate = if keys.len() == 1 { limit.min(1) } else { keys.len() };
                let exact = conjuncts.len() == 1;
                take(Self { parts: vec![Part::Keys(keys)], estimate, exact, disjoint: true });
            }
        }
        let indexes = view.schema.indexes.iter().enumerate();
        let fits = indexes.filter_map(|(index, rule)| Some((index, rule, Fit::new(rule, conjuncts, true)?)));
        let mut fits: Vec<_> = fits.map(|(index, rule, fit)| (index, rule, fit, 0)).collect();
        // Counted in rounds, so that a large run is not counted further than a small one requires.
        let mut cap = FIRST_COUNT.min(limit);
        while !fits.is_empty() {
            for (index, rule, fit, count) in &mut fits {
                *count = 0;
                for span in &fit.spans {
                    *count += view.indexes[*index].count(rule, span, cap);
                    if *count > cap {
                        break;
                    }
                }
            }
            if cap >= limit || fits.iter().any(|(.., count)| *count <= cap) {
                break;
            }
            cap = cap.saturating_mul(4).min(limit);
        }
        for (index, _, fit, estimate) in fits.into_iter().filter(|(.., count)| *count <= cap) {
            let exact = fit.consumed == conjuncts.len();
            let parts = fit.spans.into_iter().map(|span| Part::Run { index, span }).collect();
            take(Self { parts, estimate, exact, disjoint: true });
        }
        for conjunct in conjuncts {
            let Node::Or(branches) = &conjunct.node else { continue };
            let bound = best.as_ref().map_or(limit, |best| best.estimate);
            if let Some(mut union) = Self::union(view, branches, bound) {
                union.exact &= conjuncts.len() == 1;
                if best.as_ref().is_none_or(|best| union.rank() < best.rank()) {
                    best = Some(union);
                }
            }
        }
        best
    }

    fn union(view: &View, branches: &'q [Filter], limit: usize) -> Option<Self> {
        let mut union = Self { parts: Vec::new(), estimate: 0, exact: true, disjoint: branches.len() <= 1 };
        for branch in branches {
            let found = Self::best(view, branch, limit - union.estimate)?;
            union.estimate += found.estimate;
            union.exact &= found.exact;
            union.parts.extend(found.parts);
        }
        Some(union)
    }

    /// Fewest entries first; among as many, what needs least work besides.
    fn rank(&self) -> (usize, usize, bool) {
        (self.estimate, self.parts.len(), !self.exact)
    }

    /// Whether it is all in one entry, which is in bucket order.
    fn is_entry(&self, view: &View) -> bool {
        match &*self.parts {
            [Part::Run { index, span }] => span.equal.as_slice().len() == view.schema.indexes[*index].paths.len(),
            _ => false,
        }
    }
}

/// How the conditions of a filter fit an index.
struct Fit<'q> {
    spans: Vec<Span<'q>>,
    /// How many conditions the runs stand for.
    consumed: usize,
}

impl<'q> Fit<'q> {
    /// Equalities on leading paths, then a range or prefix on the next; none where not even the first path has one.
    fn new(rule: &IndexRule, conjuncts: &'q [Filter], lists: bool) -> Option<Self> {
        let mut fit = Self { spans: vec![Span::new()], consumed: 0 };
        let mut used = false;
        for path in &rule.paths {
            let equal = conjuncts.iter().find_map(|conjunct| match &conjunct.node {
                Node::Eq(own, value) if *own == path.text => Some(std::slice::from_ref(value)),
                _ => None,
            });
            let list = || {
                let fitting = |conjunct: &'q Filter| match &conjunct.node {
                    Node::In(own, values) if *own == path.text => Some(&**values),
                    _ => None,
                };
                conjuncts.iter().find_map(fitting).filter(|values| lists && values.len() * fit.spans.len() <= MAX_SPANS)
            };
            if let Some(values) = equal.or_else(list) {
                let extended = fit.spans.iter().flat_map(|span| {
                    values.iter().map(|value| {
                        let mut span = *span;
                        span.equal.push(value);
                        span
                    })
                });
                fit.spans = extended.collect();
                fit.consumed += 1;
                used = true;
                continue;
            }
            if let Some((interval, consumed)) = interval(&path.text, conjuncts) {
                fit.spans.iter_mut().for_each(|span| span.interval = Some(interval));
                fit.consumed += consumed;
                used = true;
            }
            break;
        }
        used.then_some(fit)
    }
}

/// The interval of all ranges over a path, or else that of a prefix, and how many conditions it stands for.
fn interval<'q>(path: &str, conjuncts: &'q [Filter]) -> Option<(Interval<'q>, usize)> {
    let mut found: Option<(Kind, Bound<&'q Value>, Bound<&'q Value>, usize)> = None;
    let (mut prefix, mut number) = (None, 0);
    for conjunct in conjuncts {
        match &conjunct.node {
            Node::Range(own, ends) if own == path => {
                let (lower, upper) = &**ends;
                let (lower, upper) = (lower.as_ref(), upper.as_ref());
                let kind = match (lower, upper) {
                    (Bound::Included(value) | Bound::Excluded(value), _)
                    | (Bound::Unbounded, Bound::Included(value) | Bound::Excluded(value)) => Kind::of(value),
                    (Bound::Unbounded, Bound::Unbounded) => None,
                };
                if Interval::of_bounds(lower, upper).is_none() {
                    continue;
                }
                match (&mut found, kind) {
                    (None, Some(kind)) => found = Some((kind, lower, upper, 1)),
                    (Some((held, from, to, consumed)), Some(kind)) if *held == kind => {
                        (*from, *to) = (tighter(*from, lower, true), tighter(*to, upper, false));
                        *consumed += 1;
                    }
                    _ => {}
                }
            }
            Node::Prefix(own, text) if own == path => prefix = prefix.or(Some(text)),
            Node::Number(own) if own == path => number += 1,
            _ => {}
        }
    }
    match (found, prefix) {
        (Some((kind, lower, upper, consumed)), _) => {
            let implied = if kind == Kind::Number { number } else { 0 };
            Some((Interval::of_bounds(lower, upper)?, consumed + implied))
        }
        (None, Some(text)) => Some((Interval::of_prefix(text), 1)),
        (None, None) => (number > 0).then(|| (Interval::of_kind(Kind::Number), number)),
    }
}

/// The bound that leaves less.
fn tighter<'q>(one: Bound<&'q Value>, other: Bound<&'q Value>, lower: bool) -> Bound<&'q Value> {
    let parts = |bound: Bound<&'q Value>| match bound {
        Bound::Included(value) => Some((value, false)),
        Bound::Excluded(value) => Some((value, true)),
        Bound::Unbounded => None,
    };
    match (parts(one), parts(other)) {
        (None, _) => other,
        (_, None) => one,
        (Some((left, _)), Some((right, _))) if left != right => {
            if (left > right) == lower {
                one
            } else {
                other
            }
        }
        (Some((_, excluded)), Some(_)) => {
            if excluded {
                one
            } else {
                other
            }
        }
    }
}

/// The value that a filter fixes a path to.
pub(super) fn fixed<'q>(filter: &'q Filter, path: &str) -> Option<&'q Value> {
    filter.conjuncts().iter().find_map(|conjunct| match &conjunct.node {
        Node::Eq(own, value) if own == path => Some(value),
        _ => None,
    })
}

fn order<'q>(view: &View, query: &'q Query) -> Order<'q> {
    let key_field = view.schema.fields[view.schema.key].name.as_str();
    let mut terms: Vec<(&str, Direction)> = Vec::new();
    for (path, direction) in &query.order {
        if terms.iter().any(|(earlier, _)| earlier == path) || fixed(&query.filter, path).is_some() {
            continue;
        }
        terms.push((path, *direction));
        if path == key_field {
            // No two records have the same key: nothing after it makes a difference.
            break;
        }
    }
    match &*terms {
        [] => Order::Bucket { backward: false },
        [(path, direction)] if *path == key_field && view.schema.ordered() => {
            Order::Bucket { backward: *direction == Direction::Descending }
        }
        _ => Order::Terms(terms),
    }
}

/// The first index whose order is that of the terms; its entries are counted up to `limit`.
fn walk<'q>(view: &View, query: &'q Query, terms: &[(&str, Direction)], limit: usize) -> Option<Walk<'q>> {
    let direction = terms.first()?.1;
    if terms.iter().any(|(_, other)| *other != direction) {
        return None;
    }
    let conjuncts = query.filter.conjuncts();
    view.schema.indexes.iter().enumerate().find_map(|(index, rule)| {
        let free = rule.paths.iter().filter(|path| fixed(&query.filter, &path.text).is_none());
        if !free.map(|path| path.text.as_str()).eq(terms.iter().map(|(path, _)| *path)) {
            return None;
        }
        let fit = Fit::new(rule, conjuncts, false);
        let (span, consumed) = match fit.as_ref().map(|fit| (&*fit.spans, fit.consumed)) {
            Some(([span], consumed)) => (*span, consumed),
            _ => (Span::new(), 0),
        };
        let whole = span.interval.is_none() && span.equal.as_slice().is_empty();
        let estimate = if whole { view.order.len() } else { view.indexes[index].count(rule, &span, limit) };
        let exact = consumed == conjuncts.len();
        Some(Walk { index, span, backward: direction == Direction::Descending, exact, estimate })
    })
}
