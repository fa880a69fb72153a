//! What others do to a listener, and whether a probe is answered meanwhile.

use super::connections::{ANSWER_TIME, CONNECTIONS, Connections};
use super::page::{PAGES, Pages};
use super::plan::BODY_TIME;
use super::route::Router;
use super::*;
use crate::prometheus::PageReader;
use crate::secret::{Secret, SecretSource};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Semaphore;
use tokio::time::{Instant, advance, sleep, timeout};

const LINE: &str = "tailkeep_spans_received_total 1\n";
const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Its page of metrics is longer than what waits between us and a reader.
#[derive(Default)]
struct Api {
    pages: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
    /// The maker of the first page waits here twice.
    making: Option<Barrier>,
    plan_turns: OnceLock<Arc<Semaphore>>,
}

impl AdminApi for Api {
    fn is_ready(&self) -> bool {
        true
    }

    fn metrics(&self, _: PageReader, out: &mut dyn fmt::Write) -> fmt::Result {
        let made_before = self.pages.fetch_add(1, Relaxed);
        if let Some(barrier) = self.making.as_ref().filter(|_| made_before == 0) {
            barrier.wait();
            barrier.wait();
        }
        (0..(1 << 20) / LINE.len()).try_for_each(|_| out.write_str(LINE))
    }

    fn policy(&self) -> String {
        "{}".into()
    }

    fn former_policy(&self) -> Option<String> {
        None
    }

    fn restore_policy(&self) -> Option<String> {
        Some("{}".into())
    }

    fn take_plan_turn(&self) -> Option<PlanTurn> {
        self.plan_turns.get_or_init(|| Arc::new(Semaphore::new(1))).clone().try_acquire_owned().ok()
    }

    fn plan(&self, _: PlanTurn, request: &PlanRequest) -> Result<String, String> {
        Ok(request.new.text.clone())
    }

    fn traffic(&self, _: PlanTurn) -> String {
        "{}".into()
    }

    fn why(&self, _: TraceId) -> Answer {
        Answer::default()
    }

    fn trace(&self, _: TraceId, give: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        // Resources that differ, so that each is written: by `schema_url`.
        (0..20).try_for_each(|_| give(&[&[0x0a, 0, 0x0a, 3, 0x1a, 1, b'u'][..]; 10_000].concat())).map(|()| true)
    }

    fn keep(&self, _: TraceId) -> bool {
        true
    }

    fn count_closed(&self, why: CloseReason) {
        self.closed[why as usize].fetch_add(1, Relaxed);
    }
}

fn listener(api: &Arc<Api>, audience: Audience) -> Arc<Router> {
    Arc::new(Router::new(audience, api.clone()))
}

/// A listener, and connections to it through so many bytes.
struct TestListener {
    api: Arc<Api>,
    connections: Connections,
    listener: Arc<Router>,
}

impl TestListener {
    fn new(audience: Audience) -> TestListener {
        let api = Arc::new(Api::default());
        TestListener { connections: Connections::new(api.clone()), listener: listener(&api, audience), api }
    }

    async fn connect(&mut self, said: &str) -> DuplexStream {
        let (mut near, far) = duplex(1 << 10);
        near.write_all(said.as_bytes()).await.unwrap();
        self.connections.open(ready(Some(far)), self.listener.clone()).await;
        near
    }

    fn closed(&self, why: CloseReason) -> u64 {
        self.api.closed[why as usize].load(Relaxed)
    }

