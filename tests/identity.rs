//! Obtaining keys from stubs of STS and of the ECS metadata service.

mod loopback;

use loopback::{Received, Reply, Server};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tailkeep::identity::{
    AssumeRoleSettings, EcsRoleSettings, Endpoints, FailureCause, Identity, IdentitySettings, RrsaSettings, Secret,
    Source, World,
};

/// 2026-11-23 10:00:00 UTC.
const NOW: u64 = 1_795_428_000_000;
const ROLE: &str = "acs:ram::1:role/tail";

fn keys(call: usize, expiration: &str) -> String {
    format!(
        r#"{{"Code":"Success","RequestId":"R-{call}","AccessKeyId":"STS.{call}","AccessKeySecret":"secret{call}",
        "SecurityToken":"token{call}","Expiration":"{expiration}","Credentials":{{"AccessKeyId":"STS.{call}",
        "AccessKeySecret":"secret{call}","SecurityToken":"token{call}","Expiration":"{expiration}"}}}}"#
    )
}

fn answer(body: String) -> Reply {
    Reply::Answer(200, vec![], body)
}

/// Names and values of a query or form.
fn pairs(text: &str) -> HashMap<String, String> {
    let decode = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            let hex = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
            bytes.push(if byte == b'%' { hex(rest.next().unwrap()) << 4 | hex(rest.next().unwrap()) } else { byte });
        }
        String::from_utf8(bytes).unwrap()
    };
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (decode(name), decode(value))).collect()
}

fn form(request: &Received) -> HashMap<String, String> {
    pairs(std::str::from_utf8(&request.body).unwrap())
}

fn query(request: &Received) -> HashMap<String, String> {
    pairs(request.target.split_once('?').unwrap().1)
}

struct Stage {
    identity: Arc<Identity>,
    clock: Arc<AtomicU64>,
}

fn identity(source: Source, server: &Server) -> Stage {
    let endpoints = Endpoints {
        sts: Some(format!("http://{}", server.address)),
        metadata: format!("http://{}", server.address),
        ..Default::default()
    };
    let clock = Arc::new(AtomicU64::new(NOW));
    let ticking = clock.clone();
    let world = World {
        unix_millis: Arc::new(move || ticking.load(Relaxed)),
        random: Arc::new(|| 0),
        variable: Arc::new(|_| None),
    };
    Stage { identity: Identity::new(&IdentitySettings { source, endpoints }, world).unwrap(), clock }
}

fn rrsa(token_file: &std::path::Path) -> Source {
    Source::Rrsa(RrsaSettings {
        role_arn: Some(ROLE.into()),
        provider_arn: Some("acs:ram::1:oidc-provider/ack".into()),
        token_file: Some(token_file.into()),
        session_name: Some("shop".into()),
    })
}

#[tokio::test]
async fn rrsa_reads_its_token_anew_and_keeps_it_out_of_the_request_line() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "first.token\n").unwrap();
    let server = Server::start(|n, _| answer(keys(n, "2026-11-23T11:00:00Z"))).await;
    let stage = identity(rrsa(&token_file), &server);
    let first = stage.identity.current().await.unwrap();
    assert_eq!((first.id.as_str(), first.token.as_ref().unwrap().expose()), ("STS.0", "token0"));
    assert_eq!(first.expires, Some(NOW / 1000 + 3600));

    std::fs::write(&token_file, "second.token").unwrap();
    stage.clock.fetch_add(3600 * 1000, Relaxed);
    // The stub's second keys have expired by now as well; the caller still gets what STS gave.
    assert_eq!(stage.identity.current().await.unwrap().id, "STS.1");

    let received = server.received();
    let tokens: Vec<_> = received.iter().map(|request| form(request)["OIDCToken"].clone()).collect();
    assert_eq!(tokens, ["first.token", "second.token"]);
    let (query, form) = (query(&received[0]), form(&received[0]));
    assert_eq!((query["Action"].as_str(), query["Version"].as_str()), ("AssumeRoleWithOIDC", "2015-04-01"));
    assert_eq!(query["Timestamp"], "2026-11-23T10:00:00Z");
    assert_eq!((form["RoleArn"].as_str(), form["RoleSessionName"].as_str()), (ROLE, "shop"));
    assert_eq!(form["DurationSeconds"], "3600");
    assert!(!received[0].target.contains("token"));
}

