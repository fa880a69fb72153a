//! The configuration: examples, problems and defaults.
//!
//! `UPDATE_EXPECT=1 cargo test --test config` writes the expected texts anew.

mod expected;

use expected::expect;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tailkeep::config::{Config, Host, PolicySource, SinkKind, check_config, sections};
use tailkeep::deliver::sink::arms::Access;
use tailkeep::deliver::sink::otlp::Protocol;
use tailkeep::diagnostic::{self, Diagnostic, has_errors};
use tailkeep::identity::Source;
use tailkeep::measure::Kinds;
use tailkeep::yaml::{self, Node, Value};

const MIB: usize = 1 << 20;
/// Stands in every variable that is a secret; no text may hold it.
const SECRET: &str = "swordfish";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A host with a limit of 1 GiB, so that `memory: auto` is 512 MiB.
fn host() -> Host {
    Host {
        memory_limit: 1 << 30,
        data_folder: Some(PathBuf::from("/data/tailkeep")),
        descriptors: 20_000,
        instance: "i-1".to_owned(),
        hop: "hop-1".to_owned(),
    }
}

fn variables(name: &str) -> Option<String> {
    match name {
        "SECRET_NUMBER" => Some("4711".to_owned()),
        "OTLP_ENDPOINT" | "ARMS_TRACES_URL" | "ARMS_METRICS_URL" => Some("https://otlp.example.com:4317".to_owned()),
        "NODE_NAME" | "POD_NAME" | "HOSTNAME" | "TENANT" | "SLS_PROJECT" => Some("name-1".to_owned()),
        "SLS_KEY_ID" => Some("id".to_owned()),
        "EMPTY" => Some(String::new()),
        "SECRET"
        | "ARMS_TOKEN"
        | "TAILKEEP_ADMIN_TOKEN"
        | "INGEST_TOKEN"
        | "INGEST_PASSWORD"
        | "TAILKEEP_HASH_KEY"
        | "OTLP_AUTHORIZATION"
        | "ARMS_LICENSE_KEY"
        | "SLS_KEY_SECRET"
        | "SLS_TOKEN" => Some(SECRET.to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> (Option<Config>, Vec<Diagnostic>) {
    Config::parse(Path::new("/etc/tailkeep/tailkeep.yaml"), text, variables, &host())
}

/// The configuration in a text without any problem.
fn good(text: &str) -> Config {
    let (config, diagnostics) = parse(text);
    assert_eq!(diagnostics, [], "{}", diagnostic::render(&diagnostics, text, false));
    config.expect("no problem, so a configuration")
}

fn codes(text: &str) -> Vec<&'static str> {
    parse(text).1.iter().map(|diagnostic| diagnostic.code).collect()
}

fn address(text: &str) -> Option<SocketAddr> {
    Some(text.parse().expect("an address"))
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder entry").path()).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

// Problems, as files.

/// All cases: the path and what `check` says.
fn reports() -> Vec<(PathBuf, String, u8)> {
    let files = listing(&root().join("tests/config/diagnostics"));
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files
        .map(|path| {
            // Relative, so that reports are the same everywhere; tests run in the package's folder.
            let shown = path.strip_prefix(root()).expect("below the root");
            let host = Host { data_folder: Some(env!("CARGO_TARGET_TMPDIR").into()), ..host() };
            let report = check_config(Some(shown), None, variables, &host, false);
            (path, report.text, report.exit_code)
        })
        .collect()
}

#[test]
fn every_problem_is_reported_as_expected() {
    let mut wrong = Vec::new();
    for (path, text, _) in reports() {
        if !expect(&path.with_extension("stderr"), &text) {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn only_errors_decide_the_exit_code() {
    for (path, text, exit_code) in reports() {
        let has_error = text.lines().any(|line| line.starts_with("error["));
        assert_eq!(exit_code, if has_error { 2 } else { 0 }, "{}", path.display());
    }
}

#[test]
fn every_problem_says_what_to_write() {
    for (path, text, _) in reports() {
        for problem in text.split("\nerror[").flat_map(|text| text.split("\nwarning[")) {
            assert!(problem.contains(" = help: ") || problem.contains("no problem"), "{}: {problem}", path.display());
        }
    }
}

#[test]
fn no_report_shows_a_secret() {
    for (path, text, _) in reports() {
        assert!(!text.contains(SECRET) && !text.contains("4711"), "{}: {text}", path.display());
    }
}

#[test]
fn every_code_has_a_case() {
    let source = root().join("src");
    let folders = ["config", "config/sink"].map(|folder| listing(&source.join(folder)));
    let files = folders.into_iter().flatten().filter(|path| path.is_file()).chain([source.join("config.rs")]);
    let texts: Vec<String> = files.map(|path| read(&path)).collect();
    let is_code =
        |word: &&str| word.len() == 3 && word.starts_with('C') && word[1..].bytes().all(|c| c.is_ascii_digit());
    let used: BTreeSet<&str> = texts.iter().flat_map(|text| text.split('"')).filter(is_code).collect();
    assert_eq!(used.len(), 21, "{used:?}");
    let reports = reports();
    let shown: BTreeSet<&str> =
        reports.iter().flat_map(|(_, text, _)| text.split(['[', ']'])).filter(is_code).collect();
    let missing: Vec<&&str> = used.difference(&shown).collect();
    assert!(missing.is_empty(), "no case in tests/config/diagnostics shows {missing:?}");
}

#[test]
fn a_file_that_is_not_there_is_an_error_and_none_is_fine() {
    let check = |file: Option<&Path>, policy: Option<&Path>| check_config(file, policy, variables, &host(), false);
    let missing = Path::new("no-such-file.yaml");
    let report = check(Some(missing), None);
    assert_eq!((report.exit_code, report.text.starts_with("cannot read no-such-file.yaml: ")), (2, true));
    assert_eq!(check(None, Some(missing)).exit_code, 2);
    let report = check(None, Some(Path::new("config/policy.yaml")));
    assert_eq!(report.exit_code, 0, "{}", report.text);
    let want = "config/policy.yaml: 9 rules, no problem\n";
    assert_eq!(report.text, want);
}

#[test]
fn a_secret_from_a_file_is_followed_with_the_text_around_it() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("token");
    fs::write(&file, format!("{SECRET}\n")).expect("it can be written");
    let token = |text: &str| {
        let written = text.replace("FILE", &format!("${{file:{}}}", file.display()));
        let config = good(&format!("admin: {{ token: \"{written}\" }}\n"));
        assert!(!format!("{config:?}").contains(SECRET));
        config.admin_token.expect("a token")
    };
    for (written, read) in [("FILE", "renewed"), ("x-FILE", "x-renewed"), ("${env:SECRET}-FILE", "swordfish-swordfish")]
    {
        fs::write(&file, format!("{SECRET}\n")).expect("it can be written");
        let source = token(written);
        assert!(source.secret.expose().ends_with(SECRET));
        fs::write(&file, "renewed\n").expect("it can be written");
        assert_eq!(source.read().expect("it can be read").expose(), read, "{written}");
    }
    let headers = format!("{{ a: \"Bearer ${{file:{}}}\", b: c }}", file.display());
    let config = good(&format!("sinks: [{{ otlp: {{ endpoint: http://a:4317, headers: {headers} }} }}]\n"));
    let SinkKind::Otlp(settings) = &config.sinks[0].kind else { panic!("an otlp sink") };
    let [(name, source)] = &settings.headers.renewed[..] else { panic!("one is renewed: {:?}", settings.headers) };
    assert_eq!((name.as_str(), source.read().expect("it can be read").expose()), ("a", "Bearer renewed"));
    assert_eq!(settings.headers.fixed["b"], "c");
}

// Examples.

#[test]
fn every_example_loads() {
    for name in ["tailkeep", "sidecar", "daemonset", "gateway", "sls", "arms"] {
        let text = read(&root().join(format!("config/{name}.yaml")));
        let host = Host { memory_limit: 4 << 30, ..host() };
        let (config, diagnostics) = Config::parse(Path::new("config/x.yaml"), &text, variables, &host);
        assert_eq!(diagnostics, [], "{name}: {}", diagnostic::render(&diagnostics, &text, false));
        let config = config.expect("no problem, so a configuration");
        let shown = format!("{config:?}");
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

#[test]
fn examples_load_within_the_limits_that_they_name() {
    for (name, limit) in [("sidecar", 128 * MIB), ("daemonset", 1 << 30), ("gateway", 4 << 30)] {
        let text = read(&root().join(format!("config/{name}.yaml")));
        let host = Host { memory_limit: limit as u64, ..host() };
        let (_, diagnostics) = Config::parse(Path::new("x.yaml"), &text, variables, &host);
        assert_eq!(diagnostics, [], "{name}");
    }
}

/// The reference with everything switched on: `#key` becomes `key`, `# prose` stays.
fn reference() -> String {
    let text = read(&root().join("config/tailkeep.yaml"));
    let switch_on = |line: &str| match line.trim_start().strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => line.replacen('#', "", 1),
        _ => line.to_owned(),
    };
    text.lines().map(|line| switch_on(line) + "\n").collect()
}

/// Keys by section, as in [`sections`].
fn collect_keys(node: &Node, section: &str, out: &mut BTreeSet<(String, String)>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| collect_keys(item, section, out)),
        Value::Map(entries) => {
            for entry in entries {
                out.insert((section.to_owned(), entry.key.clone()));
                let below = if section.is_empty() { entry.key.clone() } else { format!("{section}.{}", entry.key) };
                // Headers and resources have the user's keys; a base has those of `auth`.
                match entry.key.as_str() {
                    "headers" | "resource" => {}
                    "base" => collect_keys(&entry.value, section, out),
                    _ => collect_keys(&entry.value, &below, out),
                }
            }
        }
        Value::Scalar(_) | Value::Refused => {}
    }
}

#[test]
fn the_reference_documents_every_key_and_no_other() {
    let text = reference();
    good(&text);
    let mut documented = BTreeSet::new();
    collect_keys(&yaml::parse(&text).0.expect("a tree"), "", &mut documented);
    let known: BTreeSet<(String, String)> = sections()
        .into_iter()
        .flat_map(|(section, keys)| keys.into_iter().map(move |key| (section.to_owned(), key.to_owned())))
        .collect();
    let missing: Vec<_> = known.difference(&documented).collect();
    assert!(missing.is_empty(), "config/tailkeep.yaml does not document {missing:?}");
    let unknown: Vec<_> = documented.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?} are no keys");
}

#[test]
fn the_values_of_the_reference_are_the_defaults() {
    let (reference, default) = (good(&reference()), good(""));
    let show = |value: &dyn std::fmt::Debug| format!("{value:#?}");
    assert_eq!(reference.receive.connection_age, Some(Duration::from_secs(300)));
    assert_eq!(reference.receive.auth.len(), 2);
    assert_eq!(reference.receive.cors, ["https://shop.example", "https://*.shop.example"]);
    let receive = tailkeep::receive::ReceiverSettings {
        // Examples, not defaults.
        tls: None,
        auth: Vec::new(),
        connection_age: None,
        cors: Vec::new(),
        instance: default.instance.clone(),
        // The text has whole MiB.
        in_flight: default.receive.in_flight,
        pooled: default.receive.pooled,
        ..reference.receive.clone()
    };
    assert_eq!(show(&receive), show(&default.receive));
    let measure = reference.measure.clone().expect("it measures");
    let usual = default.measure.expect("it measures");
    let measure =
        tailkeep::measure::MeterSettings { pool: usual.pool, instance_id: usual.instance_id.clone(), ..measure };
    assert_eq!(measure, usual);
    assert_eq!((reference.memory, reference.ring / MIB), (default.memory, default.ring / MIB));
    assert_eq!((reference.health, reference.admin), (default.health, default.admin));
    assert_eq!((reference.drain, &reference.policy), (default.drain, &default.policy));
    assert_eq!(reference.queue.memory.map(|size| size / MIB), default.queue.memory.map(|size| size / MIB));
    let client = |config: &Config, name: &str| match &config.sinks.iter().find(|sink| sink.name == name)?.kind {
        SinkKind::Otlp(settings) => Some(settings.client.clone()),
        _ => None,
    };
    let (written, usual) = (
        client(&reference, "upstream").expect("an otlp sink"),
        client(&good("sinks: [{ otlp: { endpoint: http://a:4317 } }]"), "otlp").expect("an otlp sink"),
    );
    assert_eq!((written.timeout, written.connect_timeout), (usual.timeout, usual.connect_timeout));
}

// Defaults.

#[test]
fn an_empty_file_binds_loopback_and_stores_in_the_data_folder() {
    for text in ["", "# nothing\n", "---\n", "receive:\nmeasure:\nqueue:\n"] {
        let config = good(text);
        assert_eq!(config.receive.grpc, address("127.0.0.1:4317"));
        assert_eq!(config.receive.http, address("127.0.0.1:4318"));
        assert_eq!(config.health, address("127.0.0.1:13133"));
        assert_eq!(config.admin, address("127.0.0.1:13134"));
        assert_eq!((config.policy, config.memory), (PolicySource::Builtin, 512 * MIB));
        assert_eq!((config.instance.as_str(), config.receive.instance.as_str()), ("i-1", "i-1"));
        assert_eq!(config.receive.hop, "hop-1", "what sinks send is what the receiver looks for");
        assert_eq!(config.measure.expect("it measures").instance_id, "i-1");
        let [sink] = &config.sinks[..] else { panic!("one sink: {:?}", config.sinks) };
        let SinkKind::Store(store) = &sink.kind else { panic!("a store") };
        assert_eq!((store.path.as_path(), store.size), (Path::new("/data/tailkeep/tailkeep.db"), 1 << 30));
        assert!(config.queue.spool.is_none());
    }
}

#[test]
fn without_a_data_folder_a_place_must_be_named() {
    let nowhere = Host { data_folder: None, ..host() };
    let codes = |text| {
        let (_, diagnostics) = Config::parse(Path::new("f"), text, variables, &nowhere);
        diagnostics.iter().map(|diagnostic| diagnostic.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(""), ["C07"]);
    assert_eq!(codes("sinks: [{ store: {} }]"), ["C07"]);
    assert!(codes("sinks: [{ store: { path: x.db } }]").is_empty());
}

#[test]
fn this_host_is_usable() {
    let host = Host::here();
    assert!(host.memory_limit > 0 && !host.instance.is_empty());
    assert!(host.hop.len() == 36 && host.hop != host.instance && host.hop != Host::here().hop, "nobody can guess it");
    let (config, diagnostics) = Config::parse(Path::new("f"), "sinks: [{ store: { path: x.db } }]", variables, &host);
    assert_eq!(diagnostics, []);
    assert!(config.is_some_and(|config| config.memory >= 32 * MIB));
}

/// What a configuration promises to hold at most.
fn promised(config: &Config) -> usize {
    let measure = config.measure.as_ref();
    let series = measure.map_or(0, |measure| measure.series_max * tailkeep::config::budget::SERIES_BYTES);
    let windows = measure.map_or(0, |measure| measure.pool * tailkeep::measure::HISTOGRAM_BYTES);
    let queues: usize = config.queue.memory.iter().sum();
    config.ring + config.receive.in_flight + config.receive.pooled + queues + series + windows
}

#[test]
fn the_parts_fit_into_the_budget_from_the_smallest_on() {
    for (memory, max_request) in [(32, 2), (64, 4), (128, 9), (256, 19), (512, 20), (4096, 20)] {
        let text = format!("memory: {memory}MiB");
        let host = Host { memory_limit: 64 << 30, ..host() };
        let (config, diagnostics) = Config::parse(Path::new("f"), &text, variables, &host);
        assert_eq!(diagnostics, []);
        let config = config.expect("no problem");
        assert_eq!((config.memory, config.ring), (memory * MIB, memory * MIB / 1000 * 600));
        assert!(promised(&config) <= memory * MIB && promised(&config) > memory * MIB / 10 * 8, "{config:?}");
        assert!(config.receive.in_flight >= 2 * config.receive.max_request);
        assert_eq!(config.receive.max_request / MIB, max_request);
        let windows = 2 * config.receive.connections * config.receive.window as usize;
        assert!(windows <= config.memory, "{windows}");
    }
}

#[test]
fn explicit_parts_keep_their_size_and_the_others_make_room() {
    let config = good("memory: 64MiB\nreceive: { max_request: 10MiB }\nqueue: { memory: { logs: 1MiB } }");
    assert_eq!((config.receive.max_request, config.receive.in_flight), (10 * MIB, 20 * MIB));
    assert_eq!(config.queue.memory[2], MIB);
    assert!(config.ring < 64 * MIB / 100 * 60 && promised(&config) <= 64 * MIB, "{config:?}");
    let config = good("measure: off\nring: { size: 400MiB }");
    assert!(config.measure.is_none());
    assert_eq!(config.ring, 400 * MIB);
    assert!(promised(&config) <= 512 * MIB);
}

#[test]
fn a_listener_can_be_switched_off_or_take_any_port() {
    let config = good("receive: { grpc: off, http: 127.0.0.1:0 }\nhealth: off\nadmin: off");
    assert_eq!((config.receive.grpc, config.receive.http), (None, address("127.0.0.1:0")));
    assert_eq!((config.health, config.admin), (None, None));
    let all_free = "receive: { grpc: '127.0.0.1:0', http: '127.0.0.1:0' }\nhealth: { listen: '127.0.0.1:0' }";
    assert_eq!(codes(all_free), [""; 0]);
    let two_hosts = "receive: { grpc: '127.0.0.1:4317', http: '127.0.0.2:4317' }";
    assert_eq!(codes(two_hosts), [""; 0]);
}

// What is written.

#[test]
fn paths_are_relative_to_the_file() {
    let config = good(
        "policy: policy.yaml
receive: { tls: { cert: tls/a.crt, key: /abs/a.key } }
queue: { path: spool, size: { traces: 2GiB }, longest_wait: 5s, longest_refusal: 2m }
sinks: [{ store: { path: ../t.db } }, { file: { path: out, format: protobuf, keep: 0, signals: logs } }]",
    );
    assert_eq!(config.policy, PolicySource::File("/etc/tailkeep/policy.yaml".into()));
    let tls = config.receive.tls.expect("it speaks TLS");
    assert_eq!((tls.cert, tls.key), ("/etc/tailkeep/tls/a.crt".into(), "/abs/a.key".into()));
    assert_eq!(config.queue.longest_wait, Duration::from_secs(5));
    assert_eq!(config.queue.longest_refusal, Duration::from_secs(120));
    let spool = config.queue.spool.expect("a queue on disk");
    assert_eq!((spool.path, spool.quotas[0]), (PathBuf::from("/etc/tailkeep/spool"), 2 << 30));
    let names: Vec<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["store", "file"]);
    let SinkKind::File(file) = &config.sinks[1].kind else { panic!("a file sink") };
    assert_eq!(
        (file.folder.as_path(), file.signals, file.keep),
        (Path::new("/etc/tailkeep/out"), [false, false, true], 0)
    );
}

#[test]
fn otlp_takes_its_protocol_from_the_endpoint() {
    let settings = |section: &str| {
        let mut config = good(&format!("sinks: [{{ otlp: {{ {section} }} }}]"));
        let SinkKind::Otlp(settings) = config.sinks.remove(0).kind else { panic!("an otlp sink") };
        settings
    };
    for (section, protocol) in [
        ("endpoint: http://g:4317", Protocol::Grpc),
        ("endpoint: https://g", Protocol::Grpc),
        ("endpoint: http://g:4318", Protocol::Http),
        ("endpoint: http://g:4317, protocol: http", Protocol::Http),
        ("endpoint: http://g:4318, protocol: grpc", Protocol::Grpc),
        ("endpoint: https://g/otlp", Protocol::Http),
        ("endpoint: https://g, urls: { traces: https://g/x }", Protocol::Http),
    ] {
        assert_eq!(settings(section).protocol, protocol, "{section}");
        assert_eq!(settings(section).signals, [true; 3]);
    }
    let urls_alone = settings("urls: { traces: https://g/x }");
    assert_eq!(urls_alone.signals, [true, false, false]);
    let full = settings(
        "endpoint: http://g:4317, headers: { X-Tenant: \"${env:SECRET}\" }, timeout: 3s, compression: none, \
         signals: [traces, logs], tls: { cert: c, key: k }, connect_to: 10.0.0.1:1",
    );
    assert_eq!(full.headers.fixed["x-tenant"], SECRET);
    let hops = full.hops.value(tailkeep::trace::Signal::Traces, std::time::Instant::now());
    assert_eq!((full.client.timeout, hops.as_str()), (Duration::from_secs(3), "hop-1"));
    assert_eq!((full.signals, full.client.connect_to.as_deref()), ([true, false, true], Some("10.0.0.1:1")));
    assert!(full.client.tls.expect("trust").identity.is_some());
}

#[test]
fn arms_and_log_service_take_their_secrets_from_the_environment() {
    let config = good(
        "sinks:
  - arms: { endpoint: http://a:8090, token: ${env:ARMS_TOKEN} }
  - name: v2
    arms: { endpoint: https://a, license: { key: \"${env:SECRET}\", project: p, workspace: w } }
  - sls: { endpoint: cn-hangzhou.log.aliyuncs.com, project: p, logs: l, auth: { type: keys, access_key_id: i, \
           access_key_secret: \"${env:SECRET}\" } }
  - name: role
    sls: { endpoint: cn-hangzhou.log.aliyuncs.com, project: p, logs: l, auth: { type: assume_role, role_arn: r, \
           duration: 15m, base: { type: rrsa, token_file: token } } }",
    );
    let SinkKind::Arms(arms) = &config.sinks[0].kind else { panic!("arms") };
    assert!(matches!(&arms.access, Access::Token(token) if token.expose() == SECRET));
    let SinkKind::Arms(arms) = &config.sinks[1].kind else { panic!("arms") };
    assert!(matches!(&arms.access, Access::Licence { key, .. } if key.expose() == SECRET));
    let SinkKind::Sls(sls) = &config.sinks[2].kind else { panic!("sls") };
    assert!(matches!(&sls.auth.source, Source::Keys { id, secret, .. } if id == "i" && secret.expose() == SECRET));
    let SinkKind::Sls(sls) = &config.sinks[3].kind else { panic!("sls") };
    assert_eq!(sls.auth.endpoints.duration_seconds, 900);
    let Source::AssumeRole(role) = &sls.auth.source else { panic!("a role") };
    let Source::Rrsa(rrsa) = &*role.base else { panic!("RRSA") };
    assert_eq!(rrsa.token_file.as_deref(), Some(Path::new("/etc/tailkeep/token")));
    assert!(!format!("{config:?}").contains(SECRET));
}

#[test]
fn sinks_of_every_kind_are_built() {
    let config = good(
        "sinks:
  - store: {}
  - file: { path: out }
  - otlp: { endpoint: http://g:4317 }
  - arms: { endpoint: http://a:8090, token: ${env:ARMS_TOKEN} }
  - sls: { endpoint: http://cn-hangzhou.log.test, project: p, logs: l }",
    );
    let world = tailkeep::identity::World::system();
    for sink in &config.sinks {
        if let Err(error) = sink.build(&world) {
            panic!("{}: {error}", sink.name);
        }
    }
}

#[test]
fn measuring_is_set_as_written() {
    let config =
        good("measure: { every: 30s, kinds: [client, server], unit: s, buckets: [500us, 1s], dimensions: [] }");
    let measure = config.measure.expect("it measures");
    assert_eq!(measure.every, Duration::from_secs(30));
    assert!(
        measure.kinds.has(tailkeep::trace::SpanKind::Client) && !measure.kinds.has(tailkeep::trace::SpanKind::Consumer)
    );
    assert_eq!(measure.buckets.in_unit(measure.unit).collect::<Vec<_>>(), [0.0005, 1.0]);
    assert!(measure.dimensions.names().is_empty());
    assert_eq!(good("measure: { kinds: all }").measure.map(|measure| measure.kinds), Some(Kinds::ALL));
}

#[test]
fn administration_for_others_needs_a_token() {
    let config = good("admin: { listen: 0.0.0.0:13134, token: ${env:TAILKEEP_ADMIN_TOKEN} }");
    assert!(config.admin_token.is_some_and(|token| token.secret.expose() == SECRET));
    assert_eq!(codes("admin: { listen: '[::]:13134' }"), ["C10"]);
    assert_eq!(codes("admin: { listen: '[::1]:13134' }"), [""; 0]);
}

/// Secrets where they may stand, written out.
const WITH_SECRETS: &str = "admin:
  token: swordfish
receive:
  auth:
    bearer: [swordfish]
    basic: { username: u, password: swordfish }
sinks:
  - arms: { endpoint: http://a:8090, token: swordfish }
  - name: v2
    arms:
      urls:
        traces: https://a/swordfish
      license:
        key: swordfish
        project: p
  - sls:
      project: p
      auth: { type: keys, access_key_id: i, access_key_secret: swordfish, security_token: swordfish }
  - otlp:
      endpoint: http://c:4317
      headers:
        x-tenant: Bearer swordfish
";

/// [`WITH_SECRETS`] with one letter missing, or one too many beside what is no word. The secrets stay whole.
fn typing_errors() -> Vec<String> {
    let is_in_a_secret = |at: usize| {
        WITH_SECRETS.match_indices(SECRET).any(|(start, _)| (start + 1..start + SECRET.len()).contains(&at))
    };
    let mut texts = Vec::new();
    for at in (0..WITH_SECRETS.len()).filter(|at| !is_in_a_secret(*at)) {
        let (before, after) = WITH_SECRETS.split_at(at);
        if !is_in_a_secret(at + 1) {
            texts.push(format!("{before}{}", &after[1..]));
        }
        let is_word = |text: Option<char>| text.is_some_and(|c| c.is_ascii_alphanumeric());
        if !is_word(before.chars().last()) || !is_word(after.chars().next()) {
            texts.extend(
                [" ", "\n", "\t", ":", ",", "#", "&", "\"", "{", "x"].map(|more| format!("{before}{more}{after}")),
            );
        }
    }
    texts
}

#[test]
fn no_typing_error_shows_a_secret() {
    let texts = typing_errors();
    assert!(texts.len() > 1000, "{}", texts.len());
    for text in texts {
        let (_, diagnostics) = parse(&text);
        let drawn = diagnostic::render(&diagnostics, &tailkeep::config::drawable(&text), false);
        assert!(!drawn.contains(SECRET), "{text}\n{drawn}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Lines, keys and values of the reference, torn out and put together again.
    #[test]
    fn no_text_panics_and_every_problem_lies_inside_it(
        cuts in proptest::collection::vec((0..1000usize, 0..1000usize), 0..40),
        noise in "[ -~\n\té${}:,\\[\\]]{0,60}",
    ) {
        let reference = reference();
        let lines: Vec<&str> = reference.lines().collect();
        let pieces = cuts.iter().map(|(line, chars)| {
            let line = lines[line % lines.len()];
            // Mostly whole lines.
            line.chars().take(if chars % 4 == 0 { chars % 60 } else { 1000 }).collect::<String>()
        });
        let text = pieces.collect::<Vec<String>>().join("\n") + &noise;
        let (config, diagnostics) = parse(&text);
        prop_assert_eq!(config.is_none(), has_errors(&diagnostics), "{}", text);
        for diagnostic in &diagnostics {
            prop_assert!(diagnostic.span.end <= text.len(), "{:?}", diagnostic);
        }
        let drawn = diagnostic::render(&diagnostics, &tailkeep::config::drawable(&text), false);
        prop_assert!(!drawn.contains(SECRET), "{}", drawn);
        if let Some(config) = config {
            prop_assert!(promised(&config) <= config.memory);
        }
    }

    /// The reference with one value replaced.
    #[test]
    fn any_value_is_taken_or_refused(line in 0..1000usize, value in "[0-9a-z:/.${}%\"' -]{0,20}") {
        let reference = reference();
        let keyed: Vec<&str> = reference.lines().filter(|line| line.contains(": ")).collect();
        let line = keyed[line % keyed.len()];
        let (key, _) = line.split_once(": ").expect("chosen so");
        let text = reference.replacen(line, &format!("{key}: {value}"), 1);
        let (config, diagnostics) = parse(&text);
        prop_assert_eq!(config.is_none(), has_errors(&diagnostics), "{}", text);
    }
}
