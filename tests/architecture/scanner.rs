//! Reads Rust source as tokens: enough to see every path that a file names, where it names it, and whether only tests see
//! it. Comments, doc comments and literals are dropped, so a link in a doc comment is not an import.

/// One token with the line that it stands on.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// An identifier, `::`, a single other character, or `""` for any literal text.
    pub(crate) text: String,
    /// Counted from 1.
    pub(crate) line: usize,
    /// Inside an item that only tests see (`#[cfg(test)]`).
    pub(crate) in_test: bool,
}

impl Token {
    fn is_identifier(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }

    /// Whether this can be a segment of a path: `crate`, `self` and `super` can, other keywords cannot.
    fn is_segment(&self) -> bool {
        const KEYWORDS: [&str; 34] = [
            "as", "async", "await", "break", "const", "continue", "dyn", "else", "enum", "extern", "false", "fn",
            "for", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "static",
            "struct", "trait", "true", "type", "unsafe", "use", "where", "while",
        ];
        self.is_identifier() && !KEYWORDS.contains(&self.text.as_str())
    }
}

/// A path that the source names, a `use` group already taken apart.
#[derive(Debug, Clone)]
pub(crate) struct NamedPath {
    /// As written; a glob ends in `*`, a renaming in `as`.
    pub(crate) segments: Vec<String>,
    /// Counted from 1.
    pub(crate) line: usize,
    /// Inside an item that only tests see (`#[cfg(test)]`).
    pub(crate) in_test: bool,
    /// In a `use` or `extern crate`, where one segment alone is already a crate.
    pub(crate) imported: bool,
    /// The inline modules (`mod a { mod b {`) around it.
    pub(crate) inline_modules: Vec<String>,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A top-level module of this crate.
    Module(String),
    /// The crate root as a whole, by a glob or under another name.
    Root,
    /// Another crate, or a name in scope.
    Outside,
}

impl NamedPath {
    /// Resolves `crate`, `self` and `super` for a file that is the module `file_module`.
    pub(crate) fn target(&self, file_module: &[String]) -> Target {
        let mut here: Vec<&str> = file_module.iter().chain(&self.inline_modules).map(String::as_str).collect();
        let mut rest: Vec<&str> = self.segments.iter().map(String::as_str).collect();
        match rest[0] {
            "crate" | "amazon_pay_ipn" => here.clear(),
            "self" => {}
            "super" => {
                here.pop();
            }
            _ => return Target::Outside,
        }
        rest.remove(0);
        while rest.first() == Some(&"super") {
            here.pop();
            rest.remove(0);
        }
        match (here.first().copied(), rest.first().copied()) {
            // `crate` without a path is a visibility such as `pub(crate)`.
            (None, None) => Target::Outside,
            (None, Some("*" | "as" | "self")) => Target::Root,
            (Some(module), _) | (None, Some(module)) => Target::Module(module.to_owned()),
        }
    }
}

