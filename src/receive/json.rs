//! OTLP/JSON of a request becomes protobuf; from there on there is one path.

use super::admission::Buffer;
use super::refusal::Refusal;
use crate::otlp::json::{Output, Unread, read};
use crate::trace::Signal;

/// The `Export…ServiceRequest` that `json` says, appended to `out`, which is charged as it grows.
pub(super) fn to_protobuf(signal: Signal, json: &[u8], out: Buffer) -> Result<Buffer, Refusal> {
    read(signal, json, out).map_err(|unread| match unread {
        Unread::Full(refusal) => refusal,
        Unread::Json(error) => Refusal::Malformed(format!("the body is not OTLP/JSON: {error}")),
    })
}

impl Output for Buffer {
    type Full = Refusal;

    fn append(&mut self, more: &[u8]) -> Result<(), Refusal> {
        Buffer::append(self, more)
    }

    fn written(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::admission::Admission;

    const MAX: usize = 1 << 20;

    #[test]
    fn the_output_is_charged_and_bounded() {
        let convert = |signal, json: &str| {
            let admission = Admission::new(MAX, 2 * MAX, 0);
            let converted = to_protobuf(signal, json.as_bytes(), admission.admit(0).unwrap()).map(|out| out.len());
            assert_eq!(admission.held(), 0);
            converted
        };
        let bounds = "1,".repeat(MAX / 4);
        let json = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[
            {{"explicitBounds":[{bounds}1]}}]}}}}]}}]}}]}}"#
        );
        let too_large = Err(Refusal::TooLarge { limit: MAX });
        assert_eq!(convert(Signal::Metrics, &json), too_large, "eight bytes for each two");
        let Err(Refusal::Malformed(error)) = convert(Signal::Traces, "[]") else { panic!("a list is malformed") };
        assert!(error.starts_with("the body is not OTLP/JSON: invalid type: sequence, expected an object"), "{error}");

        let admission = Admission::new(MAX, MAX + 100, 0);
        let mut other = admission.admit(MAX).unwrap();
        other.make_room(MAX).unwrap();
        let json = format!(r#"{{"resourceSpans":[{{"schemaUrl":"{}"}}]}}"#, "a".repeat(5000));
        let refused = to_protobuf(Signal::Traces, json.as_bytes(), admission.admit(0).unwrap()).map(|_| ());
        assert_eq!(refused, Err(Refusal::Busy { limit: MAX + 100 }));
    }
}
