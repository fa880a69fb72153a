//! One trace as several tools write it: `recordings/` has it of each.

use super::files::{listing, read, tests_folder};
use tailkeep::policy::{Policy, explain};
use tailkeep::trace::RuleNames;

/// Asks for all that a recording says of its spans.
const POLICY: &str = r#"
version: 1
rules:
  - { name: times, when: { duration: { at_least: 620ms, below: 621ms }, envelope: { below: 621ms } }, keep: all }
  - { name: errors, when: { error: true, failed: false }, keep: all }
  - { name: root, when: { root: { service: shop, name: GET /cart, kind: server, status: unset } }, keep: all }
  - name: values
    when: { entry: { attributes: { http.route: /cart, http.response.status_code: 200, sampled: true } } }
    keep: all
  - { name: double, when: { any_span: { kind: client, attributes: { ratio: 0.5 } } }, keep: all }
  - name: below
    when:
      any_span:
        service: stock
        status: error
        duration: { at_least: 400ms, below: 401ms }
        events: exception
        attributes: { db.system.name: mysql }
        resource: { k8s.namespace.name: store }
    keep: all
  - { name: state, when: { trace_state: { vendor: gold } }, keep: all }
  - { name: spans, when: { span_count: { at_least: 3, below: 4 } }, keep: all }
  - { name: nothing-left-over, when: { not: { any_span: { attributes: { span.kind: { exists: true } } } } }, keep: all }
otherwise: { keep: none }
"#;

#[test]
fn a_trace_is_the_same_whoever_wrote_it() {
    let (policy, problems) = Policy::compile("policy.yaml", POLICY, 1, &mut RuleNames::default());
    let policy = policy.unwrap_or_else(|| panic!("{problems:?}"));
    let recordings = listing(&tests_folder().join("policy/recordings"));
    let explained = |file: &[u8]| explain(&policy, file).unwrap_or_else(|error| panic!("{error}"));
    let expected = explained(read(&tests_folder().join("policy/recordings/otlp.json")).as_bytes());
    assert_eq!(expected.matches(" yes ").count() + expected.matches(" YES ").count(), 9, "{expected}");
    assert!(recordings.len() >= 6, "{recordings:?}");
    for recording in recordings {
        assert_eq!(explained(read(&recording).as_bytes()), expected, "{}", recording.display());
    }
}

#[test]
fn what_is_wrong_in_a_recording_is_said() {
    let (policy, _) = Policy::compile("policy.yaml", POLICY, 1, &mut RuleNames::default());
    let policy = policy.expect("it compiles");
    let of = |name: &str| read(&tests_folder().join("policy/recordings").join(name));
    let jaeger = of("jaeger.json");
    for (file, told) in [
        (jaeger.replace("\"spanID\"", "\"span\""), "this looks like Jaeger's JSON, but missing field `spanID`"),
        (jaeger.replace("\"spanID\": \"a1\"", "\"spanID\": \"pay\""), "`pay` is no id of 16 hexadecimal digits"),
        (
            of("tempo.json").replace("\"name\": \"reserve\"", "\"name\": {}"),
            "JSON of Tempo or Jaeger, but invalid type",
        ),
        (of("tempo.json")[..1500].to_owned(), "this is not OTLP/JSON"),
    ] {
        let said = explain(&policy, file.as_bytes()).expect_err("it is wrong");
        assert!(said.contains(told), "{said}");
    }
}
