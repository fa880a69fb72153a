//! Who may ask what.

use super::certificates;
use super::collector::{Setup, eventually, program};
use super::http::{self, Reply};
use super::sink::Sink;
use super::traffic::Trace;

const TOKEN: &str = "s3cret-t0ken";

#[test]
fn the_admin_listener_wants_its_token_and_health_shows_no_trace() {
    let sink = Sink::start();
    let setup = Setup::new().otlp("stub", &sink).environment("TAILKEEP_ADMIN_TOKEN", TOKEN);
    let tailkeep = setup.settings("admin: { listen: '127.0.0.1:0', token: '${env:TAILKEEP_ADMIN_TOKEN}' }").start();
    let (admin, health) = (tailkeep.ports.admin, tailkeep.ports.health);
    let trace = Trace::failed();
    tailkeep.send(&trace);
    let path = format!("/why/{}", trace.hex());
    let ask = |method: &str, path: &str, token: &str| -> Reply {
        let header = format!("Bearer {token}");
        http::request(admin, method, path, &[("authorization", &header)], &[]).unwrap()
    };
    let paths = [&path, "/policy", &format!("/traces/{}", trace.hex()), "/nothing"];
    for path in paths {
        let reply = http::get(admin, path).unwrap();
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        for wrong in ["", "s3cret-t0ke", "s3cret-t0ken0", "S3cret-t0ken"] {
            assert_eq!(ask("GET", path, wrong).status, 401, "{path} with {wrong:?}");
        }
    }
    assert_eq!(http::request(admin, "POST", &format!("/keep/{}", trace.hex()), &[], &[]).unwrap().status, 401);
    assert_eq!(ask("GET", &path, TOKEN).json()["trace_id"], trace.hex());
    assert_eq!(ask("POST", &path, TOKEN).status, 405);
    assert_eq!(ask("GET", "/why/nonsense", TOKEN).status, 400);

    let url = format!("http://{admin}");
    let why = |token: Option<&str>| {
        let mut command = program();
        command.args(["why", &trace.hex(), "--admin", &url]);
        command.envs(token.map(|token| ("TAILKEEP_ADMIN_TOKEN", token))).output().unwrap()
    };
    for (token, told) in [(None, "none was sent"), (Some(""), "none was sent"), (Some("s3cret"), "sent is wrong")] {
        let refused = why(token);
        assert_eq!(refused.status.code(), Some(1));
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(text.contains(told) && text.contains("TAILKEEP_ADMIN_TOKEN"), "{text}");
    }
    assert_eq!(why(Some(TOKEN)).status.code(), Some(0));
    let file = tailkeep.path().join("other.yaml");
    for (token, code, told) in [(TOKEN, 0, trace.hex()), ("s3cret", 1, "other.yaml must be `admin.token`".to_owned())] {
        std::fs::write(&file, format!("admin: {{ listen: '{admin}', token: {token} }}\n")).unwrap();
        let output = program().args(["why", &trace.hex(), "--config"]).arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && text.contains(&told), "{text}");
    }

    for path in [path.as_str(), "/policy", &format!("/traces/{}", trace.hex())] {
        assert_eq!(http::get(health, path).unwrap().status, 404, "{path}");
    }
    let page = http::get(health, "/metrics").unwrap().text();
    assert!(!page.contains(&trace.hex()) && !page.contains(TOKEN));
    assert!(!page.contains("it broke"), "a status message is content of a trace");
    let ended = tailkeep.stop();
    assert!(!ended.log.contains(TOKEN), "the token is in the log");
}

#[test]
fn a_trace_of_many_spans_is_shown_whole() {
    let tailkeep = Setup::new().start();
    let id = super::traffic::fresh_trace_id();
    let root = super::traffic::span(id, None, "root", 1);
    let children = (0..599).map(|n| super::traffic::span(id, Some(&root), &format!("child {n}"), 1));
    let spans = std::iter::once(root.clone()).chain(children).collect();
    let body = prost::Message::encode_to_vec(&super::traffic::request("many", spans));
    assert_eq!(super::grpc::Grpc::connect(tailkeep.ports.grpc).export(tailkeep::trace::Signal::Traces, &body).code, 0);
    let id = super::traffic::hex(&id);
    let shown = tailkeep.ask(&format!("/traces/{id}")).text();
    assert_eq!(shown.matches("\"spanId\"").count(), 600);
    let why = tailkeep.ask(&format!("/why/{id}")).json();
    assert_eq!(
        (why["seen"]["spans"].as_u64(), why["seen"]["entry"].as_str()),
        (Some(600), Some("many \"root\"")),
        "{why}"
    );
    tailkeep.stop();
}