/// STS refuses a call whose timestamp is more than a quarter of an hour off.
#[tokio::test]
async fn a_clock_that_is_off_is_set_by_sts() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "a.token").unwrap();
    let server = Server::start(|n, request| match query(request)["Timestamp"].as_str() {
        "2026-11-23T12:00:00Z" => answer(keys(n, "2026-11-23T13:00:00Z")),
        _ => {
            let body = r#"{"RequestId":"R","Code":"InvalidTimeStamp.Expired","Message":"expired"}"#;
            Reply::Answer(400, vec![("date", "Mon, 23 Nov 2026 12:00:00 GMT".into())], body.into())
        }
    })
    .await;
    let stage = identity(rrsa(&token_file), &server);
    let keys = stage.identity.current().await.unwrap();
    assert_eq!((keys.id.as_str(), server.received().len()), ("STS.1", 2));
    assert_eq!(keys.expires, Some(NOW / 1000 + 3600), "by our own clock, which is two hours behind");
}

#[tokio::test]
async fn rrsa_without_its_token_file_says_which() {
    let server = Server::start(|n, _| answer(keys(n, "2026-11-23T11:00:00Z"))).await;
    let error = identity(rrsa("/nowhere/token".as_ref()), &server).identity.current().await.unwrap_err().to_string();
    assert!(error.contains("/nowhere/token") && error.contains("is RRSA enabled"), "{error}");
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn an_empty_token_file_is_not_sent_to_sts() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "\n").unwrap();
    let server = Server::start(|n, _| answer(keys(n, "2026-11-23T11:00:00Z"))).await;
    let error = identity(rrsa(&token_file), &server).identity.current().await.unwrap_err().to_string();
    assert!(error.contains("is empty") && error.contains("is RRSA enabled"), "{error}");
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn a_refusal_of_sts_is_passed_on_with_its_request() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "swordfish").unwrap();
    let server = Server::start(|_, _| {
        let body = r#"{"RequestId":"R-7","Code":"EntityNotExist.Role","Message":"The role not exists."}"#;
        Reply::Answer(404, vec![], body.into())
    })
    .await;
    let error = identity(rrsa(&token_file), &server).identity.current().await.unwrap_err();
    let text = error.to_string();
    assert_eq!(text, "RRSA: STS answered 404 EntityNotExist.Role: The role not exists. (request id R-7)");
    assert!(!format!("{error:?}").contains("swordfish"));
}

/// A metadata service: `session` is whether it knows version 2, `open` whether version 1 still works.
async fn metadata(session: bool, open: bool) -> Server {
    Server::start(move |_, request| {
        let path = request.target.as_str();
        let allowed = open || request.header("x-aliyun-ecs-metadata-token") == "session-token";
        match (request.method.as_str(), path) {
            ("PUT", "/latest/api/token") if session => {
                assert_eq!(request.header("x-aliyun-ecs-metadata-token-ttl-seconds"), "21600");
                answer("session-token".into())
            }
            ("GET", _) if !allowed => Reply::Answer(403, vec![], String::new()),
            ("GET", "/latest/meta-data/ram/security-credentials/") => answer("node-role".into()),
            ("GET", "/latest/meta-data/ram/security-credentials/node-role") => answer(keys(0, "2026-11-23T16:00:00Z")),
            _ => Reply::Answer(404, vec![], "<html>404</html>".into()),
        }
    })
    .await
}

/// What a probe advises depends on it.
#[tokio::test]
async fn a_metadata_service_that_is_not_there_is_not_one_that_refuses() {
    for (answers, cause) in [(true, FailureCause::Refused), (false, FailureCause::Unreachable)] {
        let server = Server::start(move |_, _| match answers {
            true => Reply::Answer(403, vec![], String::new()),
            false => Reply::Close,
        })
        .await;
        for only_v2 in [true, false] {
            let error = identity(ecs_role(None, only_v2), &server).identity.current().await.unwrap_err();
            assert_eq!(error.cause, cause, "{only_v2} {error}");
        }
    }
}

fn ecs_role(role: Option<&str>, only_v2: bool) -> Source {
    Source::EcsRole(EcsRoleSettings { role: role.map(str::to_owned), only_v2 })
}

#[tokio::test]
async fn metadata_version_2_then_1_unless_it_is_refused() {
    for (session, open, only_v2, works) in [
        (true, false, false, true),
        (true, false, true, true),
        (false, true, false, true),
        (false, true, true, false),
        (false, false, false, false),
    ] {
        let server = metadata(session, open).await;
        let outcome = identity(ecs_role(None, only_v2), &server).identity.current().await;
        assert_eq!(outcome.is_ok(), works, "{session} {open} {only_v2}: {outcome:?}");
        if works {
            assert_eq!(outcome.unwrap().id, "STS.0");
        }
    }
}

