//! The rooms keep to their order: a room uses only rooms of a lower rank, `lib.rs` and `mod.rs` files are door plates,
//! nobody but the adapters knows an adapter, and the file system is touched in few places.
//!
//! Without this, the first shortcut through the layers goes in unseen, and after some more of them no part can be
//! understood, tested or replaced by itself. Comments, documentation and `#[cfg(test)]` items are not code here. Each
//! check is also run on sources that break its rule, so that it is known to be able to fail.
#![allow(clippy::unwrap_used, reason = "sources that cannot be read fail the tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
const ADAPTER_BLIND: [&str; 4] = ["store", "bucket", "channel", "persistence"];
/// The crates that adapters are made of, and the features that bring them.
const DRIVERS: [&str; 4] = ["redb", "postgres", "tokio_postgres", "json-file"];
/// Where files may be opened, as beginnings of paths below `src`.
const FILE_SYSTEM: [&str; 5] = ["base/disk.rs", "base/disk/", "base/blocking.rs", "base/blocking/", "adapters/"];
/// Module files that hold code for now; one that needs no exception any more must go from this list.
const CROWDED: [&str; 1] = ["base/value/mod.rs"];

fn rank(room: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == room).map(|(_, rank)| *rank)
}

// ---- reading sources

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    /// A number, character or lifetime.
    Other,
    /// `::`
    Path,
    Mark(char),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own == word)
    }
}

/// Splits a source into tokens, without comments.
fn tokens(source: &str) -> Vec<Token> {
    let source: Vec<char> = source.chars().collect();
    let at = |index: usize| source.get(index).copied().unwrap_or('\0');
    let begins =
        |index: usize, text: &str| text.chars().enumerate().all(|(offset, wanted)| at(index + offset) == wanted);
    let mut found = Vec::new();
    let mut index = 0;
    while index < source.len() {
        let character = at(index);
        if begins(index, "//") {
            while index < source.len() && at(index) != '\n' {
                index += 1;
            }
        } else if begins(index, "/*") {
            let mut depth = 0_usize;
            while index < source.len() {
                if begins(index, "/*") {
                    (depth, index) = (depth + 1, index + 2);
                } else if begins(index, "*/") {
                    (depth, index) = (depth - 1, index + 2);
                } else {
                    index += 1;
                }
                if depth == 0 {
                    break;
                }
            }
        } else if let Some((text, end)) = text_literal(&source, index) {
            found.push(Token::Text(text));
            index = end;
        } else if character == '\'' {
            // A lifetime unless a quote follows one character, or an escape.
            found.push(Token::Other);
            if at(index + 1) == '\\' {
                index += 3;
                while index < source.len() && at(index) != '\'' {
                    index += 1;
                }
                index += 1;
            } else if at(index + 2) == '\'' {
                index += 3;
            } else {
                index += 1;
                while at(index).is_alphanumeric() || at(index) == '_' {
                    index += 1;
                }
            }
        } else if character.is_alphanumeric() || character == '_' {
            let start = index;
            while at(index).is_alphanumeric() || at(index) == '_' {
                index += 1;
            }
            let word: String = source[start..index].iter().collect();
            found.push(if character.is_numeric() { Token::Other } else { Token::Word(word) });
        } else if begins(index, "::") {
            found.push(Token::Path);
            index += 2;
        } else {
            if !character.is_whitespace() {
                found.push(Token::Mark(character));
            }
            index += 1;
        }
    }
    found
}

/// The string literal at a place, and where it ends: plain, raw, of bytes or for C.
fn text_literal(source: &[char], start: usize) -> Option<(String, usize)> {
    let at = |index: usize| source.get(index).copied().unwrap_or('\0');
    if start > 0 && (at(start - 1).is_alphanumeric() || at(start - 1) == '_') {
        return None;
    }
    let mut index = start;
    if matches!(at(index), 'b' | 'c') {
        index += 1;
    }
    let raw = at(index) == 'r';
    if raw {
        index += 1;
    }
    let quoted = index;
    while raw && at(index) == '#' {
        index += 1;
    }
    let hashes = index - quoted;
    if at(index) != '"' {
        return None;
    }
    index += 1;
    let begin = index;
    while index < source.len() {
        if !raw && at(index) == '\\' {
            index += 2;
        } else if at(index) == '"' && (1..=hashes).all(|offset| at(index + offset) == '#') {
            return Some((source[begin..index].iter().collect(), index + 1 + hashes));
        } else {
            index += 1;
        }
    }
    None
}