#[test]
fn a_dropped_trace_is_explained_by_the_policy_in_force_and_by_another() {
    let tailkeep = Setup::new().start();
    let (trace, admin) = (Trace::ok(), format!("http://{}", tailkeep.ports.admin));
    tailkeep.send(&trace);
    let other = tailkeep.path().join("other.yaml");
    std::fs::write(&other, "version: 1\nrules: [{ name: all-of-them, keep: all }]\notherwise: { keep: none }\n")
        .unwrap();
    let explain = |id: &str, more: &[&str]| {
        let output = program().args(["explain", id, "--admin", &admin]).args(more).output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = explain(&trace.hex(), &[]);
    assert!(code == Some(0) && said.contains("keep-slow    no ") && said.ends_with("drop, by otherwise\n"), "{said}");
    let (code, said) = explain(&trace.hex(), &["--policy", other.to_str().unwrap()]);
    assert!(code == Some(0) && said.contains("by all-of-them (") && said.contains("other.yaml:2)"), "{said}");
    let (code, said) = explain(&"ab".repeat(16), &[]);
    assert!(code == Some(1) && said.contains("404"), "{said}");
    tailkeep.stop();
}

#[test]
fn a_dropped_trace_is_kept_on_demand() {
    let sink = Sink::start();
    let tailkeep = Setup::new().otlp("stub", &sink).start();
    let (wanted, other) = (Trace::ok(), Trace::ok());
    tailkeep.send(&wanted);
    tailkeep.send(&other);
    let why = tailkeep.wait_for_verdict(&wanted, "dropped");
    assert!(why["note"].as_str().unwrap().contains("/keep/"), "{why}");
    tailkeep.wait_for_verdict(&other, "dropped");
    let shown = tailkeep.ask(&format!("/traces/{}", wanted.hex())).json();
    assert_eq!(shown["resourceSpans"].as_array().unwrap().len(), 3);

    let keep = |id: &str| http::request(tailkeep.ports.admin, "POST", &format!("/keep/{id}"), &[], &[]).unwrap();
    assert_eq!(http::get(tailkeep.ports.admin, &format!("/keep/{}", wanted.hex())).unwrap().status, 405);
    assert_eq!((keep(&wanted.hex()).status, keep(&"ab".repeat(16)).status), (200, 404));
    assert_eq!(keep(&wanted.hex()).status, 200, "twice is once");
    eventually("it arrives", || (sink.spans().len() >= 4).then_some(()));
    let why = tailkeep.why(&wanted);
    assert_eq!((why["rule"].as_str(), why["trigger"].as_str()), (Some("api"), Some("api")));
    tailkeep.stop();
    super::traffic::assert_same(&sink.spans(), &wanted.placed());
    assert!(sink.spans().iter().all(|span| span.weight().is_none()), "its probability is not known");
}

/// As `openssl req -x509` makes it: an authority's certificate, presented by the listener itself.
#[test]
fn a_listener_with_an_authoritys_certificate_is_told_what_to_make() {
    let setup = Setup::new();
    certificates::write(setup.path());
    let tailkeep = setup.settings("admin: { listen: '127.0.0.1:0', tls: { cert: ca.crt, key: ca.key } }").start();
    let url = format!("https://localhost:{}", tailkeep.ports.admin.port());
    let ca = tailkeep.path().join("ca.crt");
    let output = program().args(["policy", "show", "--admin", &url, "--ca"]).arg(ca).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("basicConstraints=critical,CA:FALSE"), "{text}");
}

#[test]
fn the_admin_listener_speaks_tls_and_health_does_not() {
    let setup = Setup::new();
    certificates::write(setup.path());
    let tls = "tls: { cert: tls.crt, key: tls.key, client_ca: ca.crt }";
    let tailkeep = setup.settings(&format!("admin: {{ listen: '127.0.0.1:0', {tls} }}")).start();
    let (admin, health) = (tailkeep.ports.admin, tailkeep.ports.health);
    let file = |name: &str| tailkeep.path().join(name);
    let other = file("other.yaml");
    std::fs::write(&other, format!("admin: {{ listen: '{admin}', {tls} }}\n")).unwrap();
    let show = |url: Option<&str>, files: &[(&str, &str)]| {
        let mut command = program();
        command.args(["policy", "show"]).args(url.map(|url| format!("--admin={url}")));
        if url.is_none() {
            command.arg("--config").arg(&other);
        }
        let output = command.args(files.iter().flat_map(|(flag, name)| [(*flag).into(), file(name)])).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (ca, both) = ([("--ca", "ca.crt")], [("--ca", "ca.crt"), ("--cert", "tls.crt"), ("--key", "tls.key")]);
    let by_name = format!("https://localhost:{}", admin.port());
    for (url, files, code, told) in [
        (Some(&by_name), &both[..], Some(0), "keep-errors"),
        (None, &both, Some(0), "keep-errors"),
        (Some(&by_name), &both[1..], Some(1), "--ca FILE"),
        (Some(&by_name), &ca, Some(1), "admin.listen"),
        (Some(&format!("http://{admin}")), &both, Some(1), "this port speaks TLS"),
        (Some(&format!("https://{health}")), &both, Some(1), "TLS with"),
        (Some(&by_name), &both[1..2], Some(2), "--key <FILE>"),
        (Some(&by_name), &[("--ca", "tls.key")], Some(2), "tls.key holds no certificate"),
    ] {
        let (status, text) = show(url.map(String::as_str), files);
        assert!(status == code && text.contains(told), "{url:?} with {files:?}: {status:?} {text}");
    }
    assert_eq!(http::get(health, "/readyz").unwrap().status, 200, "probes need no certificate");
    for (listener, reason) in [("admin", "tls_missing"), ("admin", "tls_failed"), ("health", "tls_unexpected")] {
        let lines = || tailkeep.logged(&format!("\"listener\":\"{listener}\",\"reason\":\"{reason}\""));
        eventually("it is in the log", || (lines() == 1).then_some(()));
        let counted = format!("tailkeep_admin_connections_closed_total{{reason=\"{reason}\"}} ");
        let page = http::get(health, "/metrics").unwrap().text();
        let count = page.lines().find_map(|line| line.strip_prefix(&counted)).expect("it is on the page");
        assert_ne!(count, "0", "{reason}");
    }
    tailkeep.stop();
}
