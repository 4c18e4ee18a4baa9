//! The rooms keep to their order: a room uses only rooms of a lower rank, `lib.rs` and `mod.rs` files are door plates,
//! nobody but the adapters knows an adapter, and the file system is touched in few places.
//!
//! Without this, the first shortcut through the layers goes in unseen, and after some more of them no part can be
//! understood, tested or replaced by itself. Comments, documentation and `#[cfg(test)]` items are not code here. Each
//! check is also run on sources that break its rule, so that it is known to be able to fail.

#[path = "layering/source.rs"]
mod source;

use std::collections::BTreeSet;

use source::{Named, Source, Token, after_group, after_item, attribute, paths, sources};

/// A room may use rooms of a lower rank, and itself. `macros` is `src/macros.rs`: what it expands to names `base`.
const RANKS: [(&str, u8); 17] = [
    ("base", 0),
    ("macros", 1),
    ("bus", 1),
    ("records", 1),
    ("sds", 1),
    ("streams", 1),
    ("log", 1),
    ("persistence", 2),
    ("delivery", 2),
    ("bucket", 3),
    ("channel", 3),
    ("durable", 3),
    ("adapters", 4),
    ("store", 4),
    ("testkit", 5),
    ("inspect", 5),
    ("bin", 6),
];

/// Rooms that know the storage port and no adapter behind it.
const ADAPTER_BLIND: [&str; 5] = ["store", "bucket", "channel", "durable", "persistence"];
/// The crates that adapters are made of, and the features that bring them.
const DRIVERS: [&str; 4] = ["redb", "postgres", "tokio_postgres", "json-file"];
/// Where files may be opened, as beginnings of paths below `src`.
const FILE_SYSTEM: [&str; 5] = ["base/disk.rs", "base/disk/", "base/blocking.rs", "base/blocking/", "adapters/"];
/// Module files that hold code for now; one that needs no exception any more must go from this list.
const CROWDED: [&str; 1] = ["base/value/mod.rs"];

fn rank(room: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == room).map(|(_, rank)| *rank)
}

// ---- the checks: what is wrong with a source, in words

/// A room uses only rooms of a lower rank, by their names.
fn ranks(source: &Source) -> Vec<String> {
    let (path, room) = (&source.path, source.room());
    let Some(own) = rank(room) else {
        return if room == "lib" { vec![] } else { vec![format!("{path}: the room {room} has no rank")] };
    };
    let mut wrong = Vec::new();
    for Named { segments, depth, bang } in paths(&source.code) {
        let name = segments.join("::");
        let climbed = segments.iter().take_while(|segment| *segment == "super").count();
        if climbed > 0 && climbed >= source.depth() + depth {
            wrong.push(format!("{path}: {name} leaves the room through the roof"));
        }
        let [first, used, rest @ ..] = segments.as_slice() else { continue };
        if first != "crate" {
            continue;
        }
        let used = if bang && rest.is_empty() { "macros" } else { used.as_str() };
        match rank(used) {
            _ if used == room => {}
            Some(rank) if rank < own => {}
            Some(_) => wrong.push(format!("{path}: {room} must not use {used} ({name})")),
            None => wrong.push(format!("{path}: {name} is not named by its room")),
        }
    }
    wrong
}

/// Items of other kinds than `allowed` in a file that is a door plate.
fn plate(source: &Source, allowed: &[&str]) -> Vec<String> {
    let (path, code) = (&source.path, &source.code);
    let mut wrong = Vec::new();
    let mut index = 0;
    while index < code.len() {
        if let Some(bracket) = attribute(code, index) {
            index = after_group(code, bracket);
            continue;
        }
        let end = after_item(code, index).max(index + 1);
        let item = &code[index..end];
        let mut words = item.iter().filter_map(|token| match token {
            Token::Word(word) if word != "pub" && word != "crate" && word != "super" && word != "in" => {
                Some(word.as_str())
            }
            _ => None,
        });
        let keyword = words.next().unwrap_or("something");
        let name = words.next().unwrap_or_default();
        let inline = keyword == "mod" && item.last() != Some(&Token::Mark(';'));
        if !allowed.contains(&keyword) || inline {
            wrong.push(format!("{path}: {keyword} {name} does not belong on a door plate"));
        }
        index = end;
    }
    wrong
}