/// Splits source into tokens and marks those inside `#[cfg(test)]` items.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Lexer { chars: source.chars().collect(), at: 0, line: 1, tokens: Vec::new() }.run();
    mark_tests(&mut tokens);
    tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn run(mut self) -> Vec<Token> {
        while let Some(first) = self.peek(0) {
            match first {
                '/' if self.peek(1) == Some('/') => self.skip_while(|c| c != '\n'),
                '/' if self.peek(1) == Some('*') => self.skip_block_comment(),
                '"' => self.string(),
                '\'' => self.char_or_lifetime(),
                c if c.is_alphabetic() || c == '_' => self.word(),
                c if c.is_ascii_digit() => {
                    self.skip_while(|c| c.is_alphanumeric() || c == '_');
                    self.push("\"\"");
                }
                ':' if self.peek(1) == Some(':') => {
                    self.push("::");
                    self.at += 2;
                }
                '-' | '=' if self.peek(1) == Some('>') => {
                    self.push("->");
                    self.at += 2;
                }
                c => {
                    if !c.is_whitespace() {
                        self.push(&c.to_string());
                    }
                    self.bump();
                }
            }
        }
        self.tokens
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn bump(&mut self) {
        if self.peek(0) == Some('\n') {
            self.line += 1;
        }
        self.at += 1;
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&wanted) {
            self.bump();
        }
    }

    fn push(&mut self, text: &str) {
        self.tokens.push(Token { text: text.to_owned(), line: self.line, in_test: false });
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('*')) => {
                    depth += 1;
                    self.bump();
                }
                ('*', Some('/')) => {
                    depth -= 1;
                    self.bump();
                }
                _ => {}
            }
            self.bump();
            if depth == 0 {
                break;
            }
        }
    }

    fn string(&mut self) {
        self.push("\"\"");
        self.bump();
        while let Some(c) = self.peek(0) {
            if c == '\\' {
                self.bump();
            }
            self.bump();
            if c == '"' {
                break;
            }
        }
    }

    fn raw_string(&mut self) {
        self.push("\"\"");
        let mut hashes = 0;
        while self.peek(0) == Some('#') {
            hashes += 1;
            self.bump();
        }
        self.bump();
        while let Some(c) = self.peek(0) {
            self.bump();
            if c == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                self.at += hashes;
                break;
            }
        }
    }

    fn char_or_lifetime(&mut self) {
        if self.peek(1) == Some('\\') {
            self.at += 3;
            self.skip_while(|c| c != '\'');
            self.bump();
            self.push("\"\"");
        } else if self.peek(2) == Some('\'') {
            self.bump();
            self.bump();
            self.bump();
            self.push("\"\"");
        } else {
            self.bump();
            self.skip_while(|c| c.is_alphanumeric() || c == '_');
        }
    }

    fn word(&mut self) {
        let start = self.at;
        self.skip_while(|c| c.is_alphanumeric() || c == '_');
        let word: String = self.chars[start..self.at].iter().collect();
        let after_hashes = self.chars[self.at..].iter().find(|c| **c != '#');
        match (word.as_str(), self.peek(0)) {
            ("r" | "br" | "cr", Some('"' | '#')) if after_hashes == Some(&'"') => self.raw_string(),
            ("b" | "c", Some('"')) => self.string(),
            ("b", Some('\'')) => self.char_or_lifetime(),
            ("r", Some('#')) => self.bump(), // a raw identifier: its name follows
            _ => self.push(&word),
        }
    }
}

fn texts_at(tokens: &[Token], at: usize, wanted: &[&str]) -> bool {
    tokens.len() >= at + wanted.len() && tokens[at..].iter().zip(wanted).all(|(token, text)| token.text == *text)
}

/// The index after the bracket that closes the one at `open`.
fn after_closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Whether an attribute at `at` is a `cfg` that only tests fulfil: `cfg(test)`, or `cfg(all(..., test, ...))`.
fn only_for_tests(tokens: &[Token], at: usize) -> bool {
    let is_all = texts_at(tokens, at, &["cfg", "(", "all", "("]);
    let open = at + if is_all { 3 } else { 1 };
    if !is_all && !texts_at(tokens, at, &["cfg", "("]) {
        return false;
    }
    let mut argument = open + 1;
    while argument < after_closing(tokens, open) - 1 {
        if texts_at(tokens, argument, &["test"]) && matches!(before(tokens, argument + 2, 1), "," | ")") {
            return true;
        }
        while !matches!(before(tokens, argument + 1, 1), "," | ")" | "") {
            argument = if texts_at(tokens, argument, &["("]) { after_closing(tokens, argument) } else { argument + 1 };
        }
        argument += 1;
    }
    false
}

/// The index of the item after the attributes that start at `at`.
fn after_attributes(tokens: &[Token], mut at: usize) -> usize {
    while texts_at(tokens, at, &["#", "["]) {
        at = after_closing(tokens, at + 1);
    }
    at
}

fn mark_tests(tokens: &mut [Token]) {
    // A file that begins with #![cfg(test)] is a test as a whole.
    let whole_file = texts_at(tokens, 0, &["#", "!", "["]) && only_for_tests(tokens, 3);
    let mut at = 0;
    while at < tokens.len() {
        if whole_file {
            tokens[at].in_test = true;
        } else if texts_at(tokens, at, &["#", "["]) && only_for_tests(tokens, at + 2) {
            let mut end = item_end(tokens, after_attributes(tokens, at));
            end = end.max(at);
            for token in &mut tokens[at..end] {
                token.in_test = true;
            }
            at = end.max(at + 1);
            continue;
        }
        at += 1;
    }
}

/// The index after the item that begins at `start`; `start` itself if no item begins there (a field, a match arm).
fn item_end(tokens: &[Token], start: usize) -> usize {
    const ITEMS: [&str; 13] = [
        "mod",
        "use",
        "fn",
        "impl",
        "struct",
        "enum",
        "trait",
        "type",
        "const",
        "static",
        "async",
        "unsafe",
        "macro_rules",
    ];
    let mut at = start;
    if texts_at(tokens, at, &["pub"]) {
        at += 1;
        if texts_at(tokens, at, &["("]) {
            at = after_closing(tokens, at);
        }
    }
    if !tokens.get(at).is_some_and(|token| ITEMS.contains(&token.text.as_str())) {
        return start;
    }
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => return after_closing(tokens, at),
            ";" => return at + 1,
            "(" | "[" => at = after_closing(tokens, at),
            _ => at += 1,
        }
    }
    at
}

