//! Runs every command line that the documents show, in their order, as one session.

use super::documents::{Block, documents, path, read};
use super::process::{ADMIN, HEALTH, HTTP, Place, Running, ask, get, wait_for};
use super::tables;
use std::time::{SystemTime, UNIX_EPOCH};

/// The trace that the documents ask about.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// One user's session: commands share what is running and what was stored.
struct Session {
    place: Place,
    running: Option<Running>,
    ran: usize,
}

#[test]
fn every_command_line_runs() {
    let mut session = Session { place: Place::new(), running: None, ran: 0 };
    for block in documents().iter().flat_map(|document| document.blocks("sh")) {
        session.run_block(&block);
    }
    session.start_with(&[]);
    let (status, page) = get(HEALTH, "/metrics").expect("it listens");
    assert_eq!(status, 200);
    tables::compare_metrics(&page);
    session.stop();
    assert!(session.ran > 20, "only {} command lines were found", session.ran);
}

impl Session {
    fn run_block(&mut self, block: &Block) {
        for line in block.text.lines().filter(|line| !line.is_empty()) {
            let words = words(line);
            let place = format!("{}: {line}", block.place);
            println!("{place}");
            self.run_line(&words, &place);
            self.ran += 1;
        }
    }

    fn run_line(&mut self, words: &[String], place: &str) {
        let known: Vec<&str> = words.iter().map(String::as_str).collect();
        match known.as_slice() {
            ["cargo", "run", "--release"] => self.start_with(&[]),
            ["cargo", "run", "--release", "--", ..] => self.run_tailkeep(&words[4..], place),
            ["tailkeep", ..] => self.run_tailkeep(&words[1..], place),
            // This very command runs us.
            ["cargo", "test"] => {}
            ["cargo", "bench", "--bench", bench, ..] => {
                assert!(read("Cargo.toml").contains(&format!("name = {bench:?}")), "{place}: there is no such bench");
            }
            ["export", setting] => {
                let name = setting.split('=').next().expect("a name");
                assert!(
                    ["OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"].contains(&name),
                    "{place}"
                );
            }
            ["sqlite3", store, statement] => self.query(store, statement, place),
            ["curl", ..] => self.curl(&words[1..], place),
            ["kubectl", ..] => self.kubectl(&known[1..], place),
            // The suite `tests/install` has the tools, and runs all command lines of this document.
            ["helm" | "promtool", ..] | ["python3", "config/sbom.py", ..] => {
                let document = place.split(':').next().expect("a name");
                assert!(read("tests/install/commands.py").contains(document), "{place}: nobody runs it");
            }
            _ => panic!("{place}: say here how to run this"),
        }
    }

    /// Needs a cluster. What can be checked without one: files are there, and what runs in a pod runs here.
    fn kubectl(&mut self, words: &[&str], place: &str) {
        match words {
            ["create", "namespace", "observability"] => {}
            ["-n", "observability", "create", "secret", "generic", _, keys @ ..] => {
                assert!(keys.iter().all(|key| key.starts_with("--from-literal=")), "{place}");
            }
            ["apply", "-k", folder] => assert!(path(folder).join("kustomization.yaml").exists(), "{place}"),
            // The files are checked with the other manifests.
            ["apply", files @ ..] => {
                assert!(files.chunks(2).all(|pair| pair[0] == "-f" && path(pair[1]).exists()), "{place}");
            }
            ["-n", "observability", "exec", "tailkeep-gateway-0", "--", program, arguments @ ..] => {
                assert!(read("Dockerfile").contains(&format!("ENTRYPOINT [{program:?}]")), "{place}");
                // In the pod the ConfigMap is there; here the session's own configuration.
                let here = |word: &&str| word.replace("/etc/tailkeep/", "config/");
                self.run_tailkeep(&arguments.iter().map(here).collect::<Vec<_>>(), place);
            }
            ["-n", "observability", "port-forward", "tailkeep-gateway-0", port] => {
                assert_eq!(port.parse(), Ok(ADMIN), "{place}");
            }
            _ => panic!("{place}: say here what this means"),
        }
    }