/// `lib.rs` and `mod.rs` files say what there is and define nothing; a `mod.rs` may name constants and types.
fn plates(source: &Source) -> Vec<String> {
    if source.path == "lib.rs" {
        let mut wrong = plate(source, &["mod", "use"]);
        for pair in source.code.windows(2) {
            if let [module, Token::Word(name)] = pair
                && module.is("mod")
                && rank(name).is_none()
            {
                wrong.push(format!("lib.rs: the room {name} has no rank"));
            }
        }
        wrong
    } else if source.path.ends_with("mod.rs") {
        plate(source, &["mod", "use", "const", "type"])
    } else {
        Vec::new()
    }
}

/// The types that adapters are: public structs of the adapters' room whose names end in `Adapter`.
fn adapter_types(source: &Source) -> Vec<String> {
    let structs = source.code.windows(2).filter_map(|pair| match pair {
        [keyword, Token::Word(name)] if keyword.is("struct") && name.ends_with("Adapter") => Some(name.clone()),
        _ => None,
    });
    if source.room() == "adapters" { structs.collect() } else { Vec::new() }
}

/// Rooms that work through the port name no adapter, no driver and no adapter's feature.
fn adapter_blindness(source: &Source, adapters: &BTreeSet<String>) -> Vec<String> {
    if !ADAPTER_BLIND.contains(&source.room()) {
        return Vec::new();
    }
    let named = source.code.iter().enumerate().filter_map(|(index, token)| match token {
        Token::Word(word) if word == "adapters" || adapters.contains(word) => Some(word),
        Token::Word(word) if DRIVERS.contains(&word.as_str()) && source.code.get(index + 1) == Some(&Token::Path) => {
            Some(word)
        }
        Token::Text(text) if DRIVERS.contains(&text.as_str()) => {
            let feature = index >= 2 && source.code[index - 2].is("feature");
            feature.then_some(text)
        }
        _ => None,
    });
    named.map(|name| format!("{}: {name} is an adapter's business", source.path)).collect()
}

/// Files are opened below the file-system seam and in adapters.
fn file_system(source: &Source) -> Vec<String> {
    if FILE_SYSTEM.iter().any(|allowed| source.path.starts_with(allowed)) {
        return Vec::new();
    }
    let named = paths(&source.code).into_iter().filter(|Named { segments, .. }| {
        let library = segments.first().is_some_and(|first| first == "std" || first == "tokio");
        library && segments.iter().any(|segment| segment == "fs")
    });
    named.map(|Named { segments, .. }| format!("{}: {} is not for here", source.path, segments.join("::"))).collect()
}

// ---- the checks on this crate

