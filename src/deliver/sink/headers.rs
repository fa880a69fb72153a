//! Headers of a sink's requests. Their values are secrets, and those that a file is part of follow it.

use crate::secret::SecretSource;
use crate::watched_files::{CHECK_EVERY, WatchedFiles};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;

/// As the configuration has them.
#[derive(Clone, Default)]
pub struct SinkHeaders {
    pub fixed: HeaderMap,
    pub renewed: Vec<(HeaderName, SecretSource)>,
}

impl SinkHeaders {
    pub fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.renewed.is_empty()
    }
}

impl fmt::Debug for SinkHeaders {
    /// Names alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.fixed.keys().chain(self.renewed.iter().map(|(name, _)| name))).finish()
    }
}

impl From<HeaderMap> for SinkHeaders {
    fn from(fixed: HeaderMap) -> SinkHeaders {
        SinkHeaders { fixed, renewed: Vec::new() }
    }
}

/// As the next request has them.
pub(super) struct CurrentHeaders {
    fixed: HeaderMap,
    renewed: Vec<(HeaderName, WatchedFiles<HeaderValue>)>,
}

impl CurrentHeaders {
    /// With those of the protocol, which no file renews.
    pub fn new(headers: SinkHeaders, protocol: HeaderMap) -> Result<CurrentHeaders, String> {
        let SinkHeaders { mut fixed, renewed } = headers;
        fixed.values_mut().for_each(|value| value.set_sensitive(true));
        let is_ours = |name: &HeaderName| protocol.contains_key(name);
        let renewed = renewed.into_iter().filter(|(name, _)| !is_ours(name));
        let renewed = renewed.map(|(name, source)| Ok((name.clone(), watch(&name, source)?)));
        let renewed = renewed.collect::<Result<_, String>>()?;
        fixed.extend(protocol);
        Ok(CurrentHeaders { fixed, renewed })
    }

    pub fn get(&self) -> HeaderMap {
        let mut headers = self.fixed.clone();
        headers.extend(self.renewed.iter().map(|(name, value)| (name.clone(), value.get())));
        headers
    }
}

fn watch(name: &HeaderName, source: SecretSource) -> Result<WatchedFiles<HeaderValue>, String> {
    WatchedFiles::start(format!("the header {name} of a sink"), source.files(), CHECK_EVERY, move || {
        let value = HeaderValue::from_str(source.read()?.expose());
        let mut value = value.map_err(|_| "the file has characters that no header has".to_owned())?;
        value.set_sensitive(true);
        Ok(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{FileText, Secret};
    use http::header::{AUTHORIZATION, CONTENT_TYPE};
    use std::fs;

    #[tokio::test(start_paused = true)]
    async fn a_renewed_file_is_in_the_next_request() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "old\n").unwrap();
        let text = FileText { before: Secret::new("Bearer "), file: file.clone(), after: Secret::default() };
        let source = SecretSource { secret: Secret::new("Bearer old"), file: Some(text) };
        let fixed = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("x"))]);
        let ours = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("ours"))]);
        let renewed = vec![(AUTHORIZATION, source.clone()), (CONTENT_TYPE, source)];
        let headers = CurrentHeaders::new(SinkHeaders { fixed, renewed }, ours).unwrap();
        assert_eq!(
            (&headers.get()[AUTHORIZATION], &headers.get()[CONTENT_TYPE]),
            (&"Bearer old".parse().unwrap(), &"ours".parse().unwrap())
        );
        for (written, sent) in
            [("renewed", "Bearer renewed"), ("two\nlines", "Bearer renewed"), ("next", "Bearer next")]
        {
            fs::write(&file, written).unwrap();
            tokio::time::advance(CHECK_EVERY).await;
            let value = headers.get().remove(AUTHORIZATION).unwrap();
            assert!(value == sent && value.is_sensitive(), "{written}");
        }
    }
}
