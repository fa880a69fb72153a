//! What a connection speaks, by its first bytes.

/// What the first bytes of a connection are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Spoken {
    Nothing,
    Tls,
    Http1,
    Http2,
    Other,
}

impl Spoken {
    pub const ALL: [Spoken; 5] = [Spoken::Nothing, Spoken::Tls, Spoken::Http1, Spoken::Http2, Spoken::Other];

    /// From the first bytes that were read.
    pub fn of(bytes: &[u8]) -> Spoken {
        match bytes {
            [] => Spoken::Nothing,
            // A TLS record with a handshake message.
            [0x16, ..] => Spoken::Tls,
            [b'P', b'R', b'I', ..] => Spoken::Http2,
            [b'A'..=b'Z', ..] => Spoken::Http1,
            _ => Spoken::Other,
        }
    }
}
