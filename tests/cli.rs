//! The command line: help as recorded, exit codes, and errors that say what to write instead.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --test cli` writes the recorded texts anew.

#[path = "cli/estimate.rs"]
mod estimate;
#[path = "cli/plan.rs"]
mod plan;
#[path = "cli/suggest.rs"]
mod suggest;

use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const POLICY: &str =
    "version: 1\nrules:\n  - { name: keep-errors, when: { error: true }, keep: all }\notherwise: { keep: none }\n";
const NOBODY: &str = "receive: { grpc: '127.0.0.1:0', http: '127.0.0.1:0' }\nhealth: { listen: '127.0.0.1:0' }\nadmin: { listen: '127.0.0.1:0' }\n";

/// A folder with files in it, where commands are run.
struct Place(TempDir);

impl Place {
    fn with(files: &[(&str, &str)]) -> Place {
        let folder = TempDir::new().unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
        Place(folder)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailkeep"));
        command.args(arguments).current_dir(self.0.path()).env("HOME", self.0.path()).stdin(Stdio::null());
        command.env_remove("TAILKEEP_ADMIN_TOKEN").env_remove("XDG_DATA_HOME").output().expect("the binary runs")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Runs a command, and compares its exit code and what it prints to either stream.
fn assert_says(place: &Place, arguments: &[&str], code: i32, parts: &[&str]) {
    let output = place.run(arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{arguments:?} does not say {part:?} but\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn assert_recorded(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(file);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == recorded, "differs from {}:\n{text}", path.display());
}

#[test]
fn help_is_as_recorded() {
    let place = Place::with(&[]);
    let help = |arguments: &[&str]| {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty(), "help is no error");
        String::from_utf8(output.stdout).unwrap()
    };
    let all = help(&["--help"]);
    assert_recorded("help.txt", &all);
    let commands = all.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> =
        commands.filter_map(|line| line.split_whitespace().next()).filter(|c| *c != "help").collect();
    assert!(commands.contains(&"run") && commands.contains(&"why"), "{commands:?}");
    for command in commands {
        assert_recorded(&format!("help-{command}.txt"), &help(&[command, "--help"]));
    }
    for command in ["plan", "estimate", "suggest"] {
        assert_recorded(&format!("help-policy-{command}.txt"), &help(&["policy", command, "--help"]));
    }
    assert_eq!(help(&["--version"]), format!("tailkeep {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_arguments_exit_2_and_say_what_is_wanted() {
    let place = Place::with(&[]);
    assert_says(&place, &["rum"], 2, &["rum", "run"]);
    assert_says(&place, &["run", "--confg", "x"], 2, &["--confg", "--config"]);
    for command in ["check", "run"] {
        let asked = "did you mean --policy pol/mine.yaml or --config pol/mine.yaml?";
        assert_says(&place, &[command, "pol/mine.yaml"], 2, &[asked]);
    }
    assert_says(&place, &["doctor", "mine.yaml"], 2, &["did you mean --config mine.yaml?"]);
    assert_says(&place, &["why"], 2, &["TRACE_ID"]);
    assert_says(&place, &["why", "4bf92f"], 2, &["32 hexadecimal digits"]);
    assert_says(&place, &["why", "4bf92f3577b34da6a3ce929d0e0e473g"], 2, &["32 hexadecimal digits"]);
    assert_says(&place, &["traces", "--slower", "5"], 2, &["500ms"]);
    assert_says(&place, &["traces", "--since", "yesterday"], 2, &["--since", "1h"]);
    assert_says(&place, &["traces", "--limit=-1"], 2, &["--limit"]);
    assert_says(&place, &["run", "--log", "tailkeep=loud"], 2, &["--log tailkeep=loud"]);
    assert_says(&place, &["run", "--log-format", "xml"], 2, &["text, json"]);
    assert_says(&place, &["explain"], 2, &["TRACE"]);
}

#[test]
fn wrong_files_exit_2_with_the_line_and_start_nothing() {
    let bad_policy = POLICY.replace("error: true", "eror: true");
    let bad_config = format!("{NOBODY}sink: []\nring: {{ size: lots }}\n");
    let place = Place::with(&[
        ("policy.yaml", POLICY),
        ("bad-policy.yaml", &bad_policy),
        ("bad.yaml", &bad_config),
        ("good.yaml", &format!("{NOBODY}policy: policy.yaml\n")),
        ("names-bad-policy.yaml", &format!("{NOBODY}policy: bad-policy.yaml\n")),
        ("names-no-policy.yaml", &format!("{NOBODY}policy: nowhere.yaml\n")),
    ]);
    let before = place.names();
    for command in ["run", "check"] {
        assert_says(&place, &[command, "--config", "nowhere.yaml"], 2, &["nowhere.yaml"]);
        assert_says(
            &place,
            &[command, "--config", "bad.yaml"],
            2,
            &["`sink`", "bad.yaml:4:1", "bad.yaml:5:15", "2 errors"],
        );
        assert_says(
            &place,
            &[command, "--config", "names-bad-policy.yaml"],
            2,
            &["bad-policy.yaml:3:34", "`eror`", "error"],
        );
        assert_says(&place, &[command, "--config", "names-no-policy.yaml"], 2, &["nowhere.yaml"]);
        assert_says(
            &place,
            &[command, "--config", "good.yaml", "--policy", "bad-policy.yaml"],
            2,
            &["bad-policy.yaml:3:34"],
        );
        assert_says(&place, &[command, "--config", "good.yaml", "--policy", "nowhere.yaml"], 2, &["nowhere.yaml"]);
    }
    assert_eq!(place.names(), before, "nothing was begun");
}

#[test]
fn check_reports_files_that_are_fine_and_starts_nothing() {
    let place = Place::with(&[("policy.yaml", POLICY), ("good.yaml", &format!("{NOBODY}policy: policy.yaml\n"))]);
    let before = place.names();
    // The ports that the default configuration would take may be in use: nothing is bound.
    assert_says(&place, &["check"], 0, &[]);
    assert_says(&place, &["check", "--config", "good.yaml"], 0, &[]);
    assert_says(&place, &["check", "--policy", "policy.yaml"], 0, &[]);
    assert_eq!(place.names(), before);
}

#[test]
fn a_port_in_use_exits_1_and_names_the_port_and_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (key, written) in [
        ("receive.grpc", format!("receive: {{ grpc: '{address}', http: '127.0.0.1:0' }}")),
        ("receive.http", format!("receive: {{ grpc: '127.0.0.1:0', http: '{address}' }}")),
        ("health.listen", format!("health: {{ listen: '{address}' }}")),
        ("admin.listen", format!("admin: {{ listen: '{address}' }}")),
    ] {
        let section = written.split(':').next().unwrap();
        let others: String =
            NOBODY.lines().filter(|line| !line.starts_with(section)).map(|line| format!("{line}\n")).collect();
        let place = Place::with(&[("tailkeep.yaml", &format!("{others}{written}\n"))]);
        assert_says(
            &place,
            &["run", "--config", "tailkeep.yaml"],
            1,
            &[&format!("{key}: cannot listen on {address}: "), "another"],
        );
    }
}

#[test]
fn a_place_that_cannot_be_used_is_refused_at_once_and_named() {
    for (written, code, told) in [
        ("queue: { path: file/queue }", 0, "queue.path"),
        ("sinks: [{ name: here, store: { path: file/tailkeep.db } }]", 0, "store.path of the sink `here`"),
        ("sinks: [{ name: there, file: { path: file } }]", 0, "file.path of the sink `there`"),
        ("receive: { tls: { cert: file, key: file } }", 2, "receive.tls.cert"),
    ] {
        let others = if written.starts_with("receive") { NOBODY.split_once('\n').unwrap().1 } else { NOBODY };
        let place = Place::with(&[("file", "x"), ("tailkeep.yaml", &format!("{others}{written}\n"))]);
        assert_says(&place, &["run", "--config", "tailkeep.yaml"], 1, &[&format!("{told}: "), "file"]);
        assert_says(&place, &["check", "--config", "tailkeep.yaml"], code, &[told, "C17", " = help: "]);
        assert_eq!(place.names(), ["file", "tailkeep.yaml"], "nothing was begun");
    }
}

#[test]
fn a_file_that_is_no_utf8_is_refused_with_the_place() {
    let place = Place::with(&[]);
    std::fs::write(place.0.path().join("latin.yaml"), b"version: 1\n# caf\xe9\n").unwrap();
    for arguments in [["check", "--policy"], ["check", "--config"], ["run", "--policy"], ["run", "--config"]] {
        let arguments = [&arguments[..], &["latin.yaml"]].concat();
        assert_says(&place, &arguments, 2, &["latin.yaml: line 2, column 6 is no UTF-8", "save the file as UTF-8"]);
    }
}

#[test]
fn explain_judges_a_file_and_refuses_what_is_none() {
    let trace = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
        "scopeSpans":[{"spans":[{"traceId":"4bf92f3577b34da6a3ce929d0e0e4736","spanId":"00f067aa0ba902b7","name":"GET /",
        "kind":2,"startTimeUnixNano":"1","endTimeUnixNano":"2","status":{"code":2}}]}]}]}"#;
    let place = Place::with(&[
        ("policy.yaml", POLICY),
        ("trace.json", trace),
        ("cut.json", &trace[..100]),
        ("listed.json", &format!("\u{feff}[{trace}]\r\n")),
        ("jaeger.json", r#"{"data":[{"traceID":"4bf9","spans":[],"processes":{}}]}"#),
        ("empty.json", "{}"),
    ]);
    assert_says(
        &place,
        &["explain", "--policy", "policy.yaml", "trace.json"],
        0,
        &["keep-errors  YES", "by keep-errors (policy.yaml:3)"],
    );
    assert_says(&place, &["explain", "trace.json"], 0, &["keep-errors"]);
    assert_says(&place, &["explain", "listed.json"], 0, &["keep-errors"]);
    assert_says(
        &place,
        &["explain", "jaeger.json"],
        2,
        &["jaeger.json: this is Jaeger's JSON, without a span; `explain` reads OTLP"],
    );
    let compressed = File::create(place.0.path().join("trace.json.gz")).unwrap();
    GzEncoder::new(compressed, Compression::fast()).write_all(trace.as_bytes()).unwrap();
    assert_says(&place, &["explain", "trace.json.gz"], 0, &["keep-errors"]);
    std::fs::write(place.0.path().join("trace.json.zst"), zstd::encode_all(trace.as_bytes(), 1).unwrap()).unwrap();
    assert_says(&place, &["explain", "trace.json.zst"], 0, &["keep-errors"]);
    assert_says(&place, &["explain", "trace.json", "--admin", "http://127.0.0.1:1"], 2, &["is no trace id"]);
    assert_says(&place, &["explain", "cut.json"], 2, &["cut.json"]);
    assert_says(&place, &["explain", "empty.json"], 2, &["empty.json"]);
    assert_says(&place, &["explain", "nowhere.json"], 2, &["cannot read nowhere.json"]);
    assert_says(&place, &["explain", "--policy", "nowhere.yaml", "trace.json"], 2, &["cannot read nowhere.yaml"]);
}

#[test]
fn cases_beside_a_policy_are_judged() {
    let case = |expect: &str| {
        format!("cases: [{{ name: an error is kept, trace: {{ status: error }}, expect: {{ {expect} }} }}]\n")
    };
    let (right, wrong, broken) = (case("keep: all"), case("keep: none"), case("kep: all"));
    let files =
        [("policy.yaml", POLICY), ("policy.tests.yaml", &right), ("wrong.yaml", &wrong), ("broken.yaml", &broken)];
    let place = Place::with(&[&files[..], &[("alone.yaml", POLICY)]].concat());
    let test = ["policy", "test"];
    let with = |more: &[&'static str]| [&test[..], more].concat();
    assert_says(&place, &test, 0, &["policy.tests.yaml: 1 passed, 0 failed; 1 of 2 rules reached", "otherwise"]);
    assert_says(&place, &with(&["policy.yaml", "--fail-uncovered"]), 1, &["no case reaches otherwise"]);
    assert_says(&place, &with(&["--tests", "wrong.yaml"]), 1, &["FAILED  an error is kept (wrong.yaml:1)"]);
    assert_says(&place, &with(&["--tests", "wrong.yaml", "--format", "junit"]), 1, &["<failure message="]);
    assert_says(&place, &with(&["--tests", "broken.yaml"]), 2, &["broken.yaml:1:", "did you mean `keep`?"]);
    assert_says(&place, &with(&["--tests", "nowhere.yaml"]), 2, &["cannot read nowhere.yaml"]);
    assert_says(&place, &with(&["alone.yaml"]), 2, &["there are no cases at alone.tests.yaml", "cases:\n  - name:"]);
    assert_says(&place, &with(&["nowhere.yaml"]), 2, &["cannot read nowhere.yaml"]);
    assert_says(&place, &with(&["--format", "xml"]), 2, &["text, junit"]);
}

#[test]
fn asking_where_nothing_is_says_so() {
    let place = Place::with(&[(
        "garbage.db",
        "this is no database, and it is longer than a header would be............................................",
    )]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_says(
        &place,
        &["why", id, "--admin", &format!("http://{nobody}")],
        1,
        &[&nobody.to_string(), "is tailkeep running"],
    );
    assert_says(&place, &["why", id, "--admin", "nonsense"], 2, &["--admin"]);
    for (listen, code, told) in [
        (format!("{{ listen: '{nobody}' }}"), 1, format!("http://{nobody}/")),
        (format!("{{ listen: '0.0.0.0:{}', token: t }}", nobody.port()), 1, format!("http://{nobody}/")),
        (format!("{{ listen: '[::]:{}', token: t }}", nobody.port()), 1, format!("http://[::1]:{}/", nobody.port())),
        ("{ listen: '127.0.0.1:0' }".to_owned(), 2, "--admin".to_owned()),
        ("off".to_owned(), 2, "`admin` is off".to_owned()),
    ] {
        let place = Place::with(&[("tailkeep.yaml", &format!("admin: {listen}\n"))]);
        for command in [&["why", id][..], &["explain", id], &["policy", "show"], &["policy", "restore"]] {
            assert_says(&place, &[command, &["--config", "tailkeep.yaml"]].concat(), code, &[&told]);
        }
    }
    assert_says(&place, &["why", id, "--config", "nowhere.yaml"], 2, &["nowhere.yaml"]);
    assert_says(&place, &["traces", "--store", "nowhere.db"], 2, &["nowhere.db"]);
    assert_says(&place, &["traces", "--store", "garbage.db"], 1, &["garbage.db"]);
    assert_says(&place, &["traces"], 2, &["there is no store at"]);
    assert_eq!(place.names(), ["garbage.db"], "asking makes nothing");
}

#[test]
fn doctor_is_not_content_where_it_probed_nothing_and_says_once_what_failed() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away =
        format!("{NOBODY}sinks: [{{ name: away, otlp: {{ endpoint: 'http://{nobody}', signals: [traces] }} }}]\n");
    let place = Place::with(&[("here.yaml", NOBODY), ("away.yaml", &away)]);
    assert_says(&place, &["doctor"], 2, &["nothing was probed", "--config"]);
    assert_says(&place, &["doctor", "--config", "here.yaml"], 0, &["nothing was probed", "no sink that is elsewhere"]);
    assert_says(&place, &["doctor", "--config", "away.yaml"], 1, &["1 of 1 probes failed"]);
    let output = place.run(&["doctor", "--config", "away.yaml"]);
    assert!(output.stderr.is_empty(), "the report has said it: {output:?}");
}

#[test]
fn an_imported_policy_goes_where_no_file_is() {
    let collector = "processors: { tail_sampling: { policies: [\
        { name: errors, type: status_code, status_code: { status_codes: [ERROR] } }, { name: f, type: trace_flags }] } }\n";
    let place = Place::with(&[("otelcol.yaml", collector), ("rules.toml", "SampleRate = 1\n")]);
    let import = |more: &[&str]| place.run(&[&["policy", "import", "otel", "otelcol.yaml"], more].concat());
    let shown = import(&[]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let (policy, report) = (String::from_utf8(shown.stdout).unwrap(), String::from_utf8(shown.stderr).unwrap());
    assert!(policy.contains("version: 1") && policy.contains("when: { error: true }"), "{policy}");
    assert!(report.contains("not     line 1  f (trace_flags)"), "{report}");
    assert_eq!(import(&["--out", "policy.yaml"]).status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(place.0.path().join("policy.yaml")).unwrap(), policy);
    assert_says(&place, &["check", "--policy", "policy.yaml"], 0, &["1 rule, no problem"]);
    std::fs::write(place.0.path().join("policy.yaml"), "mine").unwrap();
    let refused = ["policy", "import", "otel", "otelcol.yaml", "--out", "policy.yaml"];
    assert_says(&place, &refused, 2, &["policy.yaml is there already"]);
    assert_eq!(std::fs::read_to_string(place.0.path().join("policy.yaml")).unwrap(), "mine");
    assert_says(
        &place,
        &["policy", "import", "otel", "otelcol.yaml", "--format", "json"],
        0,
        &["\"not\": 1,", "\"policy\":"],
    );
    assert_says(&place, &["policy", "import", "refinery", "rules.toml"], 2, &["this is TOML", "convert rules"]);
    assert_says(&place, &["policy", "import", "otel", "gone.yaml"], 2, &["cannot read gone.yaml"]);
}

#[test]
fn a_file_of_another_tool_is_sent_to_the_import() {
    let place = Place::with(&[("otelcol.yaml", "processors: {}\n"), ("rules.yaml", "RulesVersion: 2\n")]);
    for (file, tool) in [("otelcol.yaml", "otel"), ("rules.yaml", "refinery")] {
        let hint = format!("tailkeep policy import {tool} FILE");
        assert_says(&place, &["check", "--policy", file], 2, &[&hint]);
        assert_says(&place, &["check", "--config", file], 2, &[&hint]);
    }
}
