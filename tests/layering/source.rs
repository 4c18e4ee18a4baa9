//! Reads sources just well enough to know which paths and items are code outside of tests.
#![allow(clippy::unwrap_used, reason = "sources that cannot be read fail the tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Text(String),
    /// A number, character or lifetime.
    Other,
    /// `::`
    Path,
    Mark(char),
}

impl Token {
    pub(super) fn is(&self, word: &str) -> bool {
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
pub(super) fn after_group(tokens: &[Token], open: usize) -> usize {
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
pub(super) fn attribute(tokens: &[Token], index: usize) -> Option<usize> {
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
pub(super) fn after_item(tokens: &[Token], mut index: usize) -> usize {
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
pub(super) struct Named {
    pub(super) segments: Vec<String>,
    pub(super) depth: usize,
    /// Whether it is called as a macro.
    pub(super) bang: bool,
}

pub(super) fn paths(tokens: &[Token]) -> Vec<Named> {
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
pub(super) struct Source {
    pub(super) path: String,
    pub(super) code: Vec<Token>,
}

impl Source {
    pub(super) fn new(path: &str, source: &str) -> Self {
        Self { path: path.into(), code: production(&tokens(source)).0 }
    }

    pub(super) fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules are between the crate's root and this file's contents.
    pub(super) fn depth(&self) -> usize {
        self.path.split('/').filter(|part| *part != "mod.rs" && *part != "lib.rs").count()
    }
}

/// All sources below `src` but the files that are modules for tests.
pub(super) fn sources() -> Vec<Source> {
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
