//! OTLP/JSON as it is found in the wild. A case is a folder with `request.SIGNAL.json` and either
//! `expected.json`, what was understood, or `error.txt`, what the sender is told.

use crate::harness::*;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::Path;

/// The request in the JSON of `opentelemetry-proto`. Where that understands the sender's JSON as well
/// (it passes over protobuf field names), both must understand the same.
fn understood<R>(sent: &[u8], taken: &[u8]) -> String
where
    R: prost::Message + Default + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let request = R::decode(taken).unwrap();
    let theirs = serde_json::from_slice::<R>(sent).unwrap_or_default();
    assert!(theirs == R::default() || theirs == request, "{request:?} is not {theirs:?}");
    serde_json::to_string_pretty(&request).unwrap() + "\n"
}

async fn check(server: &Server, case: &Path) {
    let (signal, sent) = ["traces", "metrics", "logs"]
        .iter()
        .find_map(|signal| Some((*signal, fs::read(case.join(format!("request.{signal}.json"))).ok()?)))
        .expect("a case has a request");
    let reply = post(server.http, http_request(&format!("/v1/{signal}"), "application/json", &sent)).await;
    let (file, found) = match server.taken().pop() {
        None => {
            assert_eq!(reply.status, 400, "{}", case.display());
            let status: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            ("error.txt", status["message"].as_str().unwrap().to_owned() + "\n")
        }
        Some(taken) => {
            assert_eq!(reply.status, 200, "{}", case.display());
            let request = match signal {
                "traces" => understood::<ExportTraceServiceRequest>(&sent, &taken.body),
                "metrics" => understood::<ExportMetricsServiceRequest>(&sent, &taken.body),
                _ => understood::<ExportLogsServiceRequest>(&sent, &taken.body),
            };
            ("expected.json", request)
        }
    };
    let expected = fs::read_to_string(case.join(file)).unwrap_or_default();
    if std::env::var_os("UPDATE_CASES").is_some() {
        fs::write(case.join(file), &found).unwrap();
    } else {
        assert!(found == expected, "{}: expected\n{expected}\nfound\n{found}", case.join(file).display());
    }
}

#[tokio::test]
async fn every_case_is_understood_as_expected() {
    let server = Server::start(small()).await;
    let mut cases = 0;
    for case in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/receive/json")).unwrap() {
        check(&server, &case.unwrap().path()).await;
        cases += 1;
    }
    assert!(cases >= 18, "only {cases} cases were found");
}
