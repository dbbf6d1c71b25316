//! The rules of the house, kept as tests: who may import whom, where the outside world is touched, how large and how named
//! a file may be, which crypto libraries may be linked, and what a Lua script must say about itself.
//!
//! The table is in `IMPORTS`; its reasons are in `docs/ARCHITECTURE.md`. Rust files are read as text (`scanner`), so the
//! rules also hold for code behind features. Each rule is tried on a wrong example below.

#[path = "architecture/scanner.rs"]
mod scanner;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use scanner::{NamedPath, Target};

/// For each top-level module the modules of this crate that it may use besides itself.
const IMPORTS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("crash", &[]),
    ("telemetry", &[]),
    ("model", &[]),
    ("recovery", &["model"]),
    ("preflight", &["model"]),
    ("sns", &["model", "clock", "telemetry"]),
    ("ipn", &["sns", "model"]),
    ("amazon_pay", &["model", "clock", "telemetry"]),
    ("store", &["model", "clock", "telemetry"]),
    ("reconciler", &["store", "amazon_pay", "recovery", "model", "clock", "telemetry"]),
    ("forwarder", &["store", "clock", "telemetry"]),
    ("http", &["store", "sns", "ipn", "model", "clock", "telemetry", "recovery", "preflight"]),
    ("sandbox", &["clock", "model"]),
    ("config", &["sns", "amazon_pay", "store", "forwarder", "recovery", "model", "clock", "telemetry", "crash"]),
    (
        "app",
        &[
            "clock",
            "telemetry",
            "model",
            "recovery",
            "preflight",
            "sns",
            "ipn",
            "amazon_pay",
            "store",
            "reconciler",
            "forwarder",
            "http",
            "config",
        ],
    ),
    (
        "cli",
        &[
            "clock",
            "telemetry",
            "model",
            "recovery",
            "preflight",
            "sns",
            "ipn",
            "amazon_pay",
            "store",
            "reconciler",
            "http",
            "sandbox",
            "config",
            "app",
            "crash",
        ],
    ),
];

/// For each crate that touches the outside world the places that may use it: a module, or one file of it.
const DOORS: &[(&str, &[&str])] = &[
    ("redis", &["store"]),
    ("axum", &["http", "sandbox", "app"]),
    ("hyper", &["http/listener"]),
    ("hyper_util", &["http/listener"]),
    ("rlimit", &["http/listener", "cli/serve"]),
    ("rustix", &["crash"]),
    ("reqwest", &["amazon_pay", "sns/certificate", "forwarder", "telemetry/trace", "sandbox", "cli"]),
    ("aws_sdk_sns", &["sns/subscription"]),
    ("opentelemetry", &["telemetry/trace"]),
    ("opentelemetry_otlp", &["telemetry/trace"]),
    ("opentelemetry_sdk", &["telemetry/trace"]),
    ("tracing_opentelemetry", &["telemetry/trace"]),
    ("aws_smithy_http_client", &["sns/subscription"]),
];

/// Modules without I/O and without waiting.
const PURE: [&str; 3] = ["model", "recovery", "preflight"];

const MAX_LINES: usize = 500;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 5] = ["utils", "helpers", "common", "core", "manager"];

const BANNED_CRATES: [&str; 9] = [
    "openssl",
    "openssl-sys",
    "openssl-src",
    "native-tls",
    "aws-lc-rs",
    "aws-lc-sys",
    "aws-lc-fips-sys",
    "boring-sys",
    "rustls-openssl",
];

/// A broken rule: where, which, and what to do.
#[derive(Debug)]
struct Violation {
    file: String,
    line: usize,
    rule: &'static str,
    found: String,
    mend: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: [{}] {}. To do: {}.", self.file, self.line, self.rule, self.found, self.mend)
    }
}

fn assert_none(violations: &[Violation]) {
    let listed: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(listed.is_empty(), "\n{}\n", listed.join("\n"));
}

/// A Rust file under `src/`.
struct Source<'a> {
    /// `src/http/public.rs`
    file: &'a str,
    /// `http`, `public`; empty for `lib.rs` and `main.rs`, the roots, which may use every module.
    module: Vec<String>,
    text: &'a str,
    /// The file is a module that only tests see.
    only_tests: bool,
}

