//! Text that must never be shown.

use std::fmt;

/// A key, a token or a URL that holds one. It has no `Display`, and `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Box<str>);

impl Secret {
    pub fn new(text: impl Into<Box<str>>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for a signature or a request; never for a log line or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_not_even_the_length() {
        assert_eq!(format!("{:?}", Secret::new("swordfish")), format!("{:?}", Secret::new("")));
        assert!(!format!("{:#?}", Some(Secret::new("swordfish"))).contains("sword"));
    }
}
