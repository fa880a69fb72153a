//! The receiver over real sockets: every encoding, every limit, every kind of bad peer.

#[path = "receive/harness.rs"]
mod harness;

#[path = "receive/authentication.rs"]
mod authentication;
#[path = "receive/drain.rs"]
mod drain;
#[path = "receive/grpc.rs"]
mod grpc;
#[path = "receive/http.rs"]
mod http_port;
#[path = "receive/json_cases.rs"]
mod json_cases;
#[path = "receive/peers.rs"]
mod peers;
#[path = "receive/tls.rs"]
mod tls;
