//! Tables in the documents against what the program has.

use super::documents::{Document, read};
use super::load_config;
use regex::Regex;
use tailkeep::trace::Signal;

/// The words of a constant `NAME: &[&str] = &[…]` in a source file.
fn constant(file: &str, name: &str) -> Vec<String> {
    let source = read(file);
    let start = source.find(&format!("const {name}: &[&str]")).unwrap_or_else(|| panic!("{file} has no {name}"));
    let list = source[start..].split(';').next().expect("it ends");
    let word = Regex::new("\"([^\"]+)\"").expect("valid");
    word.captures_iter(list).map(|found| found[1].to_owned()).collect()
}

#[test]
fn the_policy_language_is_documented_as_a_whole() {
    let documented = Document::read("docs/policy.md").first_cells();
    for (file, name) in [
        ("src/policy/parse.rs", "FILE_KEYS"),
        ("src/policy/parse.rs", "WAIT_KEYS"),
        ("src/policy/parse.rs", "ERRORS_KEYS"),
        ("src/policy/parse.rs", "RULE_KEYS"),
        ("src/policy/parse/when.rs", "TRACE_KEYS"),
        ("src/policy/parse/when.rs", "SPAN_KEYS"),
        ("src/policy_test/case.rs", "CASE_KEYS"),
        ("src/policy_test/spans.rs", "SPAN_KEYS"),
    ] {
        for key in constant(file, name) {
            assert!(documented.contains(&key), "docs/policy.md has no row for `{key}` of {name}");
        }
    }
}

#[test]
fn every_section_of_the_configuration_is_documented() {
    let documented = Document::read("docs/configuration.md").first_cells();
    for key in constant("src/config.rs", "KEYS") {
        assert!(documented.contains(&key), "docs/configuration.md has no row for `{key}`");
    }
}

#[test]
fn the_memory_arithmetic_holds() {
    let document = read("docs/configuration.md");
    let row = |key: &str| {
        let found = document.lines().find(|line| line.ends_with(&format!("| `{key}` |")));
        let found = found.unwrap_or_else(|| panic!("docs/configuration.md has no row for `{key}`"));
        found.split('|').skip(3).take(2).map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    let mib = |bytes: usize| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)).replace(".0 ", " ");
    let configs = ["64MiB", "512MiB"].map(|memory| load_config("memory", &format!("memory: {memory}\n")));
    for (at, config) in configs.iter().enumerate() {
        let measure = config.measure.as_ref().expect("measured by default");
        let queues: usize = Signal::ALL.iter().map(|signal| config.queue.memory[*signal as usize]).sum();
        let thousands = |count: usize| match count {
            0..1000 => count.to_string(),
            _ => format!("{},{:03}", count / 1000, count % 1000),
        };
        for (key, value) in [
            ("ring.size", mib(config.ring)),
            ("receive.in_flight", mib(config.receive.in_flight)),
            ("queue.memory", mib(queues)),
            ("measure.series_max", thousands(measure.series_max)),
            ("measure.windows", thousands(measure.pool)),
            ("receive.pooled", mib(config.receive.pooled)),
        ] {
            assert_eq!(row(key)[at], value, "{key}");
        }
    }
}

/// What `/metrics` shows, and what `docs/operating.md` has a row for: one and the same.
pub fn compare_metrics(page: &str) {
    let shown: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let documented = Document::read("docs/operating.md").first_cells();
    let is_metric = |name: &&String| name.starts_with("tailkeep_") || name.starts_with("traces_span_metrics_");
    // A cell may show a metric with a label.
    let documented: Vec<&str> =
        documented.iter().filter(is_metric).map(|m| m.split('{').next().expect("a name")).collect();
    for name in &shown {
        assert!(documented.contains(name), "docs/operating.md has no row for {name}");
    }
    for name in &documented {
        assert!(shown.contains(name), "docs/operating.md speaks of {name}, /metrics does not have it");
    }
}