/// Something in between answers the PUT, but not with a session.
#[tokio::test]
async fn a_session_that_is_none_is_no_way_around_version_2() {
    for not_a_session in ["\n", "<html>a\nb</html>", "se\u{df}ion"] {
        let server = Server::start(move |n, request| match request.method.as_str() {
            "PUT" => answer(not_a_session.into()),
            _ if !request.header("x-aliyun-ecs-metadata-token").is_empty() => Reply::Answer(403, vec![], String::new()),
            _ => answer(keys(n, "2026-11-23T16:00:00Z")),
        })
        .await;
        let error = identity(ecs_role(Some("r"), true), &server).identity.current().await.unwrap_err().to_string();
        assert!(error.contains("version 1 is refused"), "{error}");
        assert_eq!(server.received().len(), 1, "the keys were not asked for");
        let keys = identity(ecs_role(Some("r"), false), &server).identity.current().await;
        assert!(keys.is_ok(), "{not_a_session:?}: {keys:?}");
    }
}

#[tokio::test]
async fn keys_without_success_are_none() {
    let server = Server::start(|n, request| match request.method.as_str() {
        "PUT" => answer("session-token".into()),
        _ => answer(keys(n, "2026-11-23T16:00:00Z").replace("Success", "Failed")),
    })
    .await;
    let error = identity(ecs_role(Some("r"), true), &server).identity.current().await.unwrap_err().to_string();
    assert!(error.contains(r#""Failed" for "r""#), "{error}");
}

#[tokio::test]
async fn a_role_that_is_given_is_not_asked_for() {
    let server = metadata(true, false).await;
    identity(ecs_role(Some("node-role"), false), &server).identity.current().await.unwrap();
    assert_eq!(server.received().len(), 2);
    let error = identity(ecs_role(Some("other"), false), &server).identity.current().await.unwrap_err();
    assert!(error.to_string().contains("404 for the role \"other\""), "{error}");
}

#[tokio::test]
async fn redirects_of_the_metadata_service_are_not_followed() {
    let thief = Server::start(|n, _| answer(keys(n, "2026-11-23T16:00:00Z"))).await;
    let elsewhere = format!("http://{}/", thief.address);
    let server = Server::start(move |_, _| Reply::Answer(302, vec![("location", elsewhere.clone())], String::new()));
    let server = server.await;
    assert!(identity(ecs_role(None, false), &server).identity.current().await.is_err());
    assert!(thief.received().is_empty());
}

#[tokio::test]
async fn assume_role_is_signed_with_the_base_keys() {
    let server = Server::start(|n, _| answer(keys(n, "2026-11-23T11:00:00Z"))).await;
    let base =
        Source::Keys { id: "base".into(), secret: Secret::new("base-secret"), token: Some(Secret::new("base-token")) };
    let role = Source::AssumeRole(AssumeRoleSettings {
        role_arn: ROLE.into(),
        session_name: None,
        external_id: Some("ext".into()),
        base: Box::new(base),
    });
    let stage = identity(role, &server);
    assert_eq!(stage.identity.current().await.unwrap().id, "STS.0");
    let request = &server.received()[0];
    let (query, form) = (query(request), form(request));
    assert_eq!((query["Action"].as_str(), query["AccessKeyId"].as_str()), ("AssumeRole", "base"));
    assert_eq!((form["RoleSessionName"].as_str(), form["ExternalId"].as_str()), ("tailkeep", "ext"));
    assert_eq!(form["SecurityToken"], "base-token");
    assert_eq!(query["SignatureNonce"].len(), 32);
    assert!(!query["Signature"].is_empty() && !request.target.contains("base-token"));
}

#[tokio::test]
async fn a_service_that_hangs_up_or_is_silent_is_an_error_and_not_a_hang() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "swordfish").unwrap();
    let closing = Server::start(|_, _| Reply::Close).await;
    let error = identity(rrsa(&token_file), &closing).identity.current().await.unwrap_err().to_string();
    assert!(error.starts_with("RRSA: the connection broke"), "{error}");
    // A second for the session and a second for the role: such machines have no metadata service.
    let silent = Server::start(|_, _| Reply::Silence).await;
    let error = identity(ecs_role(None, false), &silent).identity.current().await.unwrap_err().to_string();
    assert_eq!(error, "ECS role: no reply within 1000 ms");
}
