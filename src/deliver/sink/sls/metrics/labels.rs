//! Names and labels in the alphabet of Prometheus.

use crate::deliver::sink::sls::json::{Text, pair, write_as_text};
use crate::otlp::walk::lossy;
use crate::trace::label::shortened;
use std::collections::BTreeMap;

/// Between a label's name and its value.
const KEY_END: &str = "#$#";

/// Labels by their Prometheus name, sorted.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Attributes whose names become the same are joined by `;`, as OpenTelemetry's mapping to
    /// Prometheus says; of equal names the last counts. None if the values are more than `limit` bytes of text.
    pub(super) fn new<'a>(attributes: impl Iterator<Item = &'a [u8]>, limit: usize) -> Option<Labels> {
        let by_name: BTreeMap<&[u8], &[u8]> = attributes.map(pair).collect();
        let mut labels = BTreeMap::<String, String>::new();
        let mut room = limit;
        for (name, any) in by_name {
            let mut text = Text::new(room);
            write_as_text(&mut text, any);
            let value = text.finish()?;
            room -= value.len();
            let value = label_value(value);
            let name = label_name(&lossy(name));
            labels.entry(name).and_modify(|joined| joined.extend([";", value.as_str()])).or_insert(value);
        }
        Some(Labels(labels))
    }

    /// Of [`Labels::text`], and a separator.
    pub(super) fn written_len(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + KEY_END.len() + value.len() + 1).sum()
    }

    /// With long values cut.
    pub(super) fn shortened(self) -> Labels {
        let cut = |(name, value): (String, String)| (name, shortened(value.into()).into_owned());
        Labels(self.0.into_iter().map(cut).collect())
    }

    /// These and others, which win over them.
    pub(super) fn with(&self, others: Labels) -> Labels {
        let mut all = self.clone();
        all.0.extend(others.0);
        all
    }

    /// `__labels__`, with `le` or `quantile` in its place.
    pub(super) fn text(&self, extra: Option<(&str, &str)>) -> String {
        let mut text = String::with_capacity(self.written_len());
        let mut put = |name: &str, value: &str| {
            if !text.is_empty() {
                text.push('|');
            }
            text.extend([name, KEY_END, value]);
        };
        let mut extra = extra;
        for (name, value) in &self.0 {
            if let Some((first, bound)) = extra.filter(|(extra, _)| *extra <= name.as_str()) {
                put(first, bound);
                extra = None;
                if first == name {
                    continue;
                }
            }
            put(name, value);
        }
        if let Some((last, bound)) = extra {
            put(last, bound);
        }
        text
    }
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`: each other byte becomes `_`, and so does no name at all.
pub(super) fn metric_name(name: &str) -> String {
    let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    let mut kept: String = name.bytes().map(|byte| if is_kept(byte) { char::from(byte) } else { '_' }).collect();
    if kept.is_empty() || kept.starts_with(|first: char| first.is_ascii_digit()) {
        kept.insert(0, '_');
    }
    kept
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, by the exporter's rules: others become `_`, a digit in front gets `key_`,
/// an underscore in front `key`. Without a name it is `key`.
fn label_name(name: &str) -> String {
    let kept: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    match kept.chars().next() {
        Some(first) if first.is_ascii_digit() => format!("key_{kept}"),
        Some('_') => format!("key{kept}"),
        Some(_) => kept,
        None => "key".to_owned(),
    }
}

/// The separators of `__labels__` cannot be escaped; they are replaced.
fn label_value(value: String) -> String {
    if value.contains(['|', '#']) { value.replace('|', "_").replace(KEY_END, "_") } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One log with an empty name would have its whole pack refused.
    #[test]
    fn there_is_always_a_name() {
        assert_eq!((metric_name("").as_str(), label_name("").as_str()), ("_", "key"));
        assert_eq!(
            (metric_name("9.lives:"), label_name("9.lives")),
            ("_9_lives:".to_owned(), "key_9_lives".to_owned())
        );
    }
}
