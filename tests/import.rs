//! Policies of other tools: each file of `import/`, whose name begins with the tool, and beside it the report and the
//! policy that come of it.
//!
//! `UPDATE_EXPECT=1 cargo test --test import` writes the expected texts anew.

mod expected;

use expected::expect;
use std::fs;
use std::path::{Path, PathBuf};
use tailkeep::import::{Fidelity, Imported, Tool, import};
use tailkeep::policy::check_policy;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import");
    let entries = fs::read_dir(&folder).expect("the cases are there").map(|entry| entry.expect("an entry").path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "yaml")).collect();
    cases.sort();
    assert!(cases.len() >= 8, "{cases:?}");
    cases
}

fn imported(path: &Path) -> Result<Imported, String> {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let tool = if name.starts_with("otel") { Tool::Otel } else { Tool::Refinery };
    import(tool, &name, &fs::read_to_string(path).expect("a readable case"), None, false)
}

#[test]
fn every_file_becomes_the_policy_and_the_report_beside_it() {
    let mut wrong = Vec::new();
    for path in cases() {
        let found = match imported(&path) {
            Ok(imported) => format!("{}---\n{}", imported.report(), imported.policy),
            Err(report) => report,
        };
        if !expect(&path.with_extension("expected"), &found) {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_policy_that_is_written_passes_check() {
    for imported in cases().iter().filter_map(|path| imported(path).ok()) {
        let report = check_policy("written", &imported.policy, false);
        assert_eq!(report.exit_code, 0, "{}", report.text);
    }
}

#[test]
fn each_part_has_rules_or_a_reason() {
    for imported in cases().iter().filter_map(|path| imported(path).ok()) {
        for finding in &imported.findings {
            let is_said = finding.fidelity == Fidelity::Exactly || !finding.notes.is_empty();
            assert!(is_said, "{finding:?}");
            let has_rules = finding.fidelity != Fidelity::Not || finding.rules.is_empty();
            assert!(has_rules, "{finding:?}");
            for rule in finding.rules.iter().filter(|rule| !["wait", "otherwise"].contains(&rule.as_str())) {
                let named = [format!("- name: {rule}\n"), format!("- name: {rule:?}\n")];
                assert!(
                    named.iter().any(|line| imported.policy.contains(line)),
                    "{rule} is not in {}",
                    imported.policy
                );
            }
        }
    }
}

#[test]
fn a_report_can_be_read_by_a_program() {
    let imported = imported(&cases().into_iter().find(|path| path.ends_with("otel-manifest.yaml")).expect("the case"));
    let json: serde_json::Value = serde_json::from_str(&imported.expect("a policy").json()).expect("JSON");
    assert_eq!(json["exactly"].as_u64(), Some(2));
    assert_eq!(json["findings"][3]["outcome"], "not");
    assert!(json["policy"].as_str().expect("the policy").contains("keep: 60%"), "{json}");
}

#[test]
fn one_of_several_is_chosen_by_name() {
    let path = cases().into_iter().find(|path| path.ends_with("otel-two-processors.yaml")).expect("the case");
    let text = fs::read_to_string(path).expect("a readable case");
    let second = import(Tool::Otel, "f", &text, Some("tail_sampling/second"), false).expect("a policy");
    assert!(second.findings.iter().any(|finding| finding.name == "b"), "{:?}", second.findings);
    let none = import(Tool::Otel, "f", &text, Some("tail_sampling/third"), false).expect_err("there is none");
    assert!(none.contains("tail_sampling, tail_sampling/second"), "{none}");
}

#[test]
fn a_syntax_error_is_shown_where_it_is() {
    let report = import(Tool::Otel, "f.yaml", "processors:\n  tail_sampling: {\n", None, false).expect_err("no YAML");
    assert!(report.contains("f.yaml:3:1") && report.contains("nothing was written"), "{report}");
    assert!(import(Tool::Refinery, "f.yaml", "", None, false).expect_err("nothing").contains("the file is empty"));
}
