//! `config/policy.schema.json` and `config/tailkeep.schema.json`, as editors use them, against the code that reads the
//! files: the same keys everywhere, all our files are taken, and all wrong ones refused that a schema can refuse.

#[path = "schema/validator.rs"]
mod validator;

use regex::Regex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use tailkeep::policy::condition::IncompleteSet;
use tailkeep::trace::{SpanKind, Status};
use tailkeep::yaml::{self, Meaning, Node};
use tailkeep::{config, policy};
use validator::Schema;

/// Wrong files that are right by their shape, and what it would take to see that they are wrong.
const BEYOND_A_SCHEMA: &[(&str, &str)] = &[
    ("p07-expressions", "what a regular expression may be"),
    ("p14-too-many-questions", "a count over all rules"),
    ("p14-too-many-errors", "a count of what is different"),
    ("p14-too-many-entry-attributes", "a count over all rules"),
    ("p09-keys-of-a-shared-limit", "whether a text is the name of a limit that is there"),
    ("p21-no-limits", "the same"),
    ("p15-wait", "durations compared with each other"),
    ("y03-key-twice", "an editor itself says it"),
    ("c01-empty-variable", "the environment"),
    ("c01-unset-variable", "the environment"),
    ("c02-not-a-variable", "what stands in `${…}`"),
    ("c04-same-port", "two values compared"),
    ("c05-memory-out-of-range", "the size that a text stands for"),
    ("c05-ring-too-large", "sizes compared with each other"),
    ("c05-sum-too-large", "sizes added up"),
    ("c07-same-place", "two values compared"),
    ("c08-own-listener", "two values compared"),
    ("c09-sinks-that-cannot-be-built", "files and vendors' rules"),
    ("c09-whole-urls", "what an endpoint's path means"),
    ("c10-open-administration", "which addresses others reach"),
    ("c14-buckets-and-dimensions", "the order of buckets"),
    ("c15-no-policy", "files"),
    ("c17-no-certificate", "files"),
    ("c17-tls", "files"),
    ("c18-files-of-secrets", "files"),
    ("c21-rules", "the policy"),
    ("p-policy-with-errors", "another file"),
    ("substituted-values-are-not-shown-when-built", "the environment"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn schema(name: &str) -> Schema {
    let text = read(&root().join(format!("config/{name}.schema.json")));
    Schema { root: serde_json::from_str(&text).expect("a schema is JSON") }
}

fn listing(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|kind| kind == extension)).collect();
    paths.sort();
    paths
}

/// What an editor sees; `None` if it is not YAML. Variables stay as they are written.
fn document(text: &str) -> Option<Value> {
    // In braces of YAML those of a variable would be braces too.
    let variable = Regex::new(r"\$\{([\w:./-]*)\}").expect("valid");
    let (tree, flaws) = yaml::parse(&variable.replace_all(text, "$$<$1>"));
    let is_yaml = flaws.iter().all(|flaw| flaw.code == "Y03");
    is_yaml.then(|| tree.map_or(Value::Null, |tree| json(&tree)))
}

