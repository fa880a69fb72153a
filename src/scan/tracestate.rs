//! The W3C tracestate of a span and its OpenTelemetry member `ot=th:…;rv:…`.
//! Sources: W3C Trace Context, section 3.3; OpenTelemetry specification, "TraceState handling".

use crate::trace::{Randomness, Threshold};

/// A tracestate has at most this many members; the rightmost is the first to go.
const MEMBERS_MAX: usize = 32;

/// The list members, as key and value, without surrounding spaces.
pub fn members(state: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    state.split(|&c| c == b',').filter_map(|member| {
        let member = member.trim_ascii();
        let equals = member.iter().position(|&c| c == b'=')?;
        Some((&member[..equals], &member[equals + 1..]))
    })
}

/// What the `ot` member says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampling {
    pub threshold: Option<Threshold>,
    pub randomness: Option<Randomness>,
}

impl Sampling {
    /// Reads a whole tracestate; fields that do not parse count as absent.
    pub fn read(state: &[u8]) -> Sampling {
        let mut sampling = Sampling::default();
        if let Some((_, value)) = members(state).find(|(key, _)| *key == b"ot") {
            for field in value.split(|&c| c == b';') {
                if let Some(digits) = field.strip_prefix(b"th:") {
                    sampling.threshold = Threshold::parse(digits);
                } else if let Some(digits) = field.strip_prefix(b"rv:") {
                    sampling.randomness = Randomness::parse(digits);
                }
            }
        }
        sampling
    }
}

/// The weight that a kept span shall carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    /// None: the probability is not known, and any `th` is erased.
    pub threshold: Option<Threshold>,
    /// Written as `rv`: the trace's randomness is not in its id.
    pub randomness: Option<Randomness>,
}

/// The tracestate with the weight in it; none when it may stay as it is. The threshold is the
/// larger of the weight's and the span's own. All other members and fields stay.
pub fn rewrite(state: &[u8], weight: Weight) -> Option<Vec<u8>> {
    let own = Sampling::read(state);
    let threshold = weight.threshold.map(|rule| own.threshold.map_or(rule, |th| rule.max(th)));
    if threshold == own.threshold && (weight.randomness.is_none() || own.randomness.is_some()) {
        return None;
    }
    let old = members(state).find(|(key, _)| *key == b"ot").map(|(_, value)| value);
    let fresh = ot_value(old.unwrap_or_default(), threshold, weight.randomness.filter(|_| own.randomness.is_none()));
    let ot = (!fresh.is_empty()).then(|| [b"ot=".as_slice(), &fresh].concat());
    let others = members(state).filter(|(key, _)| *key != b"ot").map(|(key, value)| [key, b"=", value].concat());
    // A changed member moves to the front, as the W3C recommendation asks.
    let list: Vec<Vec<u8>> = ot.into_iter().chain(others).take(MEMBERS_MAX).collect();
    Some(list.join(&b','))
}

fn ot_value(old: &[u8], threshold: Option<Threshold>, randomness: Option<Randomness>) -> Vec<u8> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    fields.extend(threshold.map(|th| format!("th:{th}").into_bytes()));
    fields.extend(randomness.map(|rv| format!("rv:{rv}").into_bytes()));
    let stays = |field: &&[u8]| !field.is_empty() && !field.starts_with(b"th:");
    fields.extend(old.split(|&c| c == b';').filter(stays).map(<[u8]>::to_vec));
    fields.join(&b';')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(state: &str, th: Option<f64>) -> String {
        let weight = Weight { threshold: th.map(Threshold::from_share), randomness: None };
        rewrite(state.as_bytes(), weight)
            .map_or_else(|| state.to_owned(), |state| String::from_utf8(state).expect("ascii"))
    }

    #[test]
    fn the_weight_goes_into_the_ot_member_and_the_rest_stays() {
        assert_eq!(written("", Some(1.0)), "ot=th:0");
        assert_eq!(written("a=1,b=2", Some(0.5)), "ot=th:8,a=1,b=2");
        assert_eq!(written("a=1,ot=rv:00000000000001;x:y,b=2", Some(0.5)), "ot=th:8;rv:00000000000001;x:y,a=1,b=2");
        assert_eq!(written("ot=th:c", Some(0.5)), "ot=th:c", "the span's own threshold is larger");
        assert_eq!(written("ot=th:8", Some(0.25)), "ot=th:c");
        assert_eq!(written("z=1,ot=th:8", Some(0.5)), "z=1,ot=th:8", "nothing to change");
    }

    #[test]
    fn an_unknown_probability_erases_the_weight() {
        assert_eq!(written("", None), "");
        assert_eq!(written("ot=th:8", None), "");
        assert_eq!(written("ot=th:8;rv:00000000000001,a=1", None), "ot=rv:00000000000001,a=1");
    }

    #[test]
    fn a_full_list_loses_its_last_member() {
        let full: Vec<String> = (0..32).map(|n| format!("k{n}=v")).collect();
        let state = written(&full.join(","), Some(1.0));
        assert_eq!(state.split(',').count(), 32);
        assert!(state.starts_with("ot=th:0,k0=v") && state.ends_with("k30=v"));
    }

    #[test]
    fn a_randomness_that_is_not_in_the_id_is_written_once() {
        let weight = Weight { threshold: Some(Threshold::ALL), randomness: Some(Randomness::from_bits(0xabc)) };
        assert_eq!(rewrite(b"", weight).unwrap(), b"ot=th:0;rv:00000000000abc");
        assert_eq!(rewrite(b"ot=th:0;rv:00000000000abc", weight), None);
    }
}
