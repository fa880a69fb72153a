//! Patterns, slowly and plainly: for explaining and for comparing rules. (Scan has a fast way.)

use crate::trace::question::Pattern;

/// True if `pattern` matches `text`.
pub(super) fn holds(pattern: &Pattern, text: &[u8]) -> bool {
    match pattern {
        Pattern::Exact(exact) => exact.as_bytes() == text,
        Pattern::Glob(glob) => glob_holds(glob.as_bytes(), text),
        Pattern::Regex(regex) => regex.is_match(text),
    }
}

/// The pieces between the stars, found from left to right; the first and the last are anchored.
fn glob_holds(glob: &[u8], text: &[u8]) -> bool {
    let pieces: Vec<&[u8]> = glob.split(|c| *c == b'*').collect();
    let [first, middle @ .., last] = pieces.as_slice() else { return glob == text };
    let Some(mut rest) = text.strip_prefix(*first).and_then(|rest| rest.strip_suffix(*last)) else { return false };
    for piece in middle.iter().filter(|piece| !piece.is_empty()) {
        let Some(at) = rest.windows(piece.len()).position(|window| window == *piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

/// True if whatever one of `narrow` matches, one of `wide` matches too, as far as this is easily seen.
pub(super) fn covers(wide: &[Pattern], narrow: &[Pattern]) -> bool {
    narrow.iter().all(|narrow| wide.iter().any(|wide| covers_one(wide, narrow)))
}

pub(super) fn covers_one(wide: &Pattern, narrow: &Pattern) -> bool {
    match narrow {
        Pattern::Exact(text) => holds(wide, text.as_bytes()),
        _ => wide == narrow || matches!(wide, Pattern::Glob(_)) && is_any(wide),
    }
}

/// True if it matches every text, as far as this is easily seen.
pub(super) fn is_any(pattern: &Pattern) -> bool {
    match pattern {
        Pattern::Exact(_) => false,
        Pattern::Glob(glob) => glob.bytes().all(|c| c == b'*'),
        // Texts that have nothing in common.
        Pattern::Regex(regex) => ["a", "GET /é", "7-_"].iter().all(|text| regex.is_match(text.as_bytes())),
    }
}

/// As a policy writes it.
pub(super) fn written(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Exact(text) | Pattern::Glob(text) => text.clone(),
        Pattern::Regex(regex) => format!("matches: {regex}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything_also_slashes_and_nothing() {
        let holds = |glob: &str, text: &str| holds(&Pattern::Glob(glob.into()), text.as_bytes());
        for (glob, text) in [("*", ""), ("*", "a/b"), ("a*", "a"), ("*a", "ba"), ("a*c*e", "abcde"), ("a**b", "a/b")] {
            assert!(holds(glob, text), "{glob} {text}");
        }
        for (glob, text) in [("a*", "ba"), ("a*a", "a"), ("*b*b*", "abc"), ("ab*bc", "abc"), ("a*b", "A/b")] {
            assert!(!holds(glob, text), "{glob} {text}");
        }
    }

    #[test]
    fn what_matches_anything_is_seen() {
        let regex = |text: &str| Pattern::Regex(regex::bytes::Regex::new(text).expect("an expression"));
        for pattern in [Pattern::Glob("*".into()), Pattern::Glob("**".into()), regex(".*"), regex("^.+$"), regex("")] {
            assert!(is_any(&pattern), "{pattern:?}");
        }
        for pattern in [Pattern::Exact("*".into()), Pattern::Glob("a*".into()), regex("^$"), regex("[a-z]"), regex("7")]
        {
            assert!(!is_any(&pattern), "{pattern:?}");
        }
    }

    #[test]
    fn a_glob_covers_the_texts_it_matches() {
        let (glob, exact) = (Pattern::Glob("GET /a*".into()), |text: &str| Pattern::Exact(text.into()));
        let wide = std::slice::from_ref(&glob);
        assert!(covers(wide, &[exact("GET /a"), exact("GET /ab")]));
        assert!(!covers(wide, &[exact("GET /a"), exact("GET /b")]));
        assert!(covers(&[Pattern::Glob("*".into())], wide));
    }
}