impl<'a> Source<'a> {
    fn new(file: &'a str, text: &'a str, only_tests: bool) -> Self {
        let inside = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        let is_root = matches!(inside, "lib" | "main" | "mod");
        let module = if is_root { Vec::new() } else { inside.split('/').map(str::to_owned).collect() };
        Self { file, module, text, only_tests }
    }

    fn top(&self) -> Option<&str> {
        self.module.first().map(String::as_str)
    }

    /// Whether this is `place`, a module or one file (`sns/certificate`), or below it.
    fn is_in(&self, place: &str) -> bool {
        let here = self.module.join("/");
        here == place || here.starts_with(&format!("{place}/"))
    }

    fn violation(&self, line: usize, rule: &'static str, found: String, mend: impl Into<String>) -> Violation {
        Violation { file: self.file.to_owned(), line, rule, found, mend: mend.into() }
    }

    fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let tokens = scanner::tokens(self.text);
        for path in scanner::paths(&tokens) {
            found.extend(self.check_import(&path));
            if !self.only_tests && !path.in_test {
                found.extend(self.check_door(&path));
                found.extend(self.check_environment(&path));
            }
        }
        found.extend(self.check_purity(&tokens));
        found.extend(self.check_names(&tokens));
        found.extend(self.check_size(&tokens));
        // A group may name several items of one forbidden module: one message is enough.
        found.dedup_by_key(|violation| violation.to_string());
        found
    }

    fn check_import(&self, path: &NamedPath) -> Option<Violation> {
        let from = self.top()?;
        let to = match path.target(&self.module) {
            Target::Outside => return None,
            Target::Root => {
                let found = format!("`{from}` imports the crate root as a whole, which hides what it uses");
                return Some(self.violation(
                    path.line,
                    "imports",
                    found,
                    "name the module: `use crate::<module>::<item>`",
                ));
            }
            Target::Module(to) => to,
        };
        if to == from {
            return None;
        }
        let Some((_, allowed)) = IMPORTS.iter().find(|(module, _)| *module == from) else {
            let found = format!("the module `{from}` has no row in the import table");
            return Some(self.violation(path.line, "imports", found, "add a row to IMPORTS in tests/architecture.rs"));
        };
        if allowed.contains(&to.as_str()) {
            return None;
        }
        let found = format!("`{from}` uses `{to}`, but may use only {}", listed(allowed));
        let mend = "hand the value in from `app` or `reconciler`, move the shared vocabulary to `model`, or change the \
                    table in tests/architecture.rs and give the reason in docs/ARCHITECTURE.md";
        Some(self.violation(path.line, "imports", found, mend))
    }

    fn check_door(&self, path: &NamedPath) -> Option<Violation> {
        let first = path.segments.first()?;
        if path.segments.len() < 2 && !path.imported {
            return None;
        }
        let (name, places) = DOORS.iter().find(|(name, _)| name == first)?;
        if places.iter().any(|place| self.is_in(place)) {
            return None;
        }
        let found = format!("the crate `{name}` is used outside of {}", listed(places));
        let mend = format!(
            "call a function of {} instead; an own module of that name is written `self::{name}`",
            listed(places)
        );
        Some(self.violation(path.line, "doors", found, mend))
    }

    fn check_environment(&self, path: &NamedPath) -> Option<Violation> {
        let names: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        let ["std", "env", rest @ ..] = names.as_slice() else { return None };
        let about_this_process = matches!(rest.first(), Some(&("current_exe" | "args" | "args_os")));
        if self.is_in("config") || (self.is_in("cli") && about_this_process) {
            return None;
        }
        let found = format!("`{}` is named outside of `config`", names.join("::"));
        let mend = "take the value from the settings; only `cli` may use std::env::current_exe, args and args_os, \
                    with the whole path";
        Some(self.violation(path.line, "environment", found, mend))
    }

    fn check_purity(&self, tokens: &[scanner::Token]) -> Vec<Violation> {
        if !self.top().is_some_and(|top| PURE.contains(&top)) {
            return Vec::new();
        }
        let waits = |text: &str| matches!(text, "async" | "await") || text.starts_with("tokio") || text == "futures";
        let mend = "keep it a function of its arguments and let `reconciler` or `store` wait";
        let violation = |token: &scanner::Token| {
            self.violation(token.line, "purity", format!("`{}` in a module without I/O", token.text), mend)
        };
        tokens.iter().filter(|token| waits(&token.text)).map(violation).collect()
    }

    fn check_names(&self, tokens: &[scanner::Token]) -> Vec<Violation> {
        let inline =
            tokens.windows(2).filter(|two| two[0].text == "mod").map(|two| (two[1].text.as_str(), two[1].line));
        let own = self.module.iter().map(|name| (name.as_str(), 1));
        let mend = "name it after what is inside";
        own.chain(inline)
            .filter(|(name, _)| EMPTY_NAMES.contains(name))
            .map(|(name, line)| self.violation(line, "names", format!("`{name}` says nothing"), mend))
            .collect()
    }

    fn check_size(&self, tokens: &[scanner::Token]) -> Option<Violation> {
        let is_test_module = |two: &&[scanner::Token]| two[0].in_test && two[0].text == "mod";
        let end = tokens.windows(2).find(is_test_module).map(|two| two[0].line);
        let lines = end.map_or_else(|| self.text.lines().count(), |line| line.saturating_sub(2));
        if self.only_tests || lines <= MAX_LINES {
            return None;
        }
        let found = format!("{lines} lines before its tests, above {MAX_LINES}");
        Some(self.violation(MAX_LINES + 1, "size", found, "split it by topic"))
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "itself".to_owned() } else { format!("`{}`", names.join("`, `")) }
}

