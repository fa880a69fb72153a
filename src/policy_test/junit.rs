//! Tested cases as JUnit's XML, which pipelines read.

use super::Tested;
use super::report::reason;
use crate::xml::escaped;
use std::fmt::Write;

pub(super) fn page(tested: &Tested, fail_uncovered: bool) -> String {
    let (suite, class) = (escape(&tested.cases), escape(&tested.policy));
    let uncovered: Vec<String> = tested.uncovered().map(|rule| rule.placed(&tested.policy)).collect();
    let missed = if fail_uncovered { uncovered.len() } else { 0 };
    let (tests, failures) = (tested.outcomes.len() + missed, tested.failed() + missed);
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  \
         <testsuite name=\"{suite}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\">\n"
    );
    for outcome in &tested.outcomes {
        let (name, line) = (escape(&outcome.name), outcome.span.line);
        let _ = write!(out, "    <testcase classname=\"{class}\" name=\"{name}\" file=\"{suite}\" line=\"{line}\"");
        let Some(failure) = &outcome.failure else {
            out.push_str("/>\n");
            continue;
        };
        let message = escape(&format!("expected {}, decided {}", failure.expected, failure.decided));
        let _ = write!(out, ">\n      <failure message=\"{message}\">{}</failure>\n", escape(&reason(failure)));
        out.push_str("    </testcase>\n");
    }
    for rule in uncovered.iter().take(missed) {
        let (name, message) = (escape(&format!("reaches {rule}")), escape(&format!("no case reaches {rule}")));
        let _ = writeln!(out, "    <testcase classname=\"{class}\" name=\"{name}\">");
        let _ = writeln!(out, "      <failure message=\"{message}\"></failure>\n    </testcase>");
    }
    if !uncovered.is_empty() {
        let list = escape(&uncovered.join(", "));
        let _ = writeln!(out, "    <system-out>no case reaches {list}</system-out>");
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn escape(text: &str) -> String {
    escaped(text, &['\n', '\t'])
}