    fn run_tailkeep(&mut self, arguments: &[String], place: &str) {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["demo"] => self.demo(),
            ["run", ..] => self.start_with(arguments),
            // It would call the cloud: the command is there, and its file is checked with the others.
            ["doctor", "--config", file] => {
                assert!(path(file).exists(), "{place}");
                self.expect(&["doctor".to_owned(), "--help".to_owned()], "--config", place);
            }
            ["traces", ..] | ["why", ..] => self.expect(arguments, TRACE, place),
            ["check", ..] => self.expect(arguments, "no problem", place),
            ["policy", "test", ..] => self.expect(arguments, " 0 failed", place),
            // Whether they agree depends on what is running: `tests/process/reload.rs` knows it.
            ["policy", "hash", _, "--admin", _] => {
                self.expect(&["policy", "hash", "--help"].map(str::to_owned), "--admin", place);
            }
            ["policy", "hash", _] => self.expect(arguments, "\n", place),
            ["policy", "import", ..] => self.expect(arguments, "version: 1", place),
            ["policy", "show"] => self.expect(arguments, "version: 1", place),
            ["policy", "plan", ..] => self.expect(arguments, "newly dropped", place),
            ["policy", "estimate", .., "--format", "json"] => self.expect(arguments, "error_ratio", place),
            ["policy", "estimate", ..] => self.expect(arguments, "stand for", place),
            ["policy", "suggest", ..] => self.expect(arguments, "version: 1", place),
            // No policy was in force before: `tests/process/reload.rs` has one.
            ["policy", "restore"] => self.expect(&["policy", "restore", "--help"].map(str::to_owned), "--admin", place),
            ["explain", ..] => self.expect(arguments, "keep, ratio", place),
            _ => panic!("{place}: say here how to run this"),
        }
    }

    /// Runs a command to its end: exit code 0, and `wanted` in what it prints.
    fn expect(&self, arguments: &[String], wanted: &str, place: &str) {
        let output = self.place.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{place}: {}\n{out}{err}", output.status);
        assert!(out.contains(wanted), "{place}: no {wanted:?} in\n{out}{err}");
    }

    /// The demo makes its own traffic and ends well.
    fn demo(&mut self) {
        self.stop();
        let demo = Running::start(&self.place, &["demo".to_owned()]);
        wait_for("traffic of the demo", || {
            (demo.accounts().sum("tailkeep_spans_received_total", &[]) > 100.0).then_some(())
        });
        assert!(demo.log().contains("http://127.0.0.1:4317"), "it says where to send: {}", demo.log());
        assert!(demo.log().contains("demo.db"), "it has a store of its own: {}", demo.log());
        demo.stop();
    }

    /// Starts tailkeep in place of the one that runs, sends it the trace, and waits until that can be asked about.
    fn start_with(&mut self, arguments: &[String]) {
        self.stop();
        self.running = Some(Running::start(&self.place, arguments));
        let sent = ask(HTTP, "POST", "/v1/traces", "application/json", &trace());
        assert_eq!(sent.map(|(status, _)| status), Some(200), "the trace is taken");
        wait_for("the trace in the store", || {
            let output = self.place.run(&["traces".to_owned()]);
            String::from_utf8_lossy(&output.stdout).contains(TRACE).then_some(())
        });
        // The store may know it of a process before this one.
        wait_for("the verdict on the trace", || {
            let (_, why) = ask(ADMIN, "GET", &format!("/why/{TRACE}"), "text/plain", "")?;
            why.contains("\"verdict\":\"kept\"").then_some(())
        });
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }

    fn query(&self, store: &str, statement: &str, place: &str) {
        let store = self.place.expand(store);
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let store = rusqlite::Connection::open_with_flags(&store, flags).unwrap_or_else(|e| panic!("{place}: {e}"));
        let mut query = store.prepare(statement).unwrap_or_else(|e| panic!("{place}: {e}"));
        let columns = query.column_count();
        let is_null =
            |row: &rusqlite::Row<'_>, at| row.get_ref(at).is_ok_and(|value| value == rusqlite::types::ValueRef::Null);
        let rows = query.query_map([], |row| Ok((0..columns).any(|at| is_null(row, at))));
        let rows: Vec<bool> = rows.unwrap_or_else(|e| panic!("{place}: {e}")).filter_map(Result::ok).collect();
        assert!(rows.contains(&false), "{place}: finds nothing, or shows nothing of it");
    }

    fn curl(&self, arguments: &[String], place: &str) {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (method, url, file) = match words.as_slice() {
            [url] => ("GET", url, None),
            ["-X", method, url] => (*method, url, None),
            [url, "-o", file] => ("GET", url, Some(file)),
            _ => panic!("{place}: say here what this means"),
        };
        let rest = url.strip_prefix("http://127.0.0.1:").unwrap_or_else(|| panic!("{place}: is not on this host"));
        let (port, target) = rest.split_once('/').expect("a path");
        let port: u16 = port.parse().expect("a port");
        assert!([HEALTH, ADMIN].contains(&port), "{place}");
        let (status, body) = ask(port, method, &format!("/{target}"), "", "").expect("it listens");
        assert!(status == 200 && !body.is_empty(), "{place}: {status} {body}");
        if let Some(file) = file {
            std::fs::write(self.place.expand(file), body).expect("a writable folder");
        }
    }
}

/// Splits as a shell does, with double quotes alone.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => words.last_mut().expect("one at least").extend(chars.next()),
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("one at least").push(c),
        }
    }
    words
}

/// A request of `shop` that failed after 700 ms.
fn trace() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let attribute = |key: &str, value: &str| serde_json::json!({ "key": key, "value": { "stringValue": value } });
    let span = serde_json::json!({
        "traceId": TRACE,
        "spanId": "00f067aa0ba902b7",
        "name": "GET /cart",
        "kind": 2,
        "startTimeUnixNano": (now - 700_000_000).to_string(),
        "endTimeUnixNano": now.to_string(),
        "attributes": [attribute("http.route", "/cart")],
        "status": { "code": 2, "message": "out of stock" },
    });
    let resource = serde_json::json!({ "attributes": [attribute("service.name", "shop")] });
    serde_json::json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": [span] }] }] }).to_string()
}