/// The files below `dir` whose names end in `suffix`: path relative to the package, and text.
fn files(dir: &str, suffix: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open = vec![root.join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("the folder is readable") {
            let path = entry.expect("the folder is readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(suffix) {
                let name = path.strip_prefix(root).expect("below the package").to_string_lossy().replace('\\', "/");
                found.insert(name, fs::read_to_string(&path).expect("the file is UTF-8"));
            }
        }
    }
    found
}

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("the file is readable")
}

/// The files that a parent declares as `#[cfg(test)] mod name;`.
fn test_files(sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in sources {
        let folder = Source::new(file, text, false).module.join("/");
        for name in scanner::test_modules_in_files(&scanner::tokens(text)) {
            let base = if folder.is_empty() { format!("src/{name}") } else { format!("src/{folder}/{name}") };
            found.extend([format!("{base}.rs"), format!("{base}/mod.rs")]);
        }
    }
    found
}

#[test]
fn every_source_file_keeps_the_rules_of_the_house() {
    let sources = files("src", ".rs");
    assert!(sources.contains_key("src/model/mod.rs"), "the sources were not found: {:?}", sources.keys());
    let tests = test_files(&sources);
    let violations: Vec<Violation> =
        sources.iter().flat_map(|(file, text)| Source::new(file, text, tests.contains(file)).check()).collect();
    assert_none(&violations);
}

#[test]
fn every_top_level_module_has_a_row_in_the_import_table() {
    let sources = files("src", ".rs");
    let modules = sources.iter().filter_map(|(file, text)| Source::new(file, text, false).top().map(str::to_owned));
    let missing: Vec<String> = modules.filter(|module| !IMPORTS.iter().any(|(row, _)| row == module)).collect();
    assert!(missing.is_empty(), "add a row to IMPORTS in tests/architecture.rs for {missing:?}");
}

#[test]
fn the_import_table_has_no_cycle() {
    // Rows only lead downwards: taking away, again and again, the modules that use nothing left must take all away.
    let mut left: Vec<&(&str, &[&str])> = IMPORTS.iter().collect();
    while !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|(module, _)| *module).collect();
        left.retain(|(_, uses)| uses.iter().any(|used| names.contains(used)));
        assert!(left.len() < names.len(), "a cycle among {names:?}");
    }
}

/// What a wrong file breaks, as `line rule`.
fn broken(file: &str, text: &str) -> Vec<String> {
    Source::new(file, text, false).check().iter().map(|found| format!("{} {}", found.line, found.rule)).collect()
}

#[test]
fn a_forbidden_import_is_found_however_it_is_written() {
    for text in [
        "use crate::reconciler::step;",
        "use crate::{model, reconciler::{step, Step}};",
        "use super::super::reconciler;",
        "fn f() { crate::reconciler::step() }",
        "fn f() -> super::super::reconciler::Step { todo() }",
        "use amazon_pay_ipn::reconciler;",
        "mod inner { use super::super::super::reconciler; }",
        "use crate::*;",
        "use crate as everything;",
        "#[cfg(test)] mod tests { use crate::reconciler; }",
        "use crate::nowhere::x;",
    ] {
        assert_eq!(broken("src/http/public.rs", text), ["1 imports"], "{text}");
    }
    assert_eq!(broken("src/store/mod.rs", "use crate::clock;\nuse crate::amazon_pay::Client;"), ["2 imports"]);
    assert_eq!(broken("src/amazon_pay/client.rs", "use crate::store;"), ["1 imports"]);
    assert_eq!(broken("src/unknown.rs", "use crate::model;"), ["1 imports"]);
}

