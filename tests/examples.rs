//! What the documents show is true: every YAML block and every file in `config/` loads, every command
//! line runs, every link leads somewhere, and the tables name what the program has.

#[path = "process/accounts.rs"]
mod accounts;
#[path = "examples/commands.rs"]
mod commands;
#[path = "examples/documents.rs"]
mod documents;
#[path = "examples/manifests.rs"]
mod manifests;
#[path = "examples/process.rs"]
mod process;
#[path = "examples/tables.rs"]
mod tables;

use documents::{documents, path, read};
use std::path::Path;
use tailkeep::config::{Config, Host};
use tailkeep::diagnostic::render;
use tailkeep::policy::Policy;
use tailkeep::policy_test::{self, File, Tested};
use tailkeep::trace::RuleNames;

/// Variables that examples name, with values of the right form.
fn variable(name: &str) -> Option<String> {
    let value = match name {
        "OTLP_ENDPOINT" => "https://otlp.example.com:4317",
        "ARMS_TRACES_URL" | "ARMS_METRICS_URL" => "https://arms.example.com/adapt_x/api/otlp",
        _ => "a-value",
    };
    Some(value.to_owned())
}

fn host() -> Host {
    Host {
        memory_limit: 8 << 30,
        data_folder: Some("/data".into()),
        descriptors: 20_000,
        instance: "an-instance".to_owned(),
        hop: String::new(),
    }
}

/// The policy in `text`; not even a warning is allowed.
fn load_policy(what: &str, text: &str) -> Policy {
    let (policy, diagnostics) = Policy::compile(what, text, 1, &mut RuleNames::default());
    assert!(diagnostics.is_empty(), "{what}:\n{}", render(&diagnostics, text, false));
    policy.expect("no diagnostics, so a policy")
}

/// The configuration in `text`, likewise.
fn load_config(what: &str, text: &str) -> Config {
    let (config, diagnostics) = Config::parse(Path::new(what), text, variable, &host());
    assert!(diagnostics.is_empty(), "{what}:\n{}", render(&diagnostics, text, false));
    config.expect("no diagnostics, so a configuration")
}

/// The cases in `text`, judged by the policy in a file: each is as it says.
fn load_cases(policy: &str, what: &str, text: &str) -> Tested {
    let policy = File { name: policy, text: &read(policy) };
    let mut recordings = |name: &str| Err(format!("{name} is not at hand"));
    let tested = policy_test::test(policy, File { name: what, text }, &mut recordings, false);
    let tested = tested.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(tested.failed(), 0, "{}", tested.text());
    tested
}

/// Loads a policy, rules of one, cases for one, alerts, a manifest, or a configuration: its first key tells.
fn load(what: &str, text: &str) {
    let first = text.lines().find(|line| !line.trim_start().starts_with('#') && !line.is_empty());
    let first = first.unwrap_or_else(|| panic!("{what} is empty"));
    if first.starts_with("version:") {
        load_policy(what, text);
    } else if first.starts_with("groups:") {
        manifests::check_alerts(what, text);
    } else if first.starts_with("apiVersion:") {
        manifests::check_snippet(what, text);
    } else if first.starts_with("cases:") {
        load_cases("config/policy.yaml", what, text);
    } else if first.starts_with("- name:") {
        load_policy(what, &format!("version: 1\nrules:\n{text}otherwise: {{ keep: none }}\n"));
    } else {
        load_config(what, text);
    }
}

#[test]
fn every_yaml_block_loads() {
    let blocks: Vec<_> = documents().iter().flat_map(|document| document.blocks("yaml")).collect();
    assert!(blocks.len() > 5, "the documents have examples");
    blocks.iter().for_each(|block| load(&block.place, &block.text));
}

