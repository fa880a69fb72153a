//! The end of a receiver: applications in the same pod still get their last spans in.

use crate::harness::*;
use bytes::Bytes;
use hyper::client::conn::http2::SendRequest;
use std::time::Duration;
use tailkeep::receive::Phase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tonic::Code;

struct Held {
    pieces: UnboundedSender<Bytes>,
    call: JoinHandle<hyper::Result<http::Response<hyper::body::Incoming>>>,
}

/// A call that has sent half of its message.
async fn half_a_call(server: &Server, connection: &mut SendRequest<Pieces>) -> Held {
    let (pieces, body) = Pieces::new();
    pieces.send(Bytes::from_static(&[0, 0, 0, 0, 4, b'h', b'a'])).unwrap();
    let call = tokio::spawn(connection.send_request(grpc_request(TRACES, body)));
    server.until("it is in flight", |stats| stats.in_flight_bytes > 0).await;
    Held { pieces, call }
}

impl Held {
    /// Sends the other half.
    async fn finish(self) -> Code {
        self.pieces.send(Bytes::from_static(b"lf")).unwrap();
        drop(self.pieces);
        Reply::read(self.call.await.unwrap().unwrap()).await.grpc().code()
    }
}

/// Waits until the server has ended a connection that is told to finish.
async fn closes(connection: JoinHandle<hyper::Result<()>>) {
    let end = tokio::time::timeout(Duration::from_secs(60), connection);
    let _ = end.await.expect("the connection is told to finish").unwrap();
}

#[tokio::test]
async fn draining_finishes_old_connections_and_takes_new_ones() {
    let mut server = Server::start(small()).await;
    let (_idle, idle_ends) = open_h2::<Pieces>(server.grpc).await;
    let (mut old, old_ends) = open_h2(server.grpc).await;
    let in_flight = half_a_call(&server, &mut old).await;
    server.until("both are open", |stats| stats.connections_open == 2).await;

    server.phase.send_replace(Phase::Draining);
    closes(idle_ends).await;
    let mut new = connect_h2(server.grpc).await;
    let last_spans = half_a_call(&server, &mut new).await;
    assert_eq!(in_flight.finish().await, Code::Ok, "what was in flight is answered");
    closes(old_ends).await;
    assert_eq!(last_spans.finish().await, Code::Ok);
    let late = half_a_call(&server, &mut new).await;

    server.phase.send_replace(Phase::Closed);
    server.until("only the last connection is open", |stats| stats.connections_open == 1).await;
    others_run().await;
    assert!(TcpStream::connect(server.grpc).await.is_err(), "nothing listens any more");
    assert!(!server.task.is_finished(), "a call is in flight");
    assert_eq!(late.finish().await, Code::Ok);
    tokio::time::timeout(Duration::from_secs(5), &mut server.task).await.expect("all is done").unwrap();
    assert_eq!(server.taken().len(), 3);
}

#[tokio::test]
async fn http_connections_close_after_their_answer() {
    let mut server = Server::start(small()).await;
    let request =
        b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(&request[..request.len() - 1]).await.unwrap();
    server.until("it is in flight", |stats| stats.in_flight_bytes > 0).await;
    server.phase.send_replace(Phase::Draining);
    others_run().await;
    stream.write_all(b"}").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");

    // One that came while draining may go on, until accepting ends.
    let mut connection = connect_h1(server.http).await;
    for _ in 0..2 {
        let response = connection.send_request(http_request("/v1/logs", "application/json", b"{}")).await.unwrap();
        assert_eq!(Reply::read(response).await.status, 200);
    }
    server.phase.send_replace(Phase::Closed);
    tokio::time::timeout(Duration::from_secs(5), &mut server.task).await.expect("all is done").unwrap();
    assert_eq!(server.taken().len(), 3);
}

#[tokio::test]
async fn a_connection_that_has_not_spoken_yet_may_still_do_so_while_draining() {
    let server = Server::start(small()).await;
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    server.until("it is open", |stats| stats.connections_open == 1).await;
    server.phase.send_replace(Phase::Draining);
    others_run().await;
    let request = b"POST /v1/traces HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
}

#[tokio::test]
async fn an_owner_that_goes_away_closes_the_receiver() {
    let mut server = Server::start(small()).await;
    let (_idle, ends) = open_h2::<Pieces>(server.grpc).await;
    server.until("it is open", |stats| stats.connections_open == 1).await;
    server.phase = tokio::sync::watch::channel(Phase::Serving).0;
    closes(ends).await;
    tokio::time::timeout(Duration::from_secs(5), &mut server.task).await.expect("all is done").unwrap();
}

#[tokio::test]
async fn giving_up_aborts_what_is_in_flight() {
    let server = Server::start(small()).await;
    let mut connection = connect_h2(server.grpc).await;
    let held = half_a_call(&server, &mut connection).await;
    server.task.abort();
    assert!(held.call.await.unwrap().is_err());
    server.until("nothing is held", |stats| stats.in_flight_bytes == 0 && stats.connections_open == 0).await;
}