fn json(node: &Node) -> Value {
    match &node.value {
        yaml::Value::Scalar(scalar) => match scalar.meaning() {
            Meaning::Null => Value::Null,
            Meaning::Bool(value) => value.into(),
            Meaning::Number(number) => scalar.text.parse::<i64>().map_or_else(|_| number.into(), Value::from),
            Meaning::Text(text) => text.replace("$<", "${").into(),
        },
        yaml::Value::List(items) => items.iter().map(json).collect(),
        yaml::Value::Map(entries) => entries
            .iter()
            .map(|entry| (entry.key.clone(), json(&entry.value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        yaml::Value::Refused => Value::Null,
    }
}

/// Our files but for the cases beside a policy, whose language is in the documents alone.
fn with_schema() -> Vec<PathBuf> {
    let is_of_cases = |path: &PathBuf| path.to_string_lossy().ends_with(".tests.yaml");
    listing("config", "yaml").into_iter().filter(|path| !is_of_cases(path)).collect()
}

fn assert_takes(schema: &Schema, name: &str, text: &str) {
    let document = document(text).unwrap_or_else(|| panic!("{name} is not YAML"));
    assert_eq!(schema.problems(&document), Vec::<String>::new(), "{name}");
}

#[test]
fn our_files_are_taken() {
    let policies = schema("policy");
    for path in ["config/policy.yaml", "config/default-policy.yaml"] {
        assert_takes(&policies, path, &read(&root().join(path)));
    }
    for entry in fs::read_dir(root().join("tests/policy_cases")).expect("cases") {
        let path = entry.expect("a case").path().join("policy.yaml");
        assert_takes(&policies, &path.display().to_string(), &read(&path));
    }
    for path in listing("tests/import", "expected") {
        if let Some((_, policy)) = read(&path).split_once("---\n#") {
            assert_takes(&policies, &path.display().to_string(), &format!("#{policy}"));
        }
    }
    let configurations = schema("tailkeep");
    let files = with_schema().into_iter().filter(|path| !path.to_string_lossy().ends_with("policy.yaml"));
    for path in files {
        assert_takes(&configurations, &path.display().to_string(), &read(&path));
    }
}

/// The files of a folder of diagnostics, and whether `check` refuses them.
fn judged(folder: &str) -> Vec<(String, String, bool)> {
    let case = |path: PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let is_wrong = read(&path.with_extension("stderr")).lines().any(|line| line.starts_with("error["));
        (name, read(&path), is_wrong)
    };
    listing(folder, "yaml").into_iter().map(case).collect()
}

#[test]
fn wrong_files_are_refused_and_right_ones_taken() {
    let mut beyond: BTreeMap<&str, &str> = BEYOND_A_SCHEMA.iter().copied().collect();
    let mut refused = 0;
    for (folder, schema) in [("tests/diagnostics", schema("policy")), ("tests/config/diagnostics", schema("tailkeep"))]
    {
        for (name, text, is_wrong) in judged(folder) {
            let problems = document(&text).map(|document| schema.problems(&document));
            let is_taken = problems.as_ref().is_some_and(Vec::is_empty);
            if is_wrong && beyond.remove(name.as_str()).is_some() {
                assert!(is_taken, "{name} is not beyond a schema: {problems:?}");
            } else {
                assert_eq!(is_taken, !is_wrong, "{folder}/{name}: {problems:?}");
                refused += usize::from(is_wrong);
            }
        }
    }
    assert!(refused > 60, "{refused}");
    assert!(beyond.is_empty(), "no longer there, or right: {beyond:?}");
}

/// Every mapping that a schema allows in a place, each with its keys.
fn mappings<'s>(schema: &'s Schema, place: &'s Value) -> Vec<&'s serde_json::Map<String, Value>> {
    let place = schema.resolved(place);
    let mut found: Vec<_> = place.get("properties").and_then(Value::as_object).into_iter().collect();
    let inner = place
        .get("items")
        .into_iter()
        .chain(place.get("additionalProperties"))
        .chain(["anyOf", "oneOf"].iter().filter_map(|key| place.get(key)?.as_array()).flatten());
    found.extend(inner.flat_map(|inner| mappings(schema, inner)));
    found
}

/// The keys that a schema allows in a section like `sinks.otlp`.
fn keys(schema: &Schema, section: &str) -> BTreeSet<String> {
    let mut places = vec![&schema.root];
    for key in section.split('.').filter(|key| !key.is_empty()) {
        places = places.iter().flat_map(|place| mappings(schema, place)).filter_map(|known| known.get(key)).collect();
        assert!(!places.is_empty(), "no section {section}");
    }
    places.iter().flat_map(|place| mappings(schema, place)).flat_map(|known| known.keys().cloned()).collect()
}

fn set(words: impl IntoIterator<Item = impl Into<String>>) -> BTreeSet<String> {
    words.into_iter().map(Into::into).collect()
}

#[test]
fn every_key_of_the_code_is_a_key_of_the_schema_and_no_other() {
    for (schema, sections) in [(schema("policy"), policy::sections()), (schema("tailkeep"), config::sections())] {
        assert!(sections.len() > 6);
        for (section, known) in sections {
            assert_eq!(keys(&schema, section), set(known), "of `{section}`");
        }
    }
}

#[test]
fn nested_conditions_have_all_keys_but_their_own() {
    let policies = schema("policy");
    let all = keys(&policies, "rules.when");
    for (nested, own) in [
        ("not", &["not"][..]),
        ("any_of", &["any_of"]),
        ("not.any_of", &["not", "any_of"]),
        ("any_of.not", &["not", "any_of"]),
    ] {
        let left: BTreeSet<String> = all.difference(&set(own.iter().copied())).cloned().collect();
        assert_eq!(keys(&policies, &format!("rules.when.{nested}")), left, "of `{nested}`");
    }
}

/// The words of every `enum` in a property.
fn words(schema: &Schema, section: &str, key: &str) -> BTreeSet<String> {
    let mut places = vec![&schema.root];
    for key in section.split('.').chain([key]) {
        places = places.iter().flat_map(|place| mappings(schema, place)).filter_map(|known| known.get(key)).collect();
    }
    let mut words = BTreeSet::new();
    let mut left: Vec<&Value> = places;
    while let Some(place) = left.pop() {
        let place = schema.resolved(place);
        words.extend(
            place
                .get("enum")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned),
        );
        left.extend(place.get("items"));
        left.extend(place.get("anyOf").and_then(Value::as_array).into_iter().flatten());
    }
    words
}

#[test]
fn closed_sets_have_the_words_of_the_code() {
    let (policies, configurations) = (schema("policy"), schema("tailkeep"));
    let kinds = set(SpanKind::ALL.map(SpanKind::word));
    assert_eq!(words(&policies, "rules.when.any_span", "kind"), kinds);
    assert_eq!(words(&configurations, "measure", "kinds"), kinds);
    assert_eq!(words(&policies, "rules.when.any_span", "status"), set(Status::ALL.map(Status::word)));
    assert_eq!(words(&policies, "rules.when", "incomplete"), set(IncompleteSet::WORDS.map(|(word, _)| word)));
}

#[test]
fn every_key_says_what_it_is() {
    for name in ["policy", "tailkeep"] {
        let mut left = vec![schema(name).root];
        while let Some(place) = left.pop() {
            for (key, property) in place.get("properties").and_then(Value::as_object).into_iter().flatten() {
                assert!(property["description"].as_str().is_some_and(|text| text.len() > 8), "{name}: {key}");
            }
            match place {
                Value::Object(entries) => left.extend(entries.into_iter().map(|(_, value)| value)),
                Value::Array(items) => left.extend(items),
                _ => {}
            }
        }
    }
}

#[test]
fn editors_find_the_schema_of_our_files() {
    for path in with_schema() {
        let name = if path.to_string_lossy().ends_with("policy.yaml") { "policy" } else { "tailkeep" };
        let line = format!("# yaml-language-server: $schema={name}.schema.json\n");
        assert!(read(&path).starts_with(&line), "{} does not begin with {line}", path.display());
    }
}