#[test]
fn every_file_in_config_is_checked() {
    for entry in std::fs::read_dir(path("config")).expect("a folder") {
        let entry = entry.expect("readable").path();
        let name = entry.strip_prefix(path("")).expect("ours").display().to_string();
        match entry.extension().and_then(|extension| extension.to_str()) {
            Some("yaml") => load(&name, &read(&name)),
            // `tests/schema.rs` holds them against the code.
            Some("json") => assert!(read("tests/schema.rs").contains(".schema.json"), "nobody checks {name}"),
            // Held against CycloneDX's schema and the lock file by `tests/install/run`.
            Some("py") => assert!(read("tests/install/bill.py").contains(&name), "nobody runs {name}"),
            // Run by `tests/image/run`.
            Some("sh") => assert!(read("Dockerfile").contains(&format!("RUN {name} ")), "nobody uses {name}"),
            None if name == "config/k8s" => manifests::check_all(),
            None if name == "config/examples" => check_examples(),
            None if name == "config/ram" => check_ram(),
            None if name == "config/prometheus" => {
                manifests::check_alerts("alerts.yaml", &read("config/prometheus/alerts.yaml"));
            }
            // `tests/install/run` renders the one, and has Prometheus answer what the other asks.
            None if name == "config/kustomize" => assert!(read("tests/install/overlays.py").contains(&name)),
            None if name == "config/grafana" => assert!(read("tests/install/dashboards.py").contains(&name)),
            _ => panic!("say here how {name} is checked"),
        }
    }
}

#[test]
fn every_rule_of_the_example_has_a_case() {
    let name = "config/policy.tests.yaml";
    let tested = load_cases("config/policy.yaml", name, &read(name));
    assert!(tested.covers_all(), "{}", tested.text());
}

/// Policies to begin with, each with cases for all of its rules.
fn check_examples() {
    let names = std::fs::read_dir(path("config/examples")).expect("a folder");
    let names = names.map(|entry| format!("config/examples/{}", entry.expect("readable").file_name().display()));
    let (tests, policies): (Vec<String>, Vec<String>) = names.partition(|name| name.ends_with(".tests.yaml"));
    assert_eq!(tests.len(), policies.len(), "{policies:?} and {tests:?}");
    for policy in policies {
        load_policy(&policy, &read(&policy));
        let tests = policy.replace(".yaml", ".tests.yaml");
        let tested = load_cases(&policy, &tests, &read(&tests));
        assert!(tested.covers_all(), "{}", tested.text());
        assert!(read("docs/policy.md").contains(&policy), "docs/policy.md does not name {policy}");
    }
}

#[test]
fn the_lines_for_maven_are_those_of_the_example() {
    let unindented = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let project = unindented(&read("tests/sdk/java/pom.xml"));
    let blocks: Vec<_> = documents().iter().flat_map(|document| document.blocks("xml")).collect();
    assert_eq!(blocks.len(), 1, "what README says of Spring Boot");
    assert!(project.contains(unindented(&blocks[0].text).trim()), "{}: not in pom.xml", blocks[0].place);
}

/// Policy documents of RAM: JSON of the only version that there is.
fn check_ram() {
    for entry in std::fs::read_dir(path("config/ram")).expect("a folder") {
        let name = entry.expect("readable").file_name().into_string().expect("a name");
        let document: serde_json::Value =
            serde_json::from_str(&read(&format!("config/ram/{name}"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(document["Version"], "1", "{name}");
        let statements = document["Statement"].as_array().unwrap_or_else(|| panic!("{name}: no statement"));
        let actions: Vec<&str> = statements.iter().flat_map(|statement| texts(&statement["Action"])).collect();
        let needed = match name.as_str() {
            "sls-write.json" => "log:PostLogStoreLogs",
            "sls-doctor.json" => "log:GetLogStore",
            "rrsa-trust.json" | "assume-role.json" => "sts:AssumeRole",
            _ => panic!("say here what {name} allows"),
        };
        assert_eq!(actions, [needed], "{name}: no less, and no more");
        assert!(read("docs/alibaba-cloud.md").contains(&format!("config/ram/{name}")), "{name} is not explained");
    }
}

/// A text or a list of texts.
fn texts(value: &serde_json::Value) -> Vec<&str> {
    value
        .as_array()
        .map_or_else(|| vec![value.as_str().expect("a text")], |list| list.iter().filter_map(|v| v.as_str()).collect())
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for document in documents() {
        for link in document.links() {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = document.resolve(file);
            assert!(path(&target).exists(), "{}: {link} leads nowhere", document.name);
            if !anchor.is_empty() {
                let anchors = documents::Document::read(&target).anchors();
                assert!(anchors.iter().any(|known| known == anchor), "{}: {link}: only {anchors:?}", document.name);
            }
            links += 1;
        }
    }
    assert!(links > 20, "the documents refer to each other");
}