/// The index after the group that opens at `open`.
fn after_group(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

/// The index of the bracket that opens the attribute at `index`, if one is there.
fn attribute(tokens: &[Token], index: usize) -> Option<usize> {
    if tokens.get(index) != Some(&Token::Mark('#')) {
        return None;
    }
    let bracket = if tokens.get(index + 1) == Some(&Token::Mark('!')) { index + 2 } else { index + 1 };
    (tokens.get(bracket) == Some(&Token::Mark('['))).then_some(bracket)
}

/// Whether the tokens in the brackets of an attribute say `cfg(test)`, `cfg(doctest)` or `cfg(all(test, …))`.
fn is_for_tests(attribute: &[Token]) -> bool {
    let test = |token: &Token| token.is("test") || token.is("doctest");
    match attribute {
        [cfg, Token::Mark('('), only, Token::Mark(')')] => cfg.is("cfg") && test(only),
        [cfg, Token::Mark('('), all, rest @ ..] => {
            cfg.is("cfg") && all.is("all") && rest.iter().any(test) && !rest.iter().any(|token| token.is("not"))
        }
        _ => false,
    }
}

/// The index after the item, statement, field or arm at `index`.
fn after_item(tokens: &[Token], mut index: usize) -> usize {
    while let Some(bracket) = attribute(tokens, index) {
        index = after_group(tokens, bracket);
    }
    let ends_with_semicolon = ["use", "const", "static", "type", "let", "extern"];
    let ends_with_braces = ["mod", "fn", "struct", "enum", "impl", "trait", "union", "unsafe", "async", "macro_rules"];
    if tokens.get(index).is_some_and(|token| token.is("pub")) {
        index += 1;
        if tokens.get(index) == Some(&Token::Mark('(')) {
            index = after_group(tokens, index);
        }
    }
    let is_one_of = |words: &[&str]| tokens.get(index).is_some_and(|token| words.iter().any(|word| token.is(word)));
    let (semicolon, braces) = (is_one_of(&ends_with_semicolon), is_one_of(&ends_with_braces));
    let function = tokens.get(index + 1).is_some_and(|token| token.is("fn"));
    while let Some(token) = tokens.get(index) {
        match token {
            Token::Mark(';') => return index + 1,
            Token::Mark(',') if !semicolon && !braces => return index + 1,
            Token::Mark(')' | ']' | '}') => return index,
            Token::Mark('{') if braces || (semicolon && function) => return after_group(tokens, index),
            Token::Mark('(' | '[' | '{') => index = after_group(tokens, index),
            _ => index += 1,
        }
    }
    index
}

/// What is code outside of tests, and the names of the modules that are for tests and in files of their own.
fn production(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let (mut code, mut test_modules) = (Vec::new(), Vec::new());
    let mut index = 0;
    while index < tokens.len() {
        if let Some(bracket) = attribute(tokens, index) {
            let end = after_group(tokens, bracket);
            if is_for_tests(&tokens[bracket + 1..end - 1]) {
                let after = after_item(tokens, end);
                if let [.., module, Token::Word(name), Token::Mark(';')] = &tokens[end..after]
                    && module.is("mod")
                {
                    test_modules.push(name.clone());
                }
                index = after;
                continue;
            }
        }
        code.push(tokens[index].clone());
        index += 1;
    }
    (code, test_modules)
}

/// A path as it stands in the code, groups of `use` spread out, and how many modules are open around it in its file.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    segments: Vec<String>,
    depth: usize,
    /// Whether it is called as a macro.
    bang: bool,
}

