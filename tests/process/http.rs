//! An HTTP/1.1 client of a few lines: one request a connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A whole reply.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    headers: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.headers.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(key, value)| (key, value.trim())).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }
}

pub fn get(address: SocketAddr, path: &str) -> std::io::Result<Reply> {
    request(address, "GET", path, &[], &[])
}

pub fn post(address: SocketAddr, path: &str, content_type: &str, body: &[u8]) -> Reply {
    request(address, "POST", path, &[("content-type", content_type)], body).expect("the listener answers")
}

pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Reply> {
    let mut stream = begin(address, method, path, headers, body.len())?;
    stream.write_all(body)?;
    read_reply(&mut stream)
}

/// Connects and sends a request's head only.
pub fn begin(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    length: usize,
) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let fields: String = headers.iter().map(|(key, value)| format!("{key}: {value}\r\n")).collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{fields}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

pub fn read_reply(stream: &mut TcpStream) -> std::io::Result<Reply> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| std::io::Error::other("the reply has no head"))?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no status in {head:?}")))?;
    Ok(Reply { status, headers: head, body: bytes[end + 4..].to_vec() })
}
