//! What a connection speaks, by its first bytes.

/// What the first bytes of a connection are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ClientProtocol {
    Nothing,
    Tls,
    Http1,
    Http2,
    Other,
}

impl ClientProtocol {
    pub const ALL: [ClientProtocol; 5] = [
        ClientProtocol::Nothing,
        ClientProtocol::Tls,
        ClientProtocol::Http1,
        ClientProtocol::Http2,
        ClientProtocol::Other,
    ];

    /// From the first bytes that were read.
    pub fn of(bytes: &[u8]) -> ClientProtocol {
        match bytes {
            [] => ClientProtocol::Nothing,
            // A TLS record with a handshake message.
            [0x16, ..] => ClientProtocol::Tls,
            [b'P', b'R', b'I', ..] => ClientProtocol::Http2,
            [b'A'..=b'Z', ..] => ClientProtocol::Http1,
            _ => ClientProtocol::Other,
        }
    }
}
