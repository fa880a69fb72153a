use super::*;
use proptest::prelude::*;

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..1000u64, any::<u64>()]
}

prop_compose! {
    fn entry()(
        standing in prop_oneof![Just(Standing::Entry), Just(Standing::Root)],
        start in time(),
        span_id in any::<u64>(),
        hashes in any::<(u32, u32)>(),
        values in prop_oneof![Just([0; ENTRY_ATTRIBUTES_MAX]), any::<[u32; ENTRY_ATTRIBUTES_MAX]>()],
    ) -> EntrySpan {
        EntrySpan { standing, start, span_id, service_hash: hashes.0, name_hash: hashes.1, values }
    }
}

prop_compose! {
    fn summary()(
        bits in prop::collection::btree_set(0..FACTS_MAX, 0..6),
        entry in prop_oneof![Just(EntrySpan::default()), entry()],
        (start, end, longest_entry, longest_span) in (time(), time(), time(), time()),
        root_duration in time(),
        (spans, errors, bytes) in any::<(u32, u32, u64)>(),
        randomness in prop::option::of(any::<u64>().prop_map(Randomness::from_bits)),
        flags in any::<[bool; 6]>(),
    ) -> Summary {
        let mut facts = Facts::EMPTY;
        bits.into_iter().for_each(|bit| facts.set(bit));
        let [random_flag, root_failed, entry_failed, many_roots, limited, forgotten] = flags;
        let root_duration = if entry.standing == Standing::Root { root_duration } else { 0 };
        Summary {
            facts, entry, start, end, root_duration, longest_entry, longest_span, spans, errors, bytes, randomness,
            random_flag, root_failed, entry_failed, many_roots, limited, forgotten,
        }
    }
}

prop_compose! {
    fn part()(
        id in any::<[u8; 16]>(),
        summary in summary(),
        revision in any::<u32>(),
        (stored_bytes, first_age_ms, last_age_ms, entered) in any::<(u64, u64, u64, u64)>(),
        is_leaving in any::<bool>(),
    ) -> Part {
        let entered_age_ms = if summary.has_entry() { entered } else { 0 };
        Part { id: TraceId(id), revision, summary, stored_bytes, first_age_ms, last_age_ms, entered_age_ms, is_leaving }
    }
}

fn batch() -> impl Strategy<Value = PartBatch> {
    (any::<u64>(), any::<u64>(), prop::collection::vec(part(), 0..5)).prop_map(|(node, questions, parts)| PartBatch {
        node: NodeId(node),
        questions,
        parts,
    })
}

proptest! {
    #[test]
    fn what_is_told_is_what_arrives(batch in batch()) {
        prop_assert_eq!(PartBatch::decode(&batch.encode()), Ok(batch));
    }

    /// What is cut, longer or changed is refused or says something else, and never more than its bytes account for.
    #[test]
    fn bytes_that_are_no_parcel_are_refused(
        batch in batch(),
        cut in any::<prop::sample::Index>(),
        (place, byte) in any::<(prop::sample::Index, u8)>(),
    ) {
        let whole = batch.encode();
        prop_assert_eq!(PartBatch::decode(&whole[..cut.index(whole.len())]), Err(PartBatchError::Malformed));
        prop_assert_eq!(PartBatch::decode(&[whole.as_slice(), &[0]].concat()), Err(PartBatchError::Malformed));
        let mut changed = whole.clone();
        changed[place.index(whole.len())] = byte;
        if let Ok(read) = PartBatch::decode(&changed) {
            prop_assert!(read.parts.len() * PART_BYTES_MIN <= changed.len());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let versioned = [&[VERSION], bytes.as_slice()].concat();
        if let Ok(read) = PartBatch::decode(&versioned) {
            prop_assert!(read.parts.len() * PART_BYTES_MIN <= versioned.len());
        }
    }
}

#[test]
fn another_version_is_named() {
    let error = PartBatch::decode(&[9, 1, 2]).unwrap_err();
    assert_eq!(error, PartBatchError::Version(9));
    assert!(error.to_string().contains("version 9"), "{error}");
    assert_eq!(PartBatch::decode(&[]), Err(PartBatchError::Malformed));
}

/// Two spans at a service that is not the first: what most parts are.
fn ordinary(n: u64) -> Part {
    let start = 1_800_000_000_000_000_000 + n * 10_000_000;
    let entry = EntrySpan { standing: Standing::Entry, start, span_id: u64::MAX, ..EntrySpan::default() };
    let summary = Summary {
        facts: Facts::one(3),
        entry,
        start,
        end: start + 25_000_000,
        longest_entry: 25_000_000,
        longest_span: 25_000_000,
        spans: 2,
        errors: 1,
        bytes: 900,
        ..Summary::default()
    };
    Part {
        id: TraceId([n as u8; 16]),
        revision: 1,
        summary,
        stored_bytes: 1000,
        first_age_ms: 1200,
        last_age_ms: 1100,
        entered_age_ms: 1200,
        is_leaving: false,
    }
}

#[test]
fn an_ordinary_part_takes_some_sixty_bytes() {
    let batch = PartBatch { node: NodeId(7), questions: 9, parts: (0..30).map(ordinary).collect() };
    let bytes = batch.encode().len() / 30;
    assert!(bytes <= 72, "{bytes}");
}