fn paths(tokens: &[Token]) -> Vec<Named> {
    let mut found = Vec::new();
    // For each brace that is open, whether it is a module's.
    let mut open = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        match &tokens[index] {
            Token::Word(_) => {
                let mut spread = Vec::new();
                index = spread_path(tokens, index, &mut Vec::new(), &mut spread);
                let depth = open.iter().filter(|module| **module).count();
                let bang = tokens.get(index) == Some(&Token::Mark('!'));
                found.extend(spread.into_iter().map(|segments| Named { segments, depth, bang }));
                continue;
            }
            Token::Mark('{') => {
                let module = index >= 2 && tokens[index - 2].is("mod");
                open.push(module);
            }
            Token::Mark('}') => drop(open.pop()),
            _ => {}
        }
        index += 1;
    }
    found
}

/// Reads the path or group at `index`, whose first segments are in `before`; answers the index after it.
fn spread_path(tokens: &[Token], mut index: usize, before: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let length = before.len();
    loop {
        match tokens.get(index) {
            Some(Token::Word(word)) => {
                before.push(word.clone());
                index += 1;
            }
            Some(Token::Mark('*')) if !before.is_empty() => {
                before.push("*".into());
                index += 1;
            }
            Some(Token::Mark('{')) if !before.is_empty() => {
                let end = after_group(tokens, index);
                index += 1;
                while index + 1 < end {
                    let next = spread_path(tokens, index, before, found);
                    index = next.max(index + 1);
                    while index + 1 < end && tokens[index - 1] != Token::Mark(',') {
                        index += 1;
                    }
                }
                before.truncate(length);
                return end;
            }
            _ => break,
        }
        match (tokens.get(index), tokens.get(index + 1)) {
            (Some(Token::Path), Some(Token::Word(_) | Token::Mark('*' | '{'))) => index += 1,
            _ => break,
        }
    }
    if before.len() > length {
        found.push(before.clone());
    }
    before.truncate(length);
    index
}

/// One source file: its path below `src`, with `/`, and what is code in it.
struct Source {
    path: String,
    code: Vec<Token>,
}

impl Source {
    fn new(path: &str, source: &str) -> Self {
        Self { path: path.into(), code: production(&tokens(source)).0 }
    }

    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules are between the crate's root and this file's contents.
    fn depth(&self) -> usize {
        self.path.split('/').filter(|part| *part != "mod.rs" && *part != "lib.rs").count()
    }
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

/// All sources below `src` but the files that are modules for tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    collect(&root, "", &mut all);
    assert!(all.len() > 20, "the sources were found");
    all
}

fn collect(folder: &Path, below: &str, all: &mut Vec<Source>) {
    let (mut files, mut folders, mut for_tests) = (Vec::new(), Vec::new(), BTreeSet::new());
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            folders.push(name);
        } else if name.ends_with(".rs") {
            files.push(name);
        }
    }
    files.sort();
    folders.sort();
    let mut here = Vec::new();
    for name in files {
        let source = fs::read_to_string(folder.join(&name)).unwrap();
        let (code, test_modules) = production(&tokens(&source));
        // `mod tests;` in `mod.rs` is `tests.rs` beside it; in `x.rs` it is `x/tests.rs`.
        let own = if name == "mod.rs" || name == "lib.rs" { "" } else { name.trim_end_matches(".rs") };
        let prefix = if own.is_empty() { String::new() } else { format!("{own}/") };
        for_tests.extend(test_modules.into_iter().map(|module| format!("{below}{prefix}{module}")));
        here.push(Source { path: format!("{below}{name}"), code });
    }
    let is_for_tests = |path: &str| for_tests.iter().any(|module| path.trim_end_matches(".rs") == module);
    all.extend(here.into_iter().filter(|source| !is_for_tests(&source.path)));
    for name in folders {
        let path = format!("{below}{name}");
        if !is_for_tests(&path) {
            let mut inside = Vec::new();
            collect(&folder.join(&name), &format!("{path}/"), &mut inside);
            let below_tests =
                |source: &Source| for_tests.iter().any(|module| source.path.starts_with(&format!("{module}/")));
            all.extend(inside.into_iter().filter(|source| !is_for_tests(&source.path) && !below_tests(source)));
        }
    }
}

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
