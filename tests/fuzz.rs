//! Whatever bytes come, from a disk or a peer, nothing that decodes them panics, and what was decoded is the same once it
//! was encoded again: the bodies of the fuzz targets in `fuzz/`, as property tests, and over the inputs that were once
//! found to break them (`tests/fuzz_corpus/<target>/`).
//!
//! Were this broken, one damaged row or one malicious message would end the process.
#![cfg(all(feature = "testkit", feature = "redb", feature = "json-file"))]
#![allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use ractor_persistence::testkit::decoding::{TARGETS, Target};

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

/// What is done to bytes that decode.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Remove(Index, u8),
    Repeat(Index, u8),
    Insert(Index, Vec<u8>),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |index: &Index, bytes: &Vec<u8>| index.index(bytes.len() + 1);
        match self {
            Self::Flip(index, bit) => {
                let at = at(index, bytes);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            Self::Set(index, new) => {
                let at = at(index, bytes);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = *new);
            }
            Self::Cut(index) => bytes.truncate(at(index, bytes)),
            Self::Remove(index, count) => {
                let from = at(index, bytes);
                bytes.drain(from..(from + usize::from(*count)).min(bytes.len()));
            }
            Self::Repeat(index, count) => {
                let from = at(index, bytes);
                let part = bytes[from..(from + usize::from(*count)).min(bytes.len())].to_vec();
                bytes.splice(from..from, part);
            }
            Self::Insert(index, new) => {
                let at = at(index, bytes);
                bytes.splice(at..at, new.iter().copied());
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(index, bit)| Mutation::Flip(index, bit)),
        (any::<Index>(), any::<u8>()).prop_map(|(index, new)| Mutation::Set(index, new)),
        any::<Index>().prop_map(Mutation::Cut),
        (any::<Index>(), 1..40_u8).prop_map(|(index, count)| Mutation::Remove(index, count)),
        (any::<Index>(), 1..40_u8).prop_map(|(index, count)| Mutation::Repeat(index, count)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(index, new)| Mutation::Insert(index, new)),
    ]
}

/// Runs a body over its seeds, its corpus, and what becomes of them.
fn examine(name: &str) {
    let target = target(name);
    let mut begin = (target.seeds)();
    assert!(
        !begin.is_empty() && begin.iter().all(|seed| !seed.is_empty()),
        "a target begins from something that decodes"
    );
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz_corpus").join(name);
    if corpus.is_dir() {
        begin.extend(std::fs::read_dir(corpus).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()));
    }
    begin.iter().for_each(|bytes| (target.run)(bytes));
    (target.run)(b"");
    // Failing inputs are kept by hand, in the corpus.
    let config = ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() };
    let mutated = (any::<Index>(), prop::collection::vec(mutation(), 1..6));
    proptest!(config, |((seed, mutations) in mutated, random in prop::collection::vec(any::<u8>(), 0..200))| {
        let mut bytes = seed.get(&begin).clone();
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        (target.run)(&bytes);
        (target.run)(&random);
    });
}

macro_rules! targets {
    ($($name:ident)*) => {
        const EXAMINED: &[&str] = &[$(stringify!($name)),*];

        mod whatever_bytes_come_nothing_panics_and_what_decodes_is_the_same_again {
            $(
                #[test]
                fn $name() {
                    super::examine(stringify!($name));
                }
            )*
        }
    };
}

targets! { envelope packed frame json_file redb wire channel names cursor }

/// `fuzz/` has one binary per target, so that none is forgotten there.
#[test]
fn every_target_is_examined_here_and_has_a_fuzz_target() {
    let all: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(all, EXAMINED.iter().copied().collect());
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    // A packaged crate has no such folder.
    if let Ok(manifest) = std::fs::read_to_string(fuzz.join("Cargo.toml")) {
        for name in all {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            let source = std::fs::read_to_string(fuzz.join("fuzz_targets").join(format!("{name}.rs"))).unwrap();
            assert!(source.contains(&format!("decoding::{name}(")), "{name}");
        }
    }
}