    /// Asks as a probe does; no time may pass until it has its answer.
    async fn assert_probe_is_answered(&mut self) {
        let asked = Instant::now();
        let mut probe = self.connect("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let mut reply = String::new();
        probe.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("ok\n"), "{reply:?}");
        assert!(asked.elapsed() < Duration::from_millis(10), "it took {:?}", asked.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn silent_connections_keep_no_probe_out() {
    for said in ["", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nhost: x\r\nx-more: "] {
        let mut server = TestListener::new(Audience::Health);
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            silent.push(server.connect(said).await);
            // So that it is known which of them is silent longest.
            sleep(Duration::from_millis(1)).await;
        }
        server.assert_probe_is_answered().await;
        assert_eq!(server.closed(CloseReason::ForAnother), CONNECTIONS as u64 + 1, "no more than had to");
        let mut byte = [0];
        let end = timeout(Duration::from_millis(1), silent[0].read(&mut byte)).await;
        assert_eq!(end.expect("it is closed already").unwrap_or(0), 0, "the first went first");
    }
}

#[tokio::test(start_paused = true)]
async fn readers_that_do_not_read_share_a_page_keep_no_probe_out_and_are_cut_off() {
    let mut server = TestListener::new(Audience::Health);
    let mut readers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut reader = server.connect("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut status = [0; 12];
        reader.read_exact(&mut status).await.unwrap();
        readers.push(reader);
    }
    assert_eq!(server.api.pages.load(Relaxed), PAGES as u64, "pages in memory");
    server.assert_probe_is_answered().await;
    // Whoever takes a little all the time is no better.
    let mut pieces = 0;
    while server.closed(CloseReason::TooSlow) < CONNECTIONS as u64 - 1 {
        sleep(ANSWER_TIME / 10).await;
        let _ = readers[1].read(&mut [0; 512]).await;
        pieces += 1;
        assert!(pieces < 20, "{} cut off after {pieces} tenths", server.closed(CloseReason::TooSlow));
    }
    assert!(pieces >= 10, "after {pieces} tenths of the time");
    server.assert_probe_is_answered().await;
}

#[tokio::test(start_paused = true)]
async fn a_trace_may_be_read_for_longer_than_a_page() {
    let mut server = TestListener::new(Audience::Admin { token: None });
    let request = format!("GET /traces/{ID} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut reader = server.connect(&request).await;
    let (began, mut read, mut part) = (Instant::now(), 0, vec![0; 16 << 10]);
    loop {
        let taken = reader.read(&mut part).await.unwrap();
        read += taken;
        if taken == 0 {
            break;
        }
        if read % (64 << 10) < taken {
            // Not by sleeping: simulated time stands still while the trace's thread works.
            advance(ANSWER_TIME / 10).await;
        }
    }
    assert!(read > 1 << 20 && began.elapsed() > ANSWER_TIME, "{read} bytes in {:?}", began.elapsed());
    assert_eq!(server.closed(CloseReason::TooSlow), 0);
}

/// A body of which nothing comes.
struct Stalled;

impl Body for Stalled {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<bytes::Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn of_all_who_ask_for_a_plan_one_body_is_held_and_not_for_long() {
    let api = Arc::new(Api::default());
    let listener = listener(&api, Audience::Admin { token: None });
    fn post<B>(body: B) -> Request<B> {
        Request::post("/policy/plan").header("host", "localhost").body(body).unwrap()
    }
    let text = || http_body_util::Full::new(bytes::Bytes::from_static(b"a policy"));
    let began = Instant::now();
    let stalled = tokio::spawn({
        let listener = listener.clone();
        async move { listener.answer(post(Stalled)).await.status() }
    });
    tokio::task::yield_now().await;
    for _ in 0..3 {
        assert_eq!(listener.answer(post(text())).await.status(), StatusCode::CONFLICT);
    }
    assert_eq!(ask(&listener, Method::GET, "/policy/traffic", &[("host", "localhost")]).await.0, StatusCode::CONFLICT);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(stalled.await.unwrap(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(began.elapsed().as_secs(), BODY_TIME.as_secs());
    let planned = listener.answer(post(text())).await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(planned, "a policy");
}

#[tokio::test]
async fn whoever_asks_while_a_page_is_made_shares_the_next_one() {
    let api = Arc::new(Api { making: Some(Barrier::new(2)), ..Api::default() });
    let pages = Arc::new(Pages::new(api.clone()));
    let ask = || {
        tokio::spawn({
            let pages = pages.clone();
            async move { pages.get(PageReader::Scraper).await.unwrap() }
        })
    };
    let wait = || {
        tokio::task::spawn_blocking({
            let api = api.clone();
            move || api.making.as_ref().unwrap().wait().is_leader()
        })
    };
    let first = ask();
    wait().await.unwrap();
    // The first page may have been written past what they ask for.
    let later: Vec<_> = (0..20).map(|_| ask()).collect();
    tokio::task::yield_now().await;
    wait().await.unwrap();
    // Read to its end: so it is not for want of room that a page is shared.
    drop(first.await.unwrap());
    let mut pages = Vec::new();
    for page in later {
        pages.push(page.await.unwrap());
    }
    assert_eq!(api.pages.load(Relaxed), 2);
}

#[tokio::test]
async fn a_page_is_made_anew_but_where_two_are_being_read() {
    let api = Arc::new(Api::default());
    let pages = Pages::new(api.clone());
    let first = pages.get(PageReader::Scraper).await.unwrap();
    let second = pages.get(PageReader::Scraper).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&pages.get(PageReader::Scraper).await.unwrap(), &second), "the newest of them");
    drop(first);
    assert!(!Arc::ptr_eq(&pages.get(PageReader::Scraper).await.unwrap(), &second));
}

#[tokio::test]
async fn scrapers_share_no_page_with_persons() {
    let pages = Pages::new(Arc::new(Api::default()));
    let (scraped, seen) = (pages.get(PageReader::Scraper).await, pages.get(PageReader::Person).await);
    assert!(!Arc::ptr_eq(&scraped.unwrap(), &seen.unwrap()));
    let of = |name: &'static str, value: &'static str| {
        PageReader::of(&http::HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())]))
    };
    for scraper in [
        ("x-prometheus-scrape-timeout-seconds", "10"),
        ("accept", "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
        ("accept", "text/plain; version=0.0.4"),
    ] {
        assert_eq!(of(scraper.0, scraper.1), PageReader::Scraper, "{scraper:?}");
    }
    for person in [("accept", "*/*"), ("accept", "text/html,application/xhtml+xml"), ("user-agent", "curl/8.14.1")] {
        assert_eq!(of(person.0, person.1), PageReader::Person, "{person:?}");
    }
}

fn token(text: &str) -> Arc<Credential> {
    let source = SecretSource { secret: Secret::new(text), file: None };
    Arc::new(Credential::bearer("admin.token", &source).unwrap())
}

/// Bodies that an answer has: whole ones, so that their length is known beforehand.
async fn ask(
    listener: &Router,
    method: Method,
    uri: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, Option<u64>, String) {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = listener.answer(request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap()).await;
    let (status, length) = (reply.status(), reply.body().size_hint().exact());
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (status, length, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn head_is_answered_like_get_wherever_get_is() {
    let api = Arc::new(Api::default());
    let local = [("host", "localhost")];
    let id = |place: &str| format!("/{place}/{ID}");
    for (audience, paths) in [
        (Audience::Health, vec!["/healthz".to_owned(), "/readyz".into(), "/metrics".into(), "/".into()]),
        (Audience::Admin { token: None }, vec!["/policy".into(), id("why"), id("traces"), id("keep"), "/why/x".into()]),
    ] {
        let listener = listener(&api, audience);
        for path in paths {
            let get = ask(&listener, Method::GET, &path, &local).await;
            assert_eq!(ask(&listener, Method::HEAD, &path, &local).await, get, "{path}");
            let is_keep = path.starts_with("/keep");
            assert_eq!(get.0 == StatusCode::METHOD_NOT_ALLOWED, is_keep, "{path}");
            if get.0 == StatusCode::OK && !path.starts_with("/traces") {
                assert_eq!(get.1, Some(get.2.len() as u64), "{path} says how long it is");
                assert_eq!(ask(&listener, Method::DELETE, &path, &local).await.0, StatusCode::METHOD_NOT_ALLOWED);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_by_head_gets_no_body() {
    let mut server = TestListener::new(Audience::Health);
    for request in ["HEAD /readyz HTTP/1.0\r\n\r\n", "HEAD /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"] {
        let mut reply = String::new();
        server.connect(request).await.read_to_string(&mut reply).await.unwrap();
        assert!(reply.contains(" 200 OK\r\n") && reply.contains("content-length: "), "{reply:?}");
        assert!(reply.ends_with("\r\n\r\n"), "{reply:?}");
    }
}

#[tokio::test]
async fn what_is_no_path_is_refused() {
    let api = Arc::new(Api::default());
    let guarded = Audience::Admin { token: Some(token("t")) };
    for audience in [Audience::Health, Audience::Admin { token: None }, guarded] {
        let listener = listener(&api, audience);
        for (method, uri) in [(Method::CONNECT, "localhost:80"), (Method::GET, "policy"), (Method::OPTIONS, "*")] {
            let headers = [("host", "localhost"), ("authorization", "Bearer t")];
            let status = ask(&listener, method, uri, &headers).await.0;
            assert!(status.is_client_error(), "{uri}: {status}");
        }
    }
}

#[tokio::test]
async fn without_a_token_only_this_host_is_answered() {
    let api = Arc::new(Api::default());
    let (open, guarded) = (Audience::Admin { token: None }, Audience::Admin { token: Some(token("s3cret")) });
    let (open, guarded) = (listener(&api, open), listener(&api, guarded));
    for (host, is_this_one) in [
        ("localhost", true),
        ("LocalHost:13134", true),
        ("127.0.0.1:13134", true),
        ("127.8.9.10", true),
        ("[::1]:8080", true),
        ("[::1]", true),
        ("evil.example", false),
        ("localhost.evil.example:13134", false),
        ("127.0.0.1.evil.example", false),
        ("10.0.0.1", false),
        ("[::2]", false),
        ("127.0.0.1@evil.example", false),
        ("", false),
        ("a b", false),
    ] {
        let expected = if is_this_one { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(ask(&open, Method::GET, "/policy", &[("host", host)]).await.0, expected, "{host:?}");
        let both = [("host", "localhost"), ("host", host)];
        assert_eq!(ask(&open, Method::GET, "/policy", &both).await.0, expected, "beside another, {host:?}");
        let headers = [("host", host), ("authorization", "bearer s3cret")];
        assert_eq!(ask(&guarded, Method::GET, "/policy", &headers).await.0, StatusCode::OK, "{host:?} with a token");
    }
    assert_eq!(ask(&open, Method::GET, "/policy", &[]).await.0, StatusCode::FORBIDDEN);
    let absolute = ask(&open, Method::GET, "http://evil.example/policy", &[("host", "localhost")]).await.0;
    assert_eq!(absolute, StatusCode::FORBIDDEN, "the target's own name counts too");
    for wrong in ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret0", "Bearer S3cret", "Basic s3cret", "s3cret"]
    {
        let headers = [("host", "localhost"), ("authorization", wrong)];
        assert_eq!(ask(&guarded, Method::GET, "/policy", &headers).await.0, StatusCode::UNAUTHORIZED, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_page_in_a_browser_may_not_ask() {
    let api = Arc::new(Api::default());
    let listener = listener(&api, Audience::Admin { token: None });
    let origin = header::ORIGIN.as_str();
    for (header, value, is_answered) in [
        (origin, "http://localhost:13134", true),
        (origin, "http://evil.example", false),
        (origin, "http://localhost:3000", false),
        (origin, "http://127.0.0.1:13134", false),
        (origin, "null", false),
        (origin, "", false),
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "none", true),
        ("sec-fetch-site", "same-site", false),
        ("sec-fetch-site", "cross-site", false),
        ("sec-fetch-site", "", false),
    ] {
        let headers = [("host", "localhost:13134"), (header, value)];
        for (method, path) in [(Method::POST, "keep"), (Method::GET, "why"), (Method::HEAD, "traces")] {
            let status = ask(&listener, method, &format!("/{path}/{ID}"), &headers).await.0;
            let expected = if is_answered { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(status, expected, "{path} with {header}: {value:?}");
        }
    }
}