fn assert_none(wrong: impl IntoIterator<Item = String>) {
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn rooms_use_only_rooms_of_a_lower_rank() {
    assert_none(sources().iter().flat_map(ranks));
}

#[test]
fn lib_and_mod_files_define_nothing() {
    let sources = sources();
    let (crowded, others): (Vec<_>, Vec<_>) =
        sources.iter().partition(|source| CROWDED.contains(&source.path.as_str()));
    assert_none(others.into_iter().flat_map(plates));
    for source in crowded {
        assert!(!plates(source).is_empty(), "{} needs no exception any more", source.path);
    }
}

#[test]
fn rooms_behind_the_port_name_no_adapter() {
    let sources = sources();
    let adapters = sources.iter().flat_map(adapter_types).collect();
    assert_none(sources.iter().flat_map(|source| adapter_blindness(source, &adapters)));
}

#[test]
fn the_file_system_is_touched_below_its_seam_and_in_adapters_only() {
    assert_none(sources().iter().flat_map(file_system));
}

// ---- the checks can fail, and do not without reason

#[track_caller]
fn expect(wrong: &[String], parts: &[&str]) {
    assert_eq!(wrong.len(), parts.len(), "{wrong:#?}");
    for (wrong, part) in wrong.iter().zip(parts) {
        assert!(wrong.contains(part), "{wrong} does not tell of {part}");
    }
}

#[test]
fn a_use_of_a_room_that_is_not_lower_is_found_in_each_way_of_writing_it() {
    let of = |path: &str, source: &str| ranks(&Source::new(path, source));
    expect(&of("bus/topic.rs", "use crate::store::Store;"), &["bus must not use store"]);
    expect(&of("bus/topic.rs", "use crate::records::Record;"), &["bus must not use records"]);
    expect(&of("store/actor.rs", "fn f() { crate::adapters::memory::open() }"), &["store must not use adapters"]);
    expect(&of("bus/a.rs", "use crate::{base::error::Error, store::{A, B}};"), &["store::A", "store::B"]);
    expect(&of("bus/a.rs", "use crate::{base::{error::{Error, Result}, name}, sds::*};"), &["crate::sds::*"]);
    expect(&of("bus/a.rs", "use crate::{base::name as n, sds as s, bucket};"), &["use sds", "use bucket"]);
    expect(&of("base/a.rs", "type T = Vec<crate::bus::Event>;"), &["base must not use bus"]);
    expect(&of("base/a.rs", "macro_rules! m { () => { $crate::bus::Event } }"), &["base must not use bus"]);
    expect(&of("base/a.rs", "fn f() { crate::record! {} }"), &["base must not use macros"]);
    expect(&of("bus/a.rs", "use crate::Error;"), &["crate::Error is not named by its room"]);
    expect(&of("bus/topic.rs", "use super::super::store::Store;"), &["leaves the room"]);
    expect(&of("bus/mod.rs", "pub use super::store::Store;"), &["leaves the room"]);
    expect(&of("bus/a/b.rs", "use super::super::super::store::Store;"), &["leaves the room"]);
    expect(&of("bus/topic.rs", "mod inner { use super::super::super::store::Store; }"), &["leaves the room"]);
    expect(&of("kitchen/mod.rs", ""), &["kitchen has no rank"]);
    expect(&of("base/a.rs", "#[cfg(not(test))] use crate::bus::Event;"), &["base must not use bus"]);
    expect(&of("base/a.rs", "#[cfg(any(test, feature = \"x\"))] use crate::bus::Event;"), &["base must not use bus"]);
    expect(&of("base/a.rs", "#[cfg(test)] mod tests {} use crate::bus::Event;"), &["base must not use bus"]);
    expect(&of("base/a.rs", "#[cfg(test)] use a::{b}; use crate::bus::Event;"), &["base must not use bus"]);
    expect(&of("base/a.rs", "const C: char = '\"'; use crate::bus::Event; const D: char = '\"';"), &["use bus"]);
    expect(&of("base/a.rs", "fn f<'a>(x: &'a str) {} use crate::bus::Event;"), &["use bus"]);
    expect(&of("base/a.rs", "struct S { #[cfg(test)] a: crate::sds::A, b: crate::bus::B }"), &["use bus"]);
}

#[test]
fn lower_rooms_the_own_room_comments_strings_and_tests_are_fine() {
    let fine = r##"
        //! Uses [`crate::store`].
        /* crate::store::Store /* nested */ crate::store */
        use crate::base::{error::Error, name::{self, BucketName}};
        use crate::bus::{topic::Topic, *};
        use super::pattern::Pattern;
        pub(crate) fn f() -> &'static str { let _ = 'x'; "crate::store::Store" }
        const RAW: &str = r#"crate::store::"Store"#;
        mod inner { use super::f; use super::super::pattern; }
        #[cfg(test)]
        #[allow(unused)]
        mod tests { use crate::store::Store; fn f() { crate::adapters::open() } }
        #[cfg(test)]
        use crate::{store::Store, bucket};
        #[cfg(all(test, feature = "redb"))]
        pub(crate) const fn g() -> [u8; 2] { crate::store::g() }
    "##;
    assert_none(ranks(&Source::new("bus/topic.rs", fine)));
    assert_none(ranks(&Source::new("macros.rs", "macro_rules! m { () => { $crate::base::f($crate::m!(@v)) } }")));
}

#[test]
fn anything_but_modules_and_uses_is_found_on_a_door_plate() {
    let of = |path: &str, source: &str| plates(&Source::new(path, source));
    expect(&of("lib.rs", "pub fn f() {}"), &["fn f"]);
    expect(&of("lib.rs", "pub mod bus; pub struct S; const C: u8 = 1;"), &["struct S", "const C"]);
    expect(&of("lib.rs", "pub type R = u8; macro_rules! m { () => {} }"), &["type R", "macro_rules m"]);
    expect(&of("lib.rs", "pub mod bus { fn f() {} }"), &["mod bus"]);
    expect(&of("lib.rs", "mod kitchen;"), &["kitchen has no rank"]);
    expect(
        &of("bus/mod.rs", "pub(crate) enum E { A } impl E { fn f() {} } trait T {}"),
        &["enum E", "impl E", "trait T"],
    );
    expect(&of("bus/a/mod.rs", "static S: u8 = 0; pub async fn f() {}"), &["static S", "async fn"]);
    let fine = r#"
        //! Door plate.
        #![deny(unsafe_code)]
        #[macro_use] mod macros;
        pub mod bus;
        #[cfg(feature = "testkit")] pub mod testkit;
        pub use base::{error::{Error, Result}, name::*};
        #[cfg(doctest)] #[doc = include_str!("../README.md")] struct Readme;
        #[cfg(test)] mod tests { fn f() {} }
    "#;
    assert_none(of("lib.rs", fine));
    assert_none(of("bus/mod.rs", "mod a; pub use a::A; pub const MAX: [u8; 2] = [1; 2]; pub(crate) use a::B;"));
    assert_none(of("bus/topic.rs", "pub struct S; fn f() {}"));
}

#[test]
fn an_adapter_that_is_named_behind_the_port_is_found() {
    let adapters =
        adapter_types(&Source::new("adapters/redb/mod.rs", "pub struct RedbAdapter { inner: u8 } struct Other;"));
    assert_eq!(adapters, ["RedbAdapter"]);
    assert!(adapter_types(&Source::new("persistence/none.rs", "pub struct FakeAdapter;")).is_empty());
    let adapters = adapters.into_iter().collect();
    let of = |path: &str, source: &str| adapter_blindness(&Source::new(path, source), &adapters);
    expect(&of("store/builder.rs", "fn f(_: RedbAdapter) {}"), &["RedbAdapter"]);
    expect(&of("store/builder.rs", "use crate::adapters::memory;"), &["adapters"]);
    expect(&of("bucket/actor.rs", "fn f() { redb::Database::open() }"), &["redb"]);
    expect(&of("persistence/actor.rs", "#[cfg(feature = \"redb\")] fn f() {}"), &["redb"]);
    assert_none(of("adapters/redb/mod.rs", "use redb::Database; pub struct RedbAdapter;"));
    assert_none(of(
        "store/a.rs",
        "/// As `RedbAdapter`.\nfn f(_: Arc<dyn StorageAdapter>) {}\n#[cfg(test)] mod tests { use crate::adapters; }",
    ));
}

#[test]
fn files_opened_outside_of_the_seam_are_found() {
    let of = |path: &str, source: &str| file_system(&Source::new(path, source));
    expect(&of("store/actor.rs", "use std::fs::File;"), &["std::fs::File"]);
    expect(&of("store/actor.rs", "use std::{fs, io};"), &["std::fs"]);
    expect(
        &of("store/actor.rs", "use std::{io::{self, Read}, fs::{File, OpenOptions}};"),
        &["fs::File", "fs::OpenOptions"],
    );
    expect(&of("log/actor.rs", "async fn f() { tokio::fs::read(\"x\").await }"), &["tokio::fs::read"]);
    expect(&of("bus/a.rs", "use std::os::unix::fs::FileExt;"), &["std::os::unix::fs::FileExt"]);
    expect(&of("base/disks.rs", "use std::fs;"), &["std::fs"]);
    for path in ["base/disk.rs", "base/disk/atomic.rs", "base/blocking.rs", "adapters/json_file/file.rs"] {
        assert_none(of(path, "use std::fs::File;"));
    }
    assert_none(of("store/actor.rs", "use std::fmt; /* std::fs */ #[cfg(test)] mod tests { use std::fs; }"));
}
