//! Cases made of what users of tail samplers reported: see `reports/README.md`.

#[path = "reports/outcome.rs"]
mod outcome;
#[path = "reports/replay.rs"]
mod replay;
#[path = "reports/traffic.rs"]
mod traffic;

use outcome::{Departure, Expected, Outcome};
use serde::de::DeserializeOwned;
use std::fs;
use std::path::{Path, PathBuf};
use traffic::Traffic;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reports");
    let entries = fs::read_dir(folder).expect("the folder of cases is there");
    let mut cases: Vec<_> = entries.map(|entry| entry.expect("readable").path()).filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

fn read<T: DeserializeOwned>(case: &Path, file: &str) -> T {
    let path = case.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_reported_case_ends_as_it_should() {
    let mut problems = Vec::new();
    for case in cases() {
        let (traffic, expected): (Traffic, Expected) = (read(&case, "traffic.json"), read(&case, "expected.json"));
        let replayed = replay::replay(&case, &traffic);
        let counters = replayed.counters();
        let mut wrong: Vec<String> = expected
            .counters
            .iter()
            .filter(|(name, wanted)| counters[name.as_str()] != **wanted)
            .map(|(name, wanted)| format!("{name}: {}, expected {wanted}", counters[name.as_str()]))
            .collect();
        if let Some([least, most]) = expected.ring_seconds
            && !(least..=most).contains(&replayed.ring_seconds)
        {
            wrong.push(format!("ring_seconds: {}, expected {least} to {most}", replayed.ring_seconds));
        }
        wrong.extend(Outcome::new(&traffic, replayed.departures).problems(&expected));
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        problems.extend(wrong.iter().take(6).map(|problem| format!("{name}: {problem}")));
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_case_speaks_of_all_its_traces_and_spans() {
    for case in cases() {
        let (traffic, expected): (Traffic, Expected) = (read(&case, "traffic.json"), read(&case, "expected.json"));
        for template in &traffic.traffic {
            assert!(expected.traces.contains_key(&template.trace), "{}: {}", case.display(), template.trace);
        }
        let arrivals = traffic.arrivals();
        let spans = arrivals.iter().flat_map(|a| &a.request.resource_spans).flat_map(|r| &r.scope_spans);
        let spans: usize = spans.map(|scope| scope.spans.len()).sum();
        assert_eq!(expected.counters["accepted"], spans as u64, "{}", case.display());
        assert!(arrivals.last().is_some_and(|last| last.at <= traffic.until), "{}", case.display());
        assert!(traffic.ring_bytes() >= 2 << 20, "{}: eight segments of at least 256 KiB", case.display());
        let policies = traffic.reloads.iter().inspect(|reload| assert!(reload.at <= traffic.until)).map(|r| &*r.policy);
        for policy in policies.chain(["policy.yaml", "README.md"]) {
            assert!(case.join(policy).is_file(), "{}: {policy}", case.display());
        }
        assert!(expected.ring_seconds.is_none_or(|[least, most]| least < most), "{}", case.display());
    }
}

#[test]
fn a_collector_that_keeps_everything_unmarked_passes_no_case() {
    for case in cases() {
        let (traffic, expected): (Traffic, Expected) = (read(&case, "traffic.json"), read(&case, "expected.json"));
        let everything = traffic.arrivals().into_iter().map(|a| Departure { at: a.at, request: a.request });
        let outcome = Outcome::new(&traffic, everything.collect());
        assert!(!outcome.problems(&expected).is_empty(), "{}", case.display());
    }
}