#[test]
fn what_the_table_allows_is_let_through() {
    for (file, text) in [
        ("src/http/public.rs", "use crate::{ipn, sns::Verified, store::Store}; use super::problem; use std::fmt;"),
        ("src/http/mod.rs", "mod public; pub(crate) use self::public::router; pub(super) use axum::Router;"),
        ("src/clock.rs", "mod tests { use super::*; }"),
        ("src/main.rs", "fn main() { amazon_pay_ipn::cli::run() }"),
        ("src/cli/demo.rs", "use crate::{app, sandbox}; fn f() { std::env::current_exe(); }"),
        ("src/config.rs", "use std::env; use crate::store::Settings;"),
        ("src/sns/certificate.rs", "use reqwest::Client;"),
        ("src/store/mod.rs", "use redis::Client; #[cfg(test)] mod tests { use std::env; }"),
        (
            "src/ipn.rs",
            "/// See [`crate::store`] and [`redis::Client`].\nfn f(redis: u8) { let s = \"redis::x\"; redis.get() }",
        ),
        ("src/sandbox/server.rs", "use self::redis::Private; use axum::Router;"),
    ] {
        assert_eq!(broken(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

#[test]
fn a_crate_outside_of_its_door_is_found() {
    for (file, text) in [
        ("src/http/public.rs", "use redis::Client;"),
        ("src/http/public.rs", "use redis;"),
        ("src/http/public.rs", "extern crate redis;"),
        ("src/http/public.rs", "fn f(c: ::redis::Client) {}"),
        ("src/http/public.rs", "use {std::fmt, redis::Client};"),
        ("src/http/public.rs", "#[cfg(not(test))] use redis::Client;"),
        ("src/reconciler.rs", "use reqwest::Client;"),
        ("src/sns/verifier.rs", "use reqwest::Client;"),
        ("src/sns/verifier.rs", "use aws_sdk_sns::Client;"),
        ("src/cli/demo.rs", "use axum::Router;"),
        ("src/main.rs", "fn main() { redis::f() }"),
    ] {
        assert_eq!(broken(file, text), ["1 doors"], "{file}: {text}");
    }
}

#[test]
fn reading_the_environment_outside_of_config_is_found() {
    for (file, text) in [
        ("src/app.rs", "fn f() { std::env::var(\"X\"); }"),
        ("src/app.rs", "use std::{env, fs};"),
        ("src/app.rs", "fn f() { std::env::current_exe(); }"),
        ("src/cli/mod.rs", "use std::env;"),
        ("src/cli/mod.rs", "fn f() { std::env::var(\"X\"); }"),
    ] {
        assert_eq!(broken(file, text), ["1 environment"], "{file}: {text}");
    }
}

#[test]
fn waiting_in_a_pure_module_is_found() {
    assert_eq!(broken("src/recovery/decide.rs", "\nasync fn f() { g().await }"), ["2 purity", "2 purity"]);
    assert_eq!(broken("src/model/ids.rs", "use tokio::time;"), ["1 purity"]);
    assert_eq!(broken("src/model/ids.rs", "#[cfg(test)] mod tests { use tokio::time; }"), ["1 purity"]);
    assert!(broken("src/model/ids.rs", "/// Nothing async here.\nfn f() {}").is_empty());
}

#[test]
fn empty_names_and_long_files_are_found() {
    assert_eq!(broken("src/http/utils.rs", ""), ["1 names"]);
    assert_eq!(broken("src/http/common/x.rs", ""), ["1 names"]);
    assert_eq!(broken("src/http/mod.rs", "\nmod helpers { }"), ["2 names"]);

    let tests = "#[cfg(test)]\nmod tests { }\n";
    assert_eq!(broken("src/app.rs", &"\n".repeat(501)), ["501 size"]);
    assert_eq!(broken("src/app.rs", &("\n".repeat(501) + tests)), ["501 size"]);
    assert!(broken("src/app.rs", &("\n".repeat(500) + tests + &"\n".repeat(500))).is_empty());
}

#[test]
fn a_message_says_where_which_rule_and_what_to_do() {
    let found = Source::new("src/http/public.rs", "\nuse crate::reconciler;", false).check();
    let message = found[0].to_string();
    assert!(message.starts_with("src/http/public.rs:2: [imports] `http` uses `reconciler`"), "{message}");
    assert!(message.contains("To do: "), "{message}");
}

/// The packages of a lock file with their dependencies.
fn locked(lock: &str) -> Vec<(&str, Vec<&str>)> {
    lock.split("[[package]]")
        .skip(1)
        .filter_map(|package| {
            let name = package.lines().find_map(|line| line.strip_prefix("name = "))?.trim_matches('"');
            let dependencies = package
                .lines()
                .filter_map(|line| line.strip_prefix(" \""))
                .filter_map(|line| line.split(['"', ' ']).next())
                .collect();
            Some((name, dependencies))
        })
        .collect()
}

fn banned(lock: &str) -> Vec<String> {
    let packages = locked(lock);
    let users = |of: &str| {
        let users = packages.iter().filter(|(_, dependencies)| dependencies.contains(&of));
        users.map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>()
    };
    let banned = packages.iter().filter(|(name, _)| BANNED_CRATES.contains(name)).map(|(name, _)| {
        format!(
            "Cargo.lock: [crypto] {name}, through {:?}. To do: choose that crate's features so that ring is used.",
            users(name)
        )
    });
    // `rsa` has a timing flaw (RUSTSEC-2023-0071): the sandbox may use it, nothing that a production build can reach.
    let rsa = users("rsa").into_iter().filter(|user| user != "amazon-pay-ipn").map(|user| {
        format!("Cargo.lock: [crypto] {user} uses rsa, which only our own sandbox may. To do: drop {user}.")
    });
    banned.chain(rsa).collect()
}

#[test]
fn ring_is_the_only_crypto_library() {
    let lock = file("Cargo.lock");
    assert!(locked(&lock).iter().any(|(name, _)| *name == "ring"), "ring is not in the lock file");
    let found = banned(&lock);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));

    let wrong = "[[package]]\nname = \"x\"\ndependencies = [\n \"aws-lc-rs 1.0.0\",\n \"rsa\",\n]\n\n\
                 [[package]]\nname = \"aws-lc-rs\"\n\n[[package]]\nname = \"rsa\"\n";
    assert_eq!(banned(wrong).len(), 2, "{:?}", banned(wrong));
    assert!(banned(wrong)[0].contains("[\"x\"]"));
}

#[test]
fn the_sandboxs_rsa_is_not_in_a_production_build() {
    let manifest = file("Cargo.toml");
    let line = manifest.lines().find(|line| line.starts_with("rsa = ")).expect("rsa is a dependency");
    assert!(
        line.contains("optional = true"),
        "Cargo.toml: [crypto] rsa is not optional. To do: keep it behind `sandbox`."
    );
    let features: Vec<&str> = manifest.lines().filter(|line| line.contains("dep:rsa")).collect();
    assert!(
        features.len() == 1 && features[0].starts_with("sandbox = "),
        "only `sandbox` may enable rsa: {features:?}"
    );
}

#[test]
fn a_production_build_has_no_crash_points() {
    let lib = file("src/lib.rs");
    let behind_the_feature = "#[cfg(feature = \"sandbox\")]\n";
    assert!(
        lib.contains(&format!("{behind_the_feature}pub mod crash;")),
        "src/lib.rs: [crash] the module is in every build. To do: keep it behind `sandbox`."
    );
    let body = lib.split("macro_rules! crash_point {\n    ($point:ident) => {\n").nth(1);
    let body = body.and_then(|rest| rest.split("\n    };\n").next()).expect("the macro is in src/lib.rs");
    let statements = body.split(';').filter(|statement| !statement.trim().is_empty()).count();
    assert!(
        body.trim_start().starts_with(behind_the_feature) && statements == 1,
        "src/lib.rs: [crash] `crash_point!` is more than one call behind `sandbox`: {body}"
    );
    let manifest = file("Cargo.toml");
    let line = manifest.lines().find(|line| line.starts_with("rustix = ")).expect("rustix is a dependency");
    assert!(line.contains("optional = true"), "Cargo.toml: [crash] a production build could signal itself: {line}");
    let enabled: Vec<&str> = manifest.lines().filter(|line| line.contains("dep:rustix")).collect();
    assert!(
        enabled.len() == 1 && enabled[0].starts_with("sandbox = "),
        "only `sandbox` may enable rustix: {enabled:?}"
    );
}

#[test]
fn every_crash_point_has_its_place_and_decides_nothing() {
    let sources = files("src", ".rs");
    let code: String = sources.values().map(String::as_str).collect();
    let points = file("src/crash.rs");
    let points = points.split("points! {\n").nth(1).and_then(|rest| rest.split("\n}\n").next()).unwrap_or_default();
    let points: Vec<&str> =
        points.lines().filter_map(|line| line.trim().split_once(" = \"")).map(|(name, _)| name).collect();
    assert!(points.len() > 50, "the points were not found: {points:?}");
    for point in points {
        assert!(code.contains(&format!("crash_point!({point});")), "src/crash.rs: [crash] nobody comes by {point}");
    }
    for (file, text) in &sources {
        for line in text.lines().filter(|line| line.contains("crash_point!(")) {
            let alone = line.trim().strip_prefix("crash_point!(").is_some_and(|rest| rest.ends_with(");"));
            assert!(alone, "{file}: [crash] a point is a statement of its own, not part of: {line}");
        }
    }
}

/// The dependencies of a manifest that have no comment on the line above.
fn unexplained(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_dependencies = false;
    let mut above = "";
    for (number, line) in (1..).zip(manifest.lines()) {
        let table = line.strip_prefix('[').map(|header| header.trim_end_matches(']'));
        if let Some(table) = table {
            in_dependencies = table.ends_with("dependencies");
        }
        let one_dependency = table.is_some_and(|table| table.contains("dependencies."));
        let entry = in_dependencies && table.is_none() && line.starts_with(|c: char| c.is_alphanumeric());
        if (entry || one_dependency) && !above.starts_with('#') {
            let name = line.split(['=', '.']).next().unwrap_or(line).trim();
            found.push(format!(
                "Cargo.toml:{number}: [dependencies] {name} has no reason. To do: a comment line above it."
            ));
        }
        above = line;
    }
    found
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let found = unexplained(&file("Cargo.toml"));
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));

    let wrong = "[package]\nname = \"x\"\n[dependencies]\n# Why.\na = \"1\"\nb = { version = \"1\" }\n\n\
                 [target.'cfg(unix)'.dev-dependencies]\nc.workspace = true\n[dependencies.d]\nversion = \"1\"\n";
    let lines: Vec<String> = unexplained(wrong).iter().map(|found| found.chars().take(13).collect()).collect();
    assert_eq!(lines, ["Cargo.toml:6:", "Cargo.toml:9:", "Cargo.toml:10"]);
}