/// The names of modules declared as `#[cfg(test)] mod name;`: their files are tests.
pub(crate) fn test_modules_in_files(tokens: &[Token]) -> Vec<String> {
    tokens
        .windows(3)
        .filter(|three| three[0].in_test && three[0].text == "mod" && three[2].text == ";")
        .map(|three| three[1].text.clone())
        .collect()
}

/// Every path that the tokens name.
pub(crate) fn paths(tokens: &[Token]) -> Vec<NamedPath> {
    let mut found = Vec::new();
    let mut modules: Vec<(String, usize)> = Vec::new();
    let mut depth = 0_usize;
    let mut at = 0;
    while at < tokens.len() {
        let group = tokens[at].text == "{" && before(tokens, at, 1) == "use";
        match tokens[at].text.as_str() {
            "{" if !group => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                modules.pop_if(|(_, opened_at)| *opened_at > depth);
            }
            "mod" if texts_at(tokens, at + 2, &["{"]) => modules.push((tokens[at + 1].text.clone(), depth + 1)),
            _ => {}
        }
        if group || starts_path(tokens, at) {
            let imported = matches!(before(tokens, at, 1), "use" | "crate")
                || (before(tokens, at, 1) == "::" && before(tokens, at, 2) == "use");
            let mut tree = Tree { tokens, leaves: Vec::new() };
            at = tree.read(at, &[]);
            found.extend(tree.leaves.into_iter().map(|(segments, leaf)| NamedPath {
                segments,
                line: tokens[leaf].line,
                in_test: tokens[leaf].in_test,
                imported,
                inline_modules: modules.iter().map(|(name, _)| name.clone()).collect(),
            }));
        } else {
            at += 1;
        }
    }
    found
}

fn before(tokens: &[Token], at: usize, back: usize) -> &str {
    at.checked_sub(back).map_or("", |index| tokens[index].text.as_str())
}

fn starts_path(tokens: &[Token], at: usize) -> bool {
    if !tokens[at].is_segment() {
        return false;
    }
    match before(tokens, at, 1) {
        // `a::b` and `<T>::b` go on; `use ::b` and `(::b` start.
        "::" => at < 2 || !(tokens[at - 2].is_segment() || tokens[at - 2].text == ">"),
        // A field or method, unless it is the end of a range.
        "." => before(tokens, at, 2) == ".",
        "mod" | "fn" => false,
        _ => true,
    }
}

struct Tree<'a> {
    tokens: &'a [Token],
    leaves: Vec<(Vec<String>, usize)>,
}

