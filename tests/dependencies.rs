//! Holds the dependencies to our rules: a reason beside each, no default features without need, licences
//! that may be shipped in a binary, no version twice without a reason, nothing but the registry.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// A crate can be used if one of the alternatives that it offers consists of these.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Crates whose default features are what we need: there are none, or only `std`.
const WITH_DEFAULTS: &[&str] = &[
    "arc-swap",
    "crc32fast",
    "dashmap",
    "http",
    "http-body",
    "http-body-util",
    "rustls-native-certs",
    "simdutf8",
    "tempfile",
];

/// Crates that are there in several versions, and who holds on to the older one.
const TWICE: &[(&str, &str)] = &[
    ("base64", "pem, in the tests' certificates"),
    ("cpufeatures", "sha1 and sha2 0.10"),
    ("getrandom", "ring, and what is used in tests"),
    ("hashbrown", "dashmap"),
    ("itertools", "criterion, in benches"),
    ("rand", "opentelemetry_sdk, which opentelemetry-proto's JSON form brings"),
    ("rand_core", "opentelemetry_sdk, likewise"),
    ("syn", "derive macros, at build time"),
];

fn manifest() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    std::fs::read_to_string(path).expect("our manifest")
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// All packages that are built for this platform.
fn packages() -> Vec<Value> {
    let version = run(env!("CARGO"), &["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo knows its host");
    let arguments = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host];
    let metadata: Value = serde_json::from_str(&run(env!("CARGO"), &arguments)).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let nodes = list(&metadata["resolve"]["nodes"]);
    let used: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    list(&metadata["packages"]).into_iter().filter(|p| p["id"].as_str().is_some_and(|id| used.contains(id))).collect()
}

fn text<'v>(package: &'v Value, key: &str) -> &'v str {
    package[key].as_str().unwrap_or_default()
}

/// An SPDX expression of names, AND, OR and parentheses; `/` is an old way to write OR.
fn is_usable(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let expression = expression.trim();
    if let Some((left, right)) = split_outside(expression, " AND ") {
        return is_usable(left) && is_usable(right);
    }
    if let Some((left, right)) = split_outside(expression, " OR ") {
        return is_usable(left) || is_usable(right);
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_usable(inner),
        None => LICENCES.contains(&expression.trim()),
    }
}

/// Splits at the first `word` that is not in parentheses.
fn split_outside<'e>(expression: &'e str, word: &str) -> Option<(&'e str, &'e str)> {
    let depth = |end: usize| {
        let count = |c| expression[..end].matches(c).count();
        count('(') - count(')')
    };
    let (at, _) = expression.match_indices(word).find(|(at, _)| depth(*at) == 0)?;
    Some((&expression[..at], &expression[at + word.len()..]))
}

#[test]
fn licence_expressions_are_understood() {
    for usable in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-2.0) AND ISC", "Unlicense OR MIT"] {
        assert!(is_usable(usable), "{usable}");
    }
    for not in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND MPL-2.0", "Proprietary"] {
        assert!(!is_usable(not), "{not}");
    }
}

#[test]
fn every_licence_may_be_shipped() {
    let describe = |p: &Value| format!("{} {}: {}", text(p, "name"), text(p, "version"), text(p, "license"));
    let wrong: Vec<String> = packages().iter().filter(|p| !is_usable(text(p, "license"))).map(describe).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn everything_comes_from_the_registry() {
    let packages = packages();
    let source = |p: &&Value| !text(p, "source").starts_with("registry+") && text(p, "name") != "tailkeep";
    let foreign: Vec<&str> = packages.iter().filter(source).map(|p| text(p, "name")).collect();
    assert!(foreign.is_empty(), "not from the registry: {foreign:?}");
}

#[test]
fn no_crate_is_there_twice_without_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        versions.entry(text(&package, "name").to_owned()).or_default().insert(text(&package, "version").to_owned());
    }
    let twice: BTreeMap<_, _> = versions.into_iter().filter(|(_, versions)| versions.len() > 1).collect();
    let listed: BTreeSet<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = twice.keys().map(String::as_str).collect();
    assert_eq!(found, listed, "bring the versions together, or list the crate with its reason: {twice:#?}");
}

#[test]
fn every_dependency_has_a_reason_and_no_default_features() {
    let manifest = manifest();
    let tables =
        manifest.split("\n[").filter(|table| table.split(']').next().is_some_and(|n| n.ends_with("dependencies")));
    let mut seen = 0;
    for line in tables.flat_map(str::lines).filter(|line| line.contains('=') && !line.starts_with('#')) {
        let name = line.split('=').next().unwrap_or_default().trim();
        let reason = line.split_once("# ").map(|(_, reason)| reason.trim()).unwrap_or_default();
        assert!(reason.len() > 3, "say beside `{name}` in Cargo.toml what it is for");
        let plain = !line.contains("default-features = false");
        assert!(
            !plain || WITH_DEFAULTS.contains(&name),
            "`{name}`: write `default-features = false` and what is needed"
        );
        seen += 1;
    }
    assert!(seen > 30, "the manifest was read");
}