/// What the header of a Lua script does not state.
fn missing_in_header(script: &str) -> Vec<&'static str> {
    let header: Vec<&str> = script
        .lines()
        .take_while(|line| line.starts_with("--") || line.trim().is_empty())
        .map(|line| line.trim_start_matches(['-', ' ']))
        .collect();
    let states = |label: &str| {
        header.iter().any(|line| line.strip_prefix(label).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric)))
    };
    ["KEYS", "ARGV", "RETURNS", "WHY"].into_iter().filter(|label| !states(label)).collect()
}

#[test]
fn every_lua_script_states_its_keys_arguments_result_and_reason() {
    for (file, script) in files("src", ".lua") {
        assert!(
            file.starts_with("src/store/lua/"),
            "{file}:1: [lua] only `store` talks to Redis. To do: move it to src/store/lua."
        );
        let missing = missing_in_header(&script);
        assert!(
            missing.is_empty() || file.ends_with("/prelude.lua") || file.starts_with("src/store/lua/parts/"),
            "{file}:1: [lua] the header says nothing about {missing:?}. To do: begin the file with comment lines `-- KEYS: ...`."
        );
    }
    assert_eq!(missing_in_header("-- WHY: x\n-- KEYS: a\n--   b\n--\n-- ARGV none\n-- RETURNS: 1\nreturn 1"), [""; 0]);
    assert_eq!(missing_in_header("-- KEYS: a\nlocal x = 1\n-- ARGV: late\n-- WHYEVER"), ["ARGV", "RETURNS", "WHY"]);
}