impl Tree<'_> {
    /// Reads a path or a group at `at` behind `prefix`; returns the index after it.
    fn read(&mut self, mut at: usize, prefix: &[String]) -> usize {
        let mut segments = prefix.to_vec();
        loop {
            let Some(token) = self.tokens.get(at) else { return at };
            match token.text.as_str() {
                "{" => {
                    at += 1;
                    while at < self.tokens.len() && self.tokens[at].text != "}" {
                        let next = if self.tokens[at].text == "," { at + 1 } else { self.read(at, &segments) };
                        at = next.max(at + 1);
                    }
                    return at + 1;
                }
                "*" => {
                    segments.push("*".to_owned());
                    self.leaves.push((segments, at));
                    return at + 1;
                }
                _ if token.is_segment() => segments.push(token.text.clone()),
                _ => return at,
            }
            let goes_on = texts_at(self.tokens, at + 1, &["::"])
                && self.tokens.get(at + 2).is_some_and(|t| t.is_segment() || t.text == "{" || t.text == "*");
            if goes_on {
                at += 2;
                continue;
            }
            let renamed = texts_at(self.tokens, at + 1, &["as"]);
            if renamed {
                segments.push("as".to_owned());
            }
            self.leaves.push((segments, at));
            return at + if renamed { 3 } else { 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(source: &str) -> Vec<String> {
        paths(&tokens(source)).iter().map(|path| path.segments.join("::")).collect()
    }

    fn targets(source: &str, file_module: &[&str]) -> Vec<Target> {
        let file_module: Vec<String> = file_module.iter().map(|name| (*name).to_owned()).collect();
        paths(&tokens(source)).iter().map(|path| path.target(&file_module)).collect()
    }

    fn module(name: &str) -> Target {
        Target::Module(name.to_owned())
    }

    #[test]
    fn groups_are_taken_apart_at_every_depth() {
        assert_eq!(
            named("use crate::{clock, model::{ids, money::*}, store as db};"),
            ["crate::clock", "crate::model::ids", "crate::model::money::*", "crate::store::as"]
        );
        assert_eq!(named("use {redis::Client, std::{env, fs}};"), ["redis::Client", "std::env", "std::fs"]);
    }

    #[test]
    fn paths_in_expressions_types_attributes_and_macros_are_seen() {
        let source = "#[tokio::main] fn f(a: &'a redis::Client) -> ::axum::Router { x(crate::store::keys::<u8>(), 0..redis::N) }";
        for path in ["tokio::main", "redis::Client", "axum::Router", "crate::store::keys", "redis::N"] {
            assert!(named(source).contains(&path.to_owned()), "{path}: {:?}", named(source));
        }
        assert!(named("macro_rules! m { () => { $crate::store::f() } }").contains(&"crate::store::f".to_owned()));
    }

    #[test]
    fn fields_methods_and_inner_segments_start_no_path() {
        assert!(!named("self.redis.get(); model::redis::x();").iter().any(|path| path.starts_with("redis")));
    }

    #[test]
    fn comments_and_literals_name_nothing() {
        let source = r##"
            // redis::A
            /* redis::B /* redis::C */ redis::D */
            /// [`redis::E`]
            const S: &str = "redis::F \" redis::G";
            const R: &str = r#"redis::H " redis::I"#;
            const B: (&[u8], char, char, u8) = (b"redis::J", '"', '\'', b'"');
            const U: char = '\u{22}';
        "##;
        assert!(!named(source).iter().any(|path| path.contains("redis")), "{:?}", named(source));
        assert_eq!(tokens("\"a\nb\"\nx").last().map(|token| token.line), Some(3));
    }

    #[test]
    fn super_is_followed_through_the_module_tree() {
        assert_eq!(targets("use super::ids;", &["model", "money"]), [module("model")]);
        assert_eq!(targets("use super::super::store;", &["http", "public"]), [module("store")]);
        assert_eq!(targets("use self::super::store;", &["http"]), [module("store")]);
        assert_eq!(targets("use super::{store, model::ids};", &["http"]), [module("store"), module("model")]);
        assert_eq!(targets("mod tests { use super::*; }", &["clock"])[0], module("clock"));
        assert_eq!(targets("mod a { mod b {} } use super::store;", &["http"])[0], module("store"));
    }

    #[test]
    fn the_crate_root_as_a_whole_is_recognised() {
        for source in ["use crate::*;", "use crate as c;", "use crate::{self as c};"] {
            assert_eq!(targets(source, &["http"])[0], Target::Root, "{source}");
        }
        assert_eq!(targets("use super::*;", &["http"])[0], Target::Root);
        assert_eq!(targets("pub(crate) fn f() {}", &["http"])[0], Target::Outside);
    }

    #[test]
    fn only_items_marked_as_tests_are_tests() {
        let source = "
            struct S { #[cfg(test)] a: u8, b: redis::A }
            #[cfg(test)] use redis::B;
            #[cfg(test)] #[expect(x)] pub(crate) mod tests { fn f() -> [u8; 2] { redis::C } }
            fn g() { redis::D }
            #[cfg(test)] mod elsewhere;
            #[cfg(not(test))] fn h() { redis::E }
            #[cfg(any(test, feature = \"a\"))] fn h() { redis::F }
            #[cfg(all(test, feature = \"a\"))] fn h() { redis::G }
            #[cfg(all(unix, not(a), test))] fn h() { redis::H }
            #[cfg(all(unix, not(test)))] fn h() { redis::I }
        ";
        let tests: Vec<(String, bool)> = paths(&tokens(source))
            .into_iter()
            .filter(|path| path.segments[0] == "redis")
            .map(|path| (path.segments[1].clone(), path.in_test))
            .collect();
        let only_in_tests: String =
            tests.iter().filter(|(_, in_test)| *in_test).map(|(name, _)| name.as_str()).collect();
        assert_eq!((tests.len(), only_in_tests.as_str()), (9, "BCGH"));
        assert_eq!(test_modules_in_files(&tokens(source)), ["elsewhere"]);
        assert!(tokens("#![cfg(test)] use redis::X;").iter().all(|token| token.in_test));
    }
}
