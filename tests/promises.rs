//! `docs/promises.md` says which promises are kept, and it says so of those that a test is named after, and of no others.
//!
//! Without this, a promise could be called kept when its test is gone, and nobody who reads `ps_07` in a report could
//! look up what it guards.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests say what they expect by unwrapping it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::{fs, iter};

/// What is promised about, with the number of promises.
const KINDS: [(&str, u8); 3] = [("ps", 38), ("bk", 57), ("ch", 58)];

/// `ps_07_…` is about `("ps", 7)`.
type Promise = (&'static str, u8);

/// The promise that an identifier is named after.
fn promise(identifier: &str) -> Option<Promise> {
    let (kind, rest) = identifier.split_once('_')?;
    let (number, _) = rest.split_once('_')?;
    let (kind, _) = KINDS.iter().find(|(known, _)| *known == kind)?;
    if number.len() != 2 || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some((kind, number.parse().ok()?))
}

/// The promises that a source has tests or test modules named after. One that is not compiled, because its `cfg` asks
/// for `any()` of nothing, does not count.
fn named(source: &str) -> BTreeSet<Promise> {
    let mut found = BTreeSet::new();
    let mut off = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            off |= line.starts_with("#[cfg(") && line.contains("any()");
        } else if !line.starts_with("//") {
            // `fn name`, `mod name`, and a name that a macro makes a test or module of.
            let mut words = line.split(|character: char| !character.is_alphanumeric() && character != '_');
            let first = words.find(|word| !matches!(*word, "" | "pub" | "async")).unwrap_or_default();
            let name = if matches!(first, "fn" | "mod") { words.next().unwrap_or_default() } else { first };
            found.extend(promise(name).filter(|_| !off));
            off &= line.is_empty();
        }
    }
    found
}

fn sources(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// The promises of the document, with what is said of each: `kept`, `not yet` or ``kept by `FILE` ``.
fn told(document: &str) -> Vec<(Promise, String)> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (kind, number) = cells.next()?.split_once('-')?;
        let (kind, _) = KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(kind))?;
        Some(((*kind, number.parse().ok()?), cells.next()?.to_owned()))
    };
    document.lines().filter_map(row).collect()
}

/// What the document says and the sources do not, in words.
fn differences(document: &str, named: &BTreeSet<Promise>, is_file: impl Fn(&str) -> bool) -> String {
    let mut wrong = String::new();
    let told = told(document);
    let all = KINDS.iter().flat_map(|(kind, count)| (1..=*count).zip(iter::repeat(*kind)).map(|(n, kind)| (kind, n)));
    let order: Vec<Promise> = told.iter().map(|(promise, _)| *promise).collect();
    if order != all.collect::<Vec<_>>() {
        writeln!(wrong, "the promises are not listed once each and in order").unwrap();
    }
    let told: BTreeMap<Promise, String> = told.into_iter().collect();
    for ((kind, number), mark) in &told {
        let is_named = named.contains(&(*kind, *number));
        let promise = format!("{}-{number}", kind.to_uppercase());
        let elsewhere = mark.strip_prefix("kept by `").and_then(|file| file.strip_suffix('`'));
        match (mark.as_str(), elsewhere, is_named) {
            ("kept", _, true) | ("not yet", _, false) => {}
            (_, Some(file), false) if is_file(file) => {}
            (_, Some(file), false) => writeln!(wrong, "{promise} is to be kept by {file}, which is not there").unwrap(),
            (_, _, true) => writeln!(wrong, "{promise} has a test: mark it as \"kept\", not \"{mark}\"").unwrap(),
            (_, _, false) => writeln!(wrong, "{promise} has no test: mark it as \"not yet\", not \"{mark}\"").unwrap(),
        }
    }
    for (kind, number) in named.iter().filter(|promise| !told.contains_key(*promise)) {
        writeln!(wrong, "a test is named after {kind}_{number:02}, which is not promised").unwrap();
    }
    wrong
}

#[test]
fn a_promise_is_marked_as_kept_where_a_test_is_named_after_it_and_nowhere_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for directory in ["src", "tests"] {
        sources(&root.join(directory), &mut texts);
    }
    let named = texts.iter().flat_map(|source| named(source)).collect();
    let document = fs::read_to_string(root.join("docs/promises.md")).unwrap();
    let wrong = differences(&document, &named, |file| root.join(file).is_file());
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn names_are_found_in_each_way_of_writing_them_and_in_no_other() {
    let of = |source: &str| named(source).into_iter().collect::<Vec<_>>();
    assert_eq!(of("    async fn ps_07_a() {"), [("ps", 7)]);
    assert_eq!(of("mod ch_16_b {\n    pub fn bk_03_c() {}\n}"), [("bk", 3), ("ch", 16)]);
    assert_eq!(of("conformance!(\n    ps_31_the_example_passes,"), [("ps", 31)]);
    assert_eq!(of("#[cfg(all(any()))]\n#[test]\nfn ps_30_a() {}\n#[test]\nfn ps_31_b() {}"), [("ps", 31)]);
    assert_eq!(of("// fn ps_01_a\nfn ps_1_a() {}\nfn ps_001_a() {}\nfn xx_01_a() {}\nlet a = ps_01_a();"), []);
}

#[test]
fn what_is_told_wrongly_is_noticed() {
    let sound = || {
        let rows = KINDS.iter().flat_map(|(kind, count)| {
            (1..=*count).map(move |number| format!("| {}-{number} | not yet | It holds. |\n", kind.to_uppercase()))
        });
        rows.collect::<String>()
    };
    let none = BTreeSet::new();
    let one = BTreeSet::from([("ps", 7)]);
    assert_eq!(differences(&sound(), &none, |_| false), "");
    assert!(differences(&sound(), &one, |_| false).contains("PS-7 has a test"));
    let kept = sound().replace("PS-7 | not yet", "PS-7 | kept");
    assert_eq!(differences(&kept, &one, |_| false), "");
    assert!(differences(&kept, &none, |_| false).contains("PS-7 has no test"));
    let elsewhere = sound().replace("PS-7 | not yet", "PS-7 | kept by `tests/a.rs`");
    assert_eq!(differences(&elsewhere, &none, |file| file == "tests/a.rs"), "");
    assert!(differences(&elsewhere, &none, |_| false).contains("tests/a.rs, which is not there"));
    assert!(differences(&elsewhere, &one, |_| true).contains("PS-7 has a test"));
    let lacking = sound().replace("| CH-58 | not yet | It holds. |\n", "");
    assert!(differences(&lacking, &none, |_| false).contains("once each"));
    assert!(differences(&sound(), &BTreeSet::from([("ps", 39)]), |_| false).contains("ps_39, which is not promised"));
}
