//! Cases that are files: `policy_cases/<case>/` and `diagnostics/<case>.yaml`.

use crate::expected::expect;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tailkeep::diagnostic::{self, Diagnostic, Severity};
use tailkeep::policy::{Policy, check_policy, explain};
use tailkeep::trace::RuleNames;

pub fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn listing(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_case_is_explained_as_expected() {
    let cases = listing(&tests_folder().join("policy_cases"));
    assert!(cases.len() >= 10, "the cases are there");
    let wrong: Vec<&PathBuf> = cases
        .iter()
        .filter(|case| {
            let text = read(&case.join("policy.yaml"));
            let (policy, diagnostics) = Policy::compile("policy.yaml", &text, 1, &mut RuleNames::default());
            let policy = policy
                .unwrap_or_else(|| panic!("{}: {}", case.display(), diagnostic::render(&diagnostics, &text, false)));
            let found = explain(&policy, read(&case.join("trace.json")).as_bytes())
                .unwrap_or_else(|error| format!("{error}\n"));
            !expect(&case.join("expected.txt"), &found)
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// All diagnostics cases: the path and what `check` says.
fn reports() -> Vec<(PathBuf, String, u8)> {
    let files = listing(&tests_folder().join("diagnostics"));
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files
        .map(|path| {
            let name = path.file_name().expect("a file name").to_string_lossy().into_owned();
            let report = check_policy(&name, &read(&path), false);
            (path, report.text, report.exit_code)
        })
        .collect()
}

#[test]
fn every_problem_is_reported_as_expected() {
    let wrong: Vec<PathBuf> = reports()
        .into_iter()
        .filter(|(path, text, _)| !expect(&path.with_extension("stderr"), text))
        .map(|(path, ..)| path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_problem_says_what_to_write() {
    for (path, text, _) in reports() {
        for problem in text.split("\nerror[").flat_map(|text| text.split("\nwarning[")) {
            assert!(problem.contains(" = help: ") || problem.contains("no problem"), "{}: {problem}", path.display());
        }
    }
}

/// `source` with the place of `problem` written as its help says, if that is a whole value.
fn mended(source: &str, problem: &Diagnostic) -> Option<String> {
    let suggested = problem.help.as_deref()?.strip_prefix("write `")?.strip_suffix('`')?;
    let is_whole = !suggested.contains(['`', '…']) && problem.severity == Severity::Error;
    let (before, after) = (&source[..problem.span.start], &source[problem.span.end..]);
    // The suggestion may repeat the key.
    let value = match suggested.split_once(": ") {
        Some((key, value)) if before.ends_with(&format!("{key}: ")) => value,
        Some(_) if !suggested.starts_with('{') => return None,
        _ => suggested,
    };
    is_whole.then(|| format!("{before}{value}{after}"))
}

#[test]
fn what_is_suggested_is_valid() {
    let problems = |text: &str| Policy::compile("p", text, 1, &mut RuleNames::default()).1;
    let mut tried = 0;
    for (path, ..) in reports() {
        let source = read(&path);
        for problem in problems(&source) {
            let Some(mended) = mended(&source, &problem) else { continue };
            tried += 1;
            let left: Vec<Diagnostic> =
                problems(&mended).into_iter().filter(|left| left.span.start == problem.span.start).collect();
            assert_eq!(left, [], "{}: {:?}", path.display(), problem.help);
        }
    }
    assert!(tried > 15, "{tried}");
}

#[test]
fn only_errors_decide_the_exit_code() {
    for (path, text, exit_code) in reports() {
        let has_error = text.lines().any(|line| line.starts_with("error["));
        assert_eq!(exit_code, if has_error { 2 } else { 0 }, "{}", path.display());
    }
}

#[test]
fn every_code_has_a_case() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = vec![read(&source.join("yaml.rs")), read(&source.join("policy.rs"))];
    for folder in ["yaml", "policy", "policy/parse", "policy/review"] {
        let files = listing(&source.join(folder));
        texts.extend(files.iter().filter(|path| path.is_file()).map(|path| read(path)));
    }
    let used: BTreeSet<&str> = texts.iter().flat_map(|text| codes(text, "\"")).collect();
    assert!(used.len() > 20, "{used:?}");
    let reports = reports();
    let shown: BTreeSet<&str> = reports.iter().flat_map(|(_, text, _)| codes(text, "")).collect();
    let missing: Vec<&&str> = used.difference(&shown).collect();
    assert!(missing.is_empty(), "no case in tests/diagnostics shows {missing:?}");
}

/// Codes like `P03`, each between `quote` characters, or in brackets.
fn codes<'t>(text: &'t str, quote: &str) -> Vec<&'t str> {
    let (open, close) = if quote.is_empty() { ("[", "]") } else { (quote, quote) };
    let is_code =
        |word: &&str| word.len() == 3 && word.starts_with(['P', 'Y']) && word[1..].bytes().all(|c| c.is_ascii_digit());
    text.split(open).filter_map(|piece| piece.split(close).next()).filter(is_code).collect()
}

#[test]
fn the_example_files_have_no_problem() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for name in ["policy.yaml", "default-policy.yaml"] {
        let report = check_policy(name, &read(&folder.join(name)), false);
        assert_eq!(report.exit_code, 0, "{}", report.text);
        assert!(report.text.ends_with("no problem\n"), "{}", report.text);
    }
}

#[test]
fn what_is_no_trace_is_refused_in_words() {
    let (policy, _) = Policy::compile("p", Policy::builtin(), 1, &mut RuleNames::default());
    let policy = policy.expect("the built-in policy compiles");
    let refused = |json: &str| explain(&policy, json.as_bytes()).expect_err("no trace");
    assert!(refused("{}").contains("resourceSpans"));
    assert!(refused("{\"resourceSpans\": 5}").starts_with("this is not OTLP/JSON"));
    let short = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"ab","name":"x"}]}]}]}"#;
    assert!(refused(short).contains("32 digits"));
}
