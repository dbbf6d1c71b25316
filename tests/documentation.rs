//! The documents, kept true: a name that the code has and its document lacks, or the other way round, is a failure here.
//!
//! Names are compared, not prose. What a test looks at is found by its form (a table's first cell, a heading, a code span), so that
//! documents can be rewritten freely. Comments (`<!-- -->`) are not looked at.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use amazon_pay_ipn::amazon_pay::reasons::REASONS;
use amazon_pay_ipn::config;
use amazon_pay_ipn::crash::CrashPoint;
use amazon_pay_ipn::model::event::{EventType, schema};
use amazon_pay_ipn::model::verdict::{Decline, Refusal};
use amazon_pay_ipn::preflight::Check as Preflight;
use amazon_pay_ipn::sns::Check;
use amazon_pay_ipn::telemetry::metric;

type Names = BTreeSet<String>;

#[test]
fn every_setting_is_in_the_settings_tables_and_no_other() {
    let documented = first_cells(&read("docs/SETTINGS.md"));
    assert_same("docs/SETTINGS.md", &names(config::NAMES), &documented);
}

#[test]
fn the_example_of_an_env_file_offers_every_setting_and_no_other() {
    let example = read(".env.example");
    let offered = example.lines().filter_map(|line| {
        let (name, _) = line.trim_start_matches('#').split_once('=')?;
        is_name(name, |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
            .then(|| name.to_owned())
    });
    assert_same(".env.example", &names(config::NAMES), &offered.collect());
}

#[test]
fn every_metric_is_in_the_metrics_table_and_no_other() {
    assert_same("docs/METRICS.md", &names(&metric::ALL), &first_cells(&read("docs/METRICS.md")));
    let code = read("src/telemetry/metric.rs");
    let declared = code.lines().filter(|line| line.starts_with("pub const ") && line.contains(": &str = \""));
    let declared = declared.filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect();
    assert_same("ALL of src/telemetry/metric.rs", &declared, &names(&metric::ALL));
}

#[test]
fn every_field_of_a_log_line_is_in_the_telemetry_document_and_no_other() {
    let document = read("docs/TELEMETRY.md");
    let table = document.split("| field | meaning |").nth(1).unwrap_or_default();
    let documented: Names = table.lines().filter_map(|line| line.split('|').nth(1)).flat_map(code_spans).collect();
    let mut used = Names::new();
    for (file, text) in files("src", ".rs") {
        // What the sandbox and the demo say is for whoever watches them.
        if !file.starts_with("src/sandbox/") && !file.starts_with("src/cli/demo/") {
            used.extend(log_fields(&text));
        }
    }
    assert!(used.len() > 40, "the fields were not found: {used:?}");
    assert_same("docs/TELEMETRY.md", &used, &documented);
}

#[test]
fn the_fields_of_a_log_line_are_found_however_they_are_written() {
    let text = "warn!(error = &error as &dyn Error, %permission, next_try, a = b(c, \"x, y\"), \"said, {count}\"); \
                tracing::info!(target: \"x\", ?why, \"y\");";
    let expected: Names = ["error", "permission", "next_try", "a", "why"].map(str::to_owned).into();
    assert_eq!(log_fields(text), expected);
}

/// The names of the fields that the macros of `tracing` are given.
fn log_fields(text: &str) -> Names {
    let mut fields = Names::new();
    for name in ["error!(", "warn!(", "info!(", "debug!("] {
        for (start, _) in text.match_indices(name) {
            for argument in arguments(&text[start + name.len()..]) {
                let argument = argument.trim().trim_start_matches(['%', '?']);
                let end = argument.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(argument.len());
                let (field, rest) = argument.split_at(end);
                if !field.is_empty() && (rest.is_empty() || rest.trim_start().starts_with('=')) {
                    fields.insert(field.to_owned());
                }
            }
        }
    }
    fields
}

/// What stands between a call's parentheses, at its commas.
fn arguments(text: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut quoted, mut escaped) = (Vec::new(), 0, 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => {
                found.push(&text[start..at]);
                return found;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

#[test]
fn every_alert_rule_has_a_test_an_entry_in_the_runbook_and_metrics_that_exist() {
    let (rules, tests) = (read("ops/prometheus/alerts.yml"), read("ops/prometheus/alerts_test.yml"));
    let alerts: Names =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    assert!(alerts.len() > 15, "the rules were not found: {alerts:?}");
    let runbook = read("ops/RUNBOOK.md");
    let entries = runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    assert_same("ops/RUNBOOK.md", &alerts, &entries);
    let tested = tests.split("alertname=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned);
    assert_same("ops/prometheus/alerts_test.yml", &alerts, &tested.collect());
    for alert in &alerts {
        let anchor = format!("runbook: ops/RUNBOOK.md#{}\n", alert.to_lowercase());
        assert_eq!(rules.matches(&anchor).count(), 1, "{alert} leads to its entry");
    }
    let known = names(&metric::ALL);
    for file in
        ["ops/prometheus/alerts.yml", "ops/prometheus/alerts_test.yml", "ops/RUNBOOK.md", "ops/grafana/dashboard.json"]
    {
        for rest in read(file).split("amazon_pay_ipn_").skip(1) {
            let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(rest.len());
            let name = format!("amazon_pay_ipn_{}", &rest[..end]);
            let of = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
            // `(charges|captures)_sent_total` is a pattern.
            let known = known.contains(&name) || of.is_some_and(|of| known.contains(of)) || rest.starts_with('(');
            assert!(known, "{file} names {name}, which is no metric");
        }
    }
}

#[test]
fn every_event_type_has_its_heading_and_no_document_names_another() {
    let known: Names = EventType::ALL.iter().map(|kind| kind.as_str().to_owned()).collect();
    let text = read("docs/EVENTS.md");
    let headings = text.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).map(str::to_owned);
    assert_same("docs/EVENTS.md", &known, &headings.collect());
    for (file, text) in documents() {
        for span in code_spans(&text).iter().filter(|span| span.starts_with("amazonpay.")) {
            assert!(known.contains(span), "{file} names `{span}`, which is no event type");
        }
    }
}

#[test]
fn every_example_of_an_event_is_json_and_a_charges_carries_what_all_of_them_do() {
    let text = read("docs/EVENTS.md");
    let sections: Vec<&str> = text.split("\n### `").skip(1).collect();
    assert_eq!(sections.len(), EventType::ALL.len());
    for section in sections {
        let kind = section.split('`').next().unwrap_or_default();
        let blocks: Vec<&str> =
            section.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(!blocks.is_empty(), "{kind} has no example");
        for block in blocks {
            let example: serde_json::Value =
                serde_json::from_str(block).unwrap_or_else(|error| panic!("the example of {kind} is no JSON: {error}"));
            let of_an_intent = kind.starts_with("amazonpay.charge.") && kind != EventType::ChargeUnmatched.as_str();
            for field in ["id", "chargePermissionId", "chargeAmount", "number", "attempts"] {
                assert!(!of_an_intent || !example[field].is_null(), "the example of {kind} lacks {field}");
            }
        }
    }
}

#[test]
fn every_example_of_an_event_is_what_its_type_promises() {
    let text = read("docs/EVENTS.md");
    for section in text.split("\n### `").skip(1) {
        let name = section.split('`').next().unwrap_or_default();
        let kind = *EventType::ALL.iter().find(|kind| kind.as_str() == name).expect("a type");
        for block in section.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let example = serde_json::from_str(block).expect("JSON");
            assert_eq!(schema::check(kind, &example), Ok(()));
        }
    }
}

#[test]
fn the_contracts_for_machines_are_those_of_the_code() {
    let documents = amazon_pay_ipn::cli::schema::documents();
    let found: Names = files("docs/api", ".json").into_iter().map(|(file, _)| file).collect();
    let expected: Names = documents.iter().map(|(name, _)| format!("docs/api/{name}")).collect();
    assert_eq!(found, expected, "write them anew: make schema, and remove what is not written any more");
    for (name, text) in documents {
        assert!(read(&format!("docs/api/{name}")) == text, "docs/api/{name} is not of this version: make schema");
    }
}

#[test]
fn every_kind_of_alert_is_in_the_events_document() {
    let schema = schema::data_schema(EventType::AccountAttention);
    let alerts = schema["oneOf"].as_array().expect("one schema for each kind");
    let kinds: Names =
        alerts.iter().filter_map(|alert| Some(alert["properties"]["kind"]["const"].as_str()?.to_owned())).collect();
    assert!(kinds.len() > 25, "the kinds were not found: {kinds:?}");
    let document = read("docs/EVENTS.md");
    let table = document.split("| `kind` |").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    assert_same("docs/EVENTS.md", &kinds, &first_cells(table));
}

#[test]
fn every_alert_that_is_raised_is_in_the_events_document() {
    let documented = first_cells(&read("docs/EVENTS.md"));
    let mut kinds = Names::new();
    for (file, text) in files("src", ".rs") {
        if file.starts_with("src/sandbox/") {
            continue;
        }
        for call in ["Event::attention(", ".alert("] {
            for rest in text.split(call).skip(1) {
                kinds.extend(
                    rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()).map(str::to_owned),
                );
            }
        }
    }
    assert!(kinds.len() >= 5, "the alerts were not found: {kinds:?}");
    let missing: Vec<_> = kinds.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/EVENTS.md lacks the alerts {missing:?}");
}

#[test]
fn every_decline_and_refusal_is_in_the_recovery_table() {
    let spans = code_spans(&read("docs/RECOVERY.md"));
    let refusals = [Refusal::MonthlyLimit, Refusal::PermissionStatus];
    let codes = Decline::ALL.iter().map(|decline| decline.as_str()).chain(refusals.iter().map(Refusal::code));
    for code in codes {
        assert!(spans.contains(code), "docs/RECOVERY.md does not name {code}");
    }
}

#[test]
fn the_reason_codes_in_the_recovery_document_are_the_table_in_the_code() {
    let document = read("docs/RECOVERY.md");
    let section =
        document.split("## Every reason code\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let documented: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let in_code: Vec<String> = REASONS
        .iter()
        .map(|reason| format!("| `{}` | {} | {} |", reason.code, reason.documented_status, reason.meaning.as_str()))
        .collect();
    assert_eq!(documented, in_code);
}

#[test]
fn the_table_of_the_preflight_is_the_one_in_the_code() {
    let document = read("docs/PREFLIGHT.md");
    let section = document.split("## Every check\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let documented: Vec<&str> = section.unwrap_or_default().lines().filter(|line| line.starts_with("| `")).collect();
    let row = |check: &Preflight| format!("| `{}` | {} | {} |", check.as_str(), check.means(), check.mend());
    let in_code: Vec<String> = Preflight::ALL.iter().map(row).collect();
    assert_eq!(documented, in_code);
}

#[test]
fn every_key_is_in_the_keyspace_table_and_no_other() {
    let source = read("src/store/keys.rs");
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    // Each key is built by `self.of("name")` or `self.of(&format!("name:{id}"))`; what varies is `*` on both sides.
    let built: Names = source
        .split("self.of(")
        .skip(1)
        .filter_map(|rest| rest.trim_start_matches("&format!(").strip_prefix('"')?.split('"').next())
        .map(|pattern| starred(pattern, '{', '}'))
        .collect();
    assert!(built.contains("permission:*:hints"), "the keys were not found: {built:?}");
    assert_eq!(
        source.matches("-> String").count() - 1,
        source.matches("self.of(").count(),
        "a key is built in another way"
    );
    let documented = keyspace_rows().iter().map(|row| starred(&row.key, '<', '>')).collect();
    assert_same("docs/KEYSPACE.md", &built, &documented);
}

#[test]
fn the_writers_in_the_keyspace_table_are_the_scripts() {
    let scripts: Names = files("src/store/lua", ".lua")
        .into_iter()
        .filter(|(file, _)| !file.contains("/parts/"))
        .filter_map(|(file, _)| Some(Path::new(&file).file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "prelude" && name != "check_access")
        .collect();
    assert!(scripts.len() >= 10, "the scripts were not found: {scripts:?}");
    let writers = keyspace_rows().into_iter().flat_map(|row| row.writers).collect();
    assert_same("docs/KEYSPACE.md (writers)", &scripts, &writers);
}

#[test]
fn every_crash_point_is_in_the_reliability_document_and_no_other() {
    let document = read("docs/reliability/crash-points.md");
    let points =
        document.split("## The points\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let known: Vec<&str> = CrashPoint::ALL.iter().map(|point| point.as_str()).collect();
    assert_same("docs/reliability/crash-points.md", &names(&known), &first_cells(points));
}

#[test]
fn every_kind_of_work_that_is_struck_is_in_the_reliability_document_and_no_other() {
    let document = read("docs/reliability/crash-points.md");
    let table = document.split("## The kinds of work\n").nth(1).unwrap_or_default();
    let documented = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let documented = documented.filter_map(|line| line.split('|').nth(1)).map(|cell| cell.trim().to_owned()).collect();
    // `Captured = "captured";`
    let code = read("tests/crash/kinds.rs");
    let code = code.split("kinds! {\n").nth(1).and_then(|rest| rest.split("\n}\n").next()).unwrap_or_default();
    let code =
        code.lines().filter_map(|line| line.split('"').nth(1).filter(|_| line.contains(" = "))).map(str::to_owned);
    assert_same("docs/reliability/crash-points.md", &code.collect(), &documented);
}

#[test]
fn every_test_that_guards_a_promise_exists() {
    let document = without_comments(&read("docs/RELIABILITY.md"));
    let table =
        document.split("## The promises").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() >= 10, "the table was not found");
    let code: String = files("src", ".rs").into_iter().chain(files("tests", ".rs")).map(|(_, text)| text).collect();
    for row in rows {
        let tests = code_spans(row.rsplit('|').nth(1).unwrap_or_default());
        assert!(!tests.is_empty(), "no test guards: {row}");
        for test in tests.iter().filter(|test| test.len() > 20) {
            assert!(
                code.contains(&format!("fn {test}(")),
                "docs/RELIABILITY.md names the test {test}, which does not exist"
            );
        }
    }
}

#[test]
fn the_readme_quotes_only_figures_and_targets_of_the_reliability_documents() {
    let readme = without_comments(&read("README.md"));
    let table = readme.split("## Why trust it").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let mut pages = read("docs/RELIABILITY.md") + &read("docs/SECURITY-MODEL.md");
    pages.extend(files("docs/reliability", ".md").into_iter().map(|(_, text)| text));
    let known: Names = figures(&pages);
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() >= 6, "the table was not found");
    for row in rows {
        let unknown: Names = figures(row).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "not in docs/RELIABILITY.md or its pages: {unknown:?}, of {row}");
        assert!(row.contains("`make "), "how is this checked? {row}");
    }
}

/// Numbers of three digits and more, without their commas.
fn figures(text: &str) -> Names {
    let numbers = text.split(|letter: char| !letter.is_ascii_digit() && letter != ',');
    numbers.map(|number| number.replace(',', "")).filter(|number| number.len() >= 3).collect()
}

#[test]
fn the_readme_lists_the_settings_without_which_nothing_starts() {
    let readme = read("README.md");
    let table = readme.split("## Settings").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let listed: Names = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| code_spans(&line[..line[2..].find('|').map_or(0, |at| at + 2)]))
        .collect();
    let document = read("docs/SETTINGS.md");
    let is_required = |line: &&str| {
        line.starts_with("| `")
            && line.rsplit('|').nth(2).is_some_and(|cell| cell.trim() == "yes" || cell.contains("this or"))
    };
    let mut required: Names = document.lines().filter(is_required).flat_map(first_cells).collect();
    // One of the two.
    required.insert("REDIS_URL".to_owned());
    assert_same("README.md", &required, &listed);
}

#[test]
fn every_rule_of_the_guides_names_code_and_tests_that_exist() {
    let document = read("docs/GUIDES.md");
    let code: String = files("src", ".rs").into_iter().chain(files("tests", ".rs")).map(|(_, text)| text).collect();
    let rows: Vec<&str> =
        document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| rule ")).collect();
    let rules: Vec<&str> =
        rows.iter().filter_map(|row| row.split(' ').nth(1)).filter(|name| name.starts_with('G')).collect();
    assert_eq!(rules, (1..=20).map(|rule| format!("G{rule}")).collect::<Vec<_>>());
    let failures = rows.len() - rules.len();
    assert!(failures > 20, "the reported failures were not found");
    for row in &rows {
        let tests = code_spans(row.rsplit('|').nth(1).unwrap_or_default());
        assert!(row.starts_with("| failure ") || !tests.is_empty(), "no test guards: {row}");
        assert!(!row.starts_with("| G") || row.contains("](../src/"), "no code is named by: {row}");
        for test in tests {
            assert!(
                code.contains(&format!("fn {test}(")),
                "docs/GUIDES.md names the test {test}, which does not exist"
            );
        }
    }
}

#[test]
fn the_security_model_lists_the_checks_in_order_and_names_tests_that_exist() {
    let model = without_comments(&read("docs/SECURITY-MODEL.md"));
    let rows = |heading: &str| {
        let part = model.split(&format!("## {heading}\n")).nth(1).and_then(|rest| rest.split("\n## ").next());
        let rows = part.unwrap_or_default().lines().filter(|line| line.starts_with("| ")).skip(1);
        rows.map(str::to_owned).collect::<Vec<_>>()
    };
    let first = |row: &String| code_spans(row.split('|').nth(1).unwrap_or_default()).into_iter().next();
    let checks: Vec<String> = rows("The checks, in order").iter().filter_map(first).collect();
    assert!(checks.iter().map(String::as_str).eq(Check::ALL.iter().map(|check| check.as_str())), "{checks:?}");

    let code: String = files("src", ".rs").into_iter().chain(files("tests", ".rs")).map(|(_, text)| text).collect();
    let corpus: String = files("tests/trust", ".rs").into_iter().map(|(_, text)| text).collect();
    let attacks = rows("Attacks");
    assert!(attacks.len() >= 20, "the attacks were not found");
    for row in attacks {
        let tests = code_spans(row.rsplit('|').nth(1).unwrap_or_default());
        assert!(!tests.is_empty(), "no test covers: {row}");
        for test in tests {
            let exists = code.contains(&format!("fn {test}(")) || corpus.contains(&format!("\"{test}\""));
            assert!(exists, "docs/SECURITY-MODEL.md names {test}, which is neither a test nor a family of tests/trust");
        }
    }
}

#[test]
fn what_the_guide_for_contributors_names_exists() {
    let guide = code_of(&without_comments(&read("CONTRIBUTING.md")));
    let code: String = files("src", ".rs").into_iter().chain(files("tests", ".rs")).map(|(_, text)| text).collect();
    let (mut paths, mut functions) = (0, 0);
    for word in guide.split_whitespace().map(|word| word.trim_end_matches([',', ';', ':', '.'])) {
        if is_path(word) {
            paths += 1;
            assert!(root().join(word).exists(), "CONTRIBUTING.md names {word}, which does not exist");
        } else if let Some(name) = word.strip_suffix("()").or_else(|| is_sentence(word).then_some(word)) {
            functions += 1;
            let exists = [format!("fn {name}("), format!("fn {name}<")].iter().any(|start| code.contains(start));
            assert!(exists, "CONTRIBUTING.md names the function or test {name}, which does not exist");
        } else if let Some(name) = word.strip_suffix('!') {
            assert!(code.contains(&format!("macro_rules! {name} {{")), "CONTRIBUTING.md: {name}! is no macro");
        } else if is_name(word, is_of_an_identifier) && word.bytes().any(|byte| byte.is_ascii_uppercase()) {
            assert!(code.contains(word), "CONTRIBUTING.md names {word}, which does not exist");
        }
    }
    assert!(paths > 50 && functions > 50, "the names were not found: {paths} paths, {functions} functions");
}

/// Whether a word of a document is a path from the root of the repository: it has a folder, or the ending of a file. `/v1` is a route.
fn is_path(word: &str) -> bool {
    let endings = [".rs", ".md", ".toml", ".lua", ".json", ".yml", ".yaml", ".example"];
    is_name(word, |byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
        && !word.starts_with('/')
        && (word.contains('/') || endings.iter().any(|ending| word.ends_with(ending)))
}

/// Whether a word is the name of a test, which is a sentence: four words or more. `what_is_checked_first`, not `mark_send`.
fn is_sentence(word: &str) -> bool {
    is_name(word, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && word.split('_').filter(|part| !part.is_empty()).count() >= 4
        && !word.ends_with('_')
}

fn is_of_an_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[test]
fn every_make_target_in_the_documents_exists() {
    let makefile = read("Makefile");
    let mut found = 0;
    for (file, text) in documents() {
        for target in words_after(&code_of(&text), "make ") {
            found += 1;
            assert!(makefile.lines().any(|line| line.starts_with(&format!("{target}:"))), "{file}: make {target}?");
        }
    }
    assert!(found >= 2, "README.md must show make demo and make test");
}

#[test]
fn every_command_in_the_documents_is_a_subcommand_with_that_flag() {
    let main = read("src/main.rs");
    let commands = main.split("enum Command {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap_or_default();
    let commands: Names = commands
        .lines()
        .filter_map(|line| line.trim().split_once('(').map(|(name, _)| name.to_lowercase()))
        .filter(|name| is_name(name, |byte| byte.is_ascii_lowercase()))
        .collect();
    assert!(commands.contains("serve"), "the subcommands were not found: {commands:?}");
    let init = read("src/cli/init.rs");
    let mut texts: Vec<(String, String)> = documents().into_iter().map(|(file, text)| (file, code_of(&text))).collect();
    texts.extend(["docker-compose.yml", ".env.example"].map(|file| (file.to_owned(), read(file))));
    for (file, code) in texts {
        for start in ["amazon-pay-ipn ", "run --rm service "] {
            for command in words_after(&code, start) {
                assert!(commands.contains(&command), "{file}: `{start}{command}` is no command");
            }
        }
        for flag in words_after(&code, "init --") {
            let field = format!("{}: bool", flag.replace('-', "_"));
            assert!(init.contains(&field), "{file}: `init --{flag}` is no flag");
        }
    }
}

#[test]
fn every_command_of_an_operator_in_the_documents_exists() {
    // What follows `charges`, `stop` and so on: the variants of the enum in the file of that command.
    let known = [
        ("charges", "src/cli/operator/charges.rs", "enum Command {"),
        ("permissions", "src/cli/operator/permissions.rs", "enum Command {"),
        ("quarantine", "src/cli/operator/quarantine.rs", "enum Command {"),
        ("stop", "src/cli/operator/stop.rs", "enum Command {"),
        ("events", "src/cli/events.rs", "enum EventsCommand {"),
        ("policy", "src/cli/policy.rs", "enum PolicyCommand {"),
    ];
    let mut texts = documents();
    texts.push(("ops/RUNBOOK.md".to_owned(), read("ops/RUNBOOK.md")));
    let mut found = 0;
    for (command, file, start) in known {
        let source = read(file);
        let variants = source.split(start).nth(1).and_then(|rest| rest.split("\n}").next()).unwrap_or_default();
        let variants: Names = variants
            .lines()
            .filter_map(|line| {
                line.strip_prefix("    ").filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
            })
            .filter_map(|line| line.split(|c: char| !c.is_ascii_alphabetic()).next())
            .map(str::to_lowercase)
            .collect();
        assert!(!variants.is_empty(), "{file}: the commands were not found");
        for (document, text) in &texts {
            for word in words_after(&code_of(text), &format!("amazon-pay-ipn {command} ")) {
                found += 1;
                assert!(variants.contains(&word), "{document}: `amazon-pay-ipn {command} {word}` is no command");
            }
        }
    }
    assert!(found > 20, "the commands were not found");
}

#[test]
fn every_setting_that_deploy_uses_exists_and_none_that_is_required_is_missing() {
    let known = names(config::NAMES);
    let required = [
        "AMAZON_PAY_REGION",
        "AMAZON_PAY_PUBLIC_KEY_ID",
        "AMAZON_PAY_MERCHANT_ID",
        "AMAZON_PAY_PRIVATE_KEY_FILE",
        "INTERNAL_API_TOKEN_FILE",
        "REDIS_URL_FILE",
        "SNS_TOPIC_ARNS",
    ];
    for (file, text) in files("deploy", "") {
        for name in assigned(&text) {
            assert!(known.contains(&name), "{file} sets {name}, which is no setting");
        }
    }
    let shipped = read("deploy/kubernetes/settings.yaml");
    let settings = assigned(&shipped);
    for name in required {
        assert!(settings.contains(name), "deploy/kubernetes/settings.yaml lacks {name}");
    }
    // A placeholder that looks like a topic would be taken for one, and what Amazon sends refused for ever.
    for name in ["AMAZON_PAY_REGION", "AMAZON_PAY_PUBLIC_KEY_ID", "AMAZON_PAY_MERCHANT_ID", "SNS_TOPIC_ARNS"] {
        let given = values(&shipped, &format!("{name}:"));
        assert_eq!(given, ["\"\""], "{name}");
    }
    // The unit sets the files; the rest is in the file of settings, which docs/OPERATING.md shows.
    let mut on_a_host = assigned(&read("deploy/systemd/amazon-pay-ipn.service"));
    on_a_host.extend(assigned(&read("docs/OPERATING.md")));
    for name in required {
        assert!(on_a_host.contains(name), "neither the unit nor docs/OPERATING.md sets {name}");
    }
}

#[test]
fn the_manifests_name_ports_and_probes_that_the_service_has() {
    let routes = |listener: &str| -> Names {
        let document = read(&format!("docs/api/openapi-{listener}.json"));
        let document: serde_json::Value = serde_json::from_str(&document).expect("JSON");
        document["paths"].as_object().expect("paths").keys().cloned().collect()
    };
    let deployment = read("deploy/kubernetes/deployment.yaml");
    // `path:` and `port:` of each probe: they ask the internal listener, and one that asks whether it lives does not ask Redis.
    let probes = values(&deployment, "path:");
    assert_eq!(probes, ["/healthz", "/healthz", "/readyz"], "startup, liveness, readiness");
    for probe in &probes {
        assert!(routes("internal").contains(*probe), "{probe} is no route of the internal listener");
    }
    assert_eq!(values(&deployment, "port:"), ["internal"; 3]);

    let settings = read("deploy/kubernetes/settings.yaml");
    for (listener, address) in [("public", "LISTEN_ADDR:"), ("internal", "INTERNAL_LISTEN_ADDR:")] {
        let port = values(&settings, address)[0].rsplit(':').next().unwrap_or_default();
        let container = format!("- name: {listener}\n              containerPort: {port}\n");
        assert!(deployment.contains(&container), "the {listener} listener is at {port}");
        let service = format!("- name: {listener}\n      port: {port}\n      targetPort: {listener}\n");
        assert!(read("deploy/kubernetes/services.yaml").contains(&service), "the {listener} listener is at {port}");
        let allowed = format!("        - port: {port}\n");
        assert!(read("deploy/kubernetes/network-policy.yaml").contains(&allowed), "{port} is not let in");
    }

    // The internet reaches one path of the public listener, and nothing of the internal one.
    let ingress = read("deploy/kubernetes/ingress.yaml");
    assert_eq!(values(&ingress, "- path:"), ["/ipn"]);
    assert_eq!(values(&ingress, "pathType:"), ["Exact"]);
    assert_eq!(routes("public"), names(&["/ipn"]));
    assert!(!ingress.contains("internal"), "the internal listener must not reach the internet");
    let nginx = read("deploy/nginx/amazon-pay-ipn.conf");
    let locations: Vec<&str> = nginx.lines().filter_map(|line| line.trim().strip_prefix("location ")).collect();
    assert_eq!(locations, ["= /ipn {", "/ {"]);
    assert_eq!(
        values(&nginx, "server"),
        ["127.0.0.1:8080;", "{"],
        "where the service listens unless it is told otherwise"
    );
}

#[test]
fn whoever_stops_the_service_waits_for_its_drain_and_proxies_close_first() {
    let drain = constant("src/app.rs", "const DRAIN: Duration = Duration::from_");
    let deployment = read("deploy/kubernetes/deployment.yaml");
    let number = |text: &str, name: &str| seconds(values(text, name).first().copied().unwrap_or_default());
    let before = number(&deployment, "seconds:");
    assert!(before > 0, "time for proxies to hear of it");
    let waits = [
        ("deploy/kubernetes/deployment.yaml", number(&deployment, "terminationGracePeriodSeconds:"), before + drain),
        (
            "deploy/systemd/amazon-pay-ipn.service",
            number(&read("deploy/systemd/amazon-pay-ipn.service").replace('=', "= "), "TimeoutStopSec="),
            drain,
        ),
        // The first is that of Redis.
        ("docker-compose.yml", seconds(values(&read("docker-compose.yml"), "stop_grace_period:")[1]), drain),
    ];
    for (file, given, needed) in waits {
        assert!(given > needed, "{file} gives {given} s, and {needed} are needed");
    }

    let nginx = read("deploy/nginx/amazon-pay-ipn.conf");
    let idle = constant("src/http/listener.rs", "header_read: Duration::from_");
    assert!(number(&nginx, "keepalive_timeout") < idle, "the service closes idle connections after {idle} s");
    let answer = constant("src/http/public.rs", "answer: Duration::from_");
    assert!(number(&nginx, "proxy_read_timeout") > answer, "the service may take {answer} s for an answer");
}

#[test]
fn nothing_writes_the_marker_by_itself() {
    let kustomization = read("deploy/kubernetes/kustomization.yaml");
    let applied = kustomization.lines().filter_map(|line| line.strip_prefix("  - "));
    // The resources; an image has fields.
    let applied: Names = applied.filter(|line| !line.contains(':')).map(str::to_owned).collect();
    let there: Names = files("deploy/kubernetes", ".yaml")
        .into_iter()
        .map(|(file, _)| file.trim_start_matches("deploy/kubernetes/").to_owned())
        .filter(|file| file != "kustomization.yaml" && !file.starts_with("by-hand/"))
        .collect();
    assert_same("deploy/kubernetes/kustomization.yaml", &there, &applied);
    for file in applied {
        let text = read(&format!("deploy/kubernetes/{file}"));
        // Whoever applies the folder instead of the kustomization runs nothing but the service.
        let runs: Vec<&str> =
            values(&text, "kind:").into_iter().filter(|kind| ["Job", "CronJob", "Pod"].contains(kind)).collect();
        assert!(runs.is_empty() && !text.contains("replicas:"), "deploy/kubernetes/{file}: {runs:?}");
        let said = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        assert_eq!(said.filter(|line| line.contains("init")).count(), 0, "deploy/kubernetes/{file} runs init");
    }
    let init = read("deploy/kubernetes/by-hand/init.yaml");
    assert_eq!(values(&init, "args:"), ["[init]"], "only who creates it says which one");
    for file in ["deploy/systemd/amazon-pay-ipn.service", "docker-compose.yml"] {
        let text = read(file);
        let commands = text.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(commands.filter(|line| line.contains("init ")).count(), 0, "{file} runs init");
    }
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let mut found = 0;
    for (file, text) in documents() {
        let folder = Path::new(&file).parent().unwrap_or(Path::new(""));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            found += 1;
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if target.is_empty() { root().join(&file) } else { root().join(folder).join(target) };
            assert!(path.exists(), "{file} links to {target}, which does not exist");
            if !anchor.is_empty() {
                let headings = fs::read_to_string(&path).unwrap_or_default();
                let slugs: Names = headings.lines().filter(|line| line.starts_with('#')).map(slug).collect();
                assert!(slugs.contains(anchor), "{file} links to {link}, but there is no such heading: {slugs:?}");
            }
        }
    }
    assert!(found >= 20, "the links were not found");
}

#[test]
fn every_document_that_the_code_refers_to_exists() {
    let mut texts = files("src", ".rs");
    texts.extend(files("src", ".lua"));
    texts.extend(files("tests", ".rs").into_iter().filter(|(file, _)| file != "tests/documentation.rs"));
    let mut found = 0;
    for (file, text) in texts {
        for rest in text.split("docs/").skip(1) {
            let name: String =
                rest.chars().take_while(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(*letter)).collect();
            let name = name.trim_end_matches('.');
            // Amazon's pages have paths of their own.
            if name.starts_with("amazon-pay")
                || !name.starts_with(|letter: char| letter.is_ascii_uppercase() || letter == 'a')
            {
                continue;
            }
            found += 1;
            let path = root().join("docs").join(name);
            let by_number = path.parent().is_some_and(|folder| {
                let start = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                !start.is_empty() && paths(folder).iter().any(|path| file_name(path).starts_with(start))
            });
            assert!(path.is_file() || by_number, "{file} refers to docs/{name}, which does not exist");
        }
    }
    assert!(found >= 5, "the references were not found");
}

#[test]
fn no_document_has_a_gap_to_be_filled_in_and_the_api_page_names_every_path() {
    for (file, text) in documents() {
        assert!(!text.contains("@@") && !text.contains("TODO"), "{file} is not finished");
    }
    let contract: serde_json::Value = serde_json::from_str(&read("docs/api/openapi-internal.json")).expect("JSON");
    let page = read("docs/API.md");
    let paths = contract["paths"].as_object().expect("paths");
    assert!(paths.len() >= 10, "the paths were not found");
    for path in paths.keys() {
        // `/v1/charges/{id}/pause` may stand as `/pause` beside its like.
        let last = path.rsplit('/').next().unwrap_or_default();
        assert!(page.contains(path.as_str()) || page.contains(&format!("/{last}`")), "docs/API.md lacks {path}");
    }
}

#[test]
fn the_index_of_decisions_lists_each_of_them() {
    let index = read("docs/adr/README.md");
    let decisions: Vec<PathBuf> =
        paths(&root().join("docs/adr")).into_iter().filter(|path| file_name(path) != "README.md").collect();
    assert!(decisions.len() >= 10, "the decisions were not found");
    for decision in decisions {
        let name = file_name(&decision);
        assert!(index.contains(&format!("({name})")), "docs/adr/README.md does not list {name}");
        let text = fs::read_to_string(&decision).expect("a decision can be read");
        for part in ["**Status:**", "**Context.**", "**Decision.**", "**Consequences.**"] {
            assert!(text.contains(part), "docs/adr/{name} lacks {part}");
        }
    }
}

#[test]
fn the_readers_of_documents_find_what_is_there() {
    assert_eq!(first_cells("| name | x |\n|---|---|\n| `A`, `B` | `C` |\ntext `D`"), names(&["A", "B"]));
    assert_eq!(code_spans("a `b` c\n```sh\nd `e`\n```\n`f`"), names(&["b", "f"]));
    assert_eq!(code_of("make a `make b`\n```sh\nmake c\n```\nmake d"), "make b\nmake c\n");
    assert_eq!(words_after("x serve --y\nx init", "x "), ["serve", "init"]);
    assert_eq!(without_comments("a<!-- b\nc -->d"), "ad");
    assert!(["src/app.rs", "src/store", ".ci/run", "Cargo.toml"].iter().all(|word| is_path(word)));
    assert!(["/v1", "POST", "account.attention", "TMPDIR=/dev/shm"].iter().all(|word| !is_path(word)));
    assert!(is_sentence("the_sentence_of_a_test") && !is_sentence("mark_send") && !is_sentence("amazon_pay_ipn_a_"));
    assert_eq!(slug("### `amazonpay.charge.held.v1`"), "amazonpaychargeheldv1");
    assert_eq!(slug("## The send protocol"), "the-send-protocol");
    assert_eq!(starred("permission:<an id>:open", '<', '>'), "permission:*:open");
}

/// Names of settings that a file gives a value: `NAME: value`, `NAME=value`, commented out or not.
fn assigned(text: &str) -> Names {
    let is_part = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    let mut found = Names::new();
    for line in text.lines() {
        for (at, _) in line.match_indices([':', '=']) {
            let before = &line[..at];
            let length = before.bytes().rev().take_while(is_part).count();
            let name = &before[at - length..];
            // `REDIS_URL:` and not `:`, `URL:` or `CapabilityBoundingSet=`.
            if name.contains('_') && !before[..at - length].ends_with(|c: char| c.is_ascii_alphanumeric()) {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

/// What stands behind a name at the head of each line that has it.
fn values<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let rest = text.lines().filter_map(|line| line.trim_start().strip_prefix(name));
    rest.filter(|rest| rest.starts_with(' ')).map(str::trim).collect()
}

/// `80`, `75s`, `60s;`
fn seconds(text: &str) -> u64 {
    let digits = text.trim_end_matches(';').trim_end_matches('s');
    digits.parse().unwrap_or_else(|error| panic!("{text:?} are no seconds: {error}"))
}

/// The seconds of the first duration in a file that is written like this one: `... Duration::from_secs(75)`.
fn constant(file: &str, start: &str) -> u64 {
    let source = read(file);
    let rest = source.split(start).nth(1).unwrap_or_else(|| panic!("{file} has no `{start}`"));
    let (unit, rest) = rest.split_once('(').expect("a call");
    let count: u64 = rest.split(')').next().and_then(|count| count.parse().ok()).expect("a whole number");
    match unit {
        "secs" => count,
        "mins" => count * 60,
        other => panic!("{file}: {other} is a unit that this test does not know"),
    }
}

/// A row of the keyspace table.
struct KeyRow {
    key: String,
    writers: Names,
}

fn keyspace_rows() -> Vec<KeyRow> {
    let text = read("docs/KEYSPACE.md");
    let overview = text.split("## Overview").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let rows = overview.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<&str> = line.split('|').collect();
        KeyRow { key: code_spans(cells[1]).into_iter().collect(), writers: code_spans(cells[4]) }
    });
    rows.collect()
}

fn assert_same(document: &str, code: &Names, documented: &Names) {
    let missing: Vec<_> = code.difference(documented).collect();
    let unknown: Vec<_> = documented.difference(code).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{document} lacks {missing:?}, and names what is not there: {unknown:?}"
    );
}

fn names(list: &[&str]) -> Names {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn is_name(text: &str, allowed: fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}

/// The code spans in the first cell of each row of each table.
fn first_cells(text: &str) -> Names {
    let cells = text.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('|').nth(1));
    cells.flat_map(code_spans).collect()
}

/// Spans between backticks, outside of fenced blocks.
fn code_spans(text: &str) -> Names {
    let prose = text.split("```").step_by(2).map(|part| format!("{part}\n"));
    prose.flat_map(|part| part.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Everything that is shown as code: spans and fenced blocks, each on lines of its own.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    for (index, part) in text.split("```").enumerate() {
        if index % 2 == 1 {
            // The first line names the language.
            code.push_str(part.split_once('\n').map_or("", |(_, block)| block));
        } else {
            for span in part.split('`').skip(1).step_by(2) {
                code.push_str(span);
                code.push('\n');
            }
        }
    }
    code
}

/// The words that directly follow `start`, where it begins a word itself.
fn words_after(text: &str, start: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, _) in text.match_indices(start) {
        let begins =
            text[..at].chars().next_back().is_none_or(|before| !before.is_ascii_alphanumeric() && before != '-');
        let word: String = text[at + start.len()..]
            .chars()
            .take_while(|letter| letter.is_ascii_lowercase() || *letter == '-')
            .collect();
        if begins && !word.is_empty() && !word.starts_with('-') {
            words.push(word);
        }
    }
    words
}

fn without_comments(text: &str) -> String {
    let mut parts = text.split("<!--");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |kept, part| kept + part.split_once("-->").map_or("", |(_, after)| after))
}

/// What varies in a pattern becomes `*`.
fn starred(pattern: &str, open: char, close: char) -> String {
    let mut parts = pattern.split(open);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |kept, part| kept + "*" + part.split_once(close).map_or("", |(_, after)| after))
}

/// The anchor that a heading gets.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// The documents by path, comments left out.
fn documents() -> Vec<(String, String)> {
    let mut documents =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|file| (file.to_owned(), read(file))).to_vec();
    documents.extend(files("docs", ".md"));
    documents.into_iter().map(|(file, text)| (file, without_comments(&text))).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// Files under a folder with this ending, at every depth, by path from the root.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in paths(&root().join(folder)) {
        let name = format!("{folder}/{}", file_name(&path));
        if path.is_dir() {
            found.extend(files(&name, ending));
        } else if name.ends_with(ending) {
            found.push((name.clone(), read(&name)));
        }
    }
    found
}
