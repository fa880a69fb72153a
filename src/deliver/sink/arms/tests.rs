use super::*;

fn urls(settings: &ArmsSettings) -> Result<[String; 2], String> {
    let [traces, metrics, logs] = settings.urls(settings.protocol())?;
    assert!(logs.is_none());
    Ok([traces, metrics].map(|url| url.map_or(String::new(), |url| url.to_string())))
}

fn settings(endpoint: &str, access: Access) -> ArmsSettings {
    ArmsSettings { endpoint: Some(Secret::new(endpoint)), access, ..Default::default() }
}

fn token() -> Access {
    Access::Token(Secret::new("abc@def_abc@ghi"))
}

fn licence() -> Access {
    Access::Licence { key: Secret::new("key"), project: "proj-xtrace-1".into(), workspace: "w".into() }
}

#[test]
fn both_generations_over_both_protocols() {
    for (endpoint, access, want) in [
        ("http://dc-hz.test", token(), "http://dc-hz.test/adapt_abc@def_abc@ghi/api/otlp/traces"),
        (
            "http://dc-hz.test:8090",
            token(),
            "http://dc-hz.test:8090/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        ),
        ("https://p.log.test", licence(), "https://p.log.test/opentelemetry/v1/traces"),
        (
            "https://p.log.test/apm/trace/opentelemetry/",
            licence(),
            "https://p.log.test/apm/trace/opentelemetry/v1/traces",
        ),
        (
            "https://p.log.test:10010",
            licence(),
            "https://p.log.test:10010/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        ),
        ("http://own.test:4318", Access::Free, "http://own.test:4318/v1/traces"),
    ] {
        assert_eq!(urls(&settings(endpoint, access)).unwrap()[0], want);
    }
    let forced = ArmsSettings { protocol: Some(Protocol::Http), ..settings("http://dc-hz.test:8090", token()) };
    assert!(urls(&forced).unwrap()[1].ends_with(":8090/adapt_abc@def_abc@ghi/api/otlp/metrics"));
}

#[test]
fn given_urls_are_taken_verbatim() {
    let given = ArmsSettings {
        traces_url: Some(Secret::new("http://a.test/adapt_x@y/api/otlp/traces")),
        metrics_url: Some(Secret::new("https://b.test/metrics?key=1")),
        ..Default::default()
    };
    assert_eq!(urls(&given).unwrap(), ["http://a.test/adapt_x@y/api/otlp/traces", "https://b.test/metrics?key=1"]);
    let traces_only = ArmsSettings { metrics_url: None, signals: [true, false, false], ..given };
    assert_eq!(urls(&traces_only).unwrap()[1], "");
}

/// As the console shows it, and not what `endpoint` is.
#[test]
fn a_whole_url_is_no_endpoint() {
    for endpoint in ["http://dc.test/adapt_a@b/api/otlp/traces", "https://p.test/opentelemetry/v1/metrics"] {
        for access in [token(), licence(), Access::Free] {
            let error = urls(&settings(endpoint, access)).unwrap_err();
            assert!(error.contains("whole URL") && error.contains("`urls:`") && !error.contains("a@b"), "{error}");
        }
    }
}

#[test]
fn a_token_that_would_go_nowhere_is_an_error() {
    let url = |text: &str| Some(Secret::new(text));
    let both = ArmsSettings {
        traces_url: url("http://a.test/x"),
        metrics_url: url("http://b.test/y"),
        access: token(),
        ..Default::default()
    };
    let error = urls(&both).unwrap_err();
    assert!(error.contains("`token` would go nowhere") && !error.contains("abc@def"), "{error}");
    let one = ArmsSettings { metrics_url: None, endpoint: url("http://c.test"), ..both };
    assert_eq!(urls(&one).unwrap()[1], "http://c.test/adapt_abc@def_abc@ghi/api/otlp/metrics");
}

#[test]
fn hosts_of_private_networks_are_near() {
    for host in [
        "127.0.0.1",
        "localhost",
        "10.1.2.3",
        "192.168.0.9",
        "100.100.2.148",
        "[fd00::1]",
        "gateway",
        "otel.observability.svc",
        "tracing-analysis-dc-hz-internal.aliyuncs.com",
        "p.cn-hangzhou-intranet.log.aliyuncs.com",
    ] {
        assert!(is_near(host), "{host}");
    }
    for host in ["47.96.1.1", "tracing-analysis-dc-hz.aliyuncs.com", "172.32.0.1", "[2400::1]", "100.128.0.1"] {
        assert!(!is_near(host), "{host}");
    }
    let free = |url: &str| has_secret(&settings("http://h.test", Access::Free), &url.parse().unwrap());
    assert!(free("http://h.test/adapt_x@y/api/otlp/traces") && !free("http://h.test/v1/traces"));
}

#[test]
fn headers_of_each_access() {
    let names = |access, protocol| {
        let headers = settings("http://h.test", access).all_headers(protocol).unwrap();
        let mut names: Vec<_> = headers.fixed.keys().map(|name| name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names(token(), Protocol::Grpc), ["authentication"]);
    assert_eq!(names(licence(), Protocol::Http), ["x-arms-license-key", "x-arms-project", "x-cms-workspace"]);
    assert!(names(token(), Protocol::Http).is_empty(), "there the token is in the path");
    assert!(names(Access::Free, Protocol::Grpc).is_empty());
    let empty = Access::Licence { key: Secret::new("k"), project: String::new(), workspace: "w".into() };
    assert_eq!(settings("http://h.test", empty).all_headers(Protocol::Http).unwrap_err(), "license.project is empty");
}

#[test]
fn wrong_settings_say_what_to_write_and_never_quote_a_token() {
    let secret = "http://h.test/adapt_swordfish@x/ \u{fc}";
    let with_url = ArmsSettings { traces_url: Some(Secret::new(secret)), ..settings("http://h.test", Access::Free) };
    let with_token = settings("http://h.test", Access::Token(Secret::new("sword\nfish")));
    let as_endpoint = settings(secret, token());
    let mut with_header = settings("not a url", Access::Free);
    with_header.headers.fixed.insert("x-key", HeaderValue::from_static("swordfish"));
    for settings in [with_url, with_token, as_endpoint, with_header] {
        let shown = format!("{settings:?}");
        let error = Arms::new(settings).err().expect("it is wrong");
        assert!(!error.contains("sword"), "{error}");
        assert!(!shown.contains("swordfish"), "{shown}");
    }
    assert!(Arms::new(ArmsSettings::default()).err().unwrap().contains("write `endpoint` or `urls.traces`"));
    let none = ArmsSettings { signals: [false; 3], ..settings("http://h.test", token()) };
    assert!(Arms::new(none).err().unwrap().contains("allow traces or metrics"));
    let mixed =
        ArmsSettings { traces_url: Some(Secret::new("http://h.test/x")), ..settings("http://h.test:8090", token()) };
    assert!(Arms::new(mixed).err().unwrap().contains("protocol: http"));
}
