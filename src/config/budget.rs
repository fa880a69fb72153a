//! How the memory budget is divided.
//!
//! | part | of `memory` | at 64 MiB | at 512 MiB |
//! |---|---|---|---|
//! | ring: segments, index, remembered verdicts | 60 % | 38.4 MiB | 307.2 MiB |
//! | request bodies in flight | 15 % | 9.6 MiB | 76.8 MiB |
//! | queues: traces 9 %, metrics 3 %, logs 3 % | 15 % | 9.6 MiB | 76.8 MiB |
//! | series, at 3.3 KB | 5 % | 1,024 | 5,000 |
//! | percentile windows, at 24 KB a dense histogram | 3.1 % | 88 | 709 |
//! | idle buffers of the receiver | 1.5 % | 1 MiB | 7.7 MiB |
//!
//! What the file gives a size keeps it; the other parts are then divided as if the budget were smaller, so
//! that everything fits. The bound on one request follows: half of what may be in flight, at most 20 MiB.
//!
//! Beside the budget: the process itself (about 20 MiB), a batch under way to each sink, and what peers can
//! make connections hold, at most connections × window for each listener. Defaults keep the last below
//! `memory`, and `memory: auto` is half of the limit: the other half is for these.

use crate::measure;

/// Smaller budgets are refused.
pub const MEMORY_MIN: usize = 32 << 20;
/// `memory: auto` takes no more.
pub const MEMORY_AUTO_MAX: usize = 512 << 20;
/// Larger budgets are refused: a shard's ring is addressed with 16 GiB at most.
pub const MEMORY_MAX: usize = 64 << 30;
/// Parts without a size are divided as for a budget of at least so much.
const BASE_MIN: usize = 16 << 20;
/// Bytes of a series in this arithmetic, see [`measure::MeterSettings::for_memory`].
pub const SERIES_BYTES: usize = 3_300;
/// The default bound on one request, where it fits: what the OTLP specification recommends.
const REQUEST_MAX: usize = 20 << 20;

/// What the ring takes of a budget, in thousandths, unless the file says it.
pub const RING_SHARE: usize = 600;

/// A part of the budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum BudgetPart {
    Ring,
    InFlight,
    Pooled,
    QueueTraces,
    QueueMetrics,
    QueueLogs,
    Series,
    Windows,
}

impl BudgetPart {
    pub const ALL: [BudgetPart; 8] = [
        BudgetPart::Ring,
        BudgetPart::InFlight,
        BudgetPart::Pooled,
        BudgetPart::QueueTraces,
        BudgetPart::QueueMetrics,
        BudgetPart::QueueLogs,
        BudgetPart::Series,
        BudgetPart::Windows,
    ];
    pub const QUEUES: [BudgetPart; 3] = [BudgetPart::QueueTraces, BudgetPart::QueueMetrics, BudgetPart::QueueLogs];

    /// As messages name it.
    pub fn word(self) -> &'static str {
        [
            "ring",
            "requests in flight",
            "idle buffers",
            "queued traces",
            "queued metrics",
            "queued logs",
            "series",
            "percentile windows",
        ][self as usize]
    }

    /// Its part of the budget in thousandths. Their sum leaves a few for rounding.
    fn share(self) -> usize {
        [RING_SHARE, 150, 15, 90, 30, 30, 51, 32][self as usize]
    }
}

/// Bytes for each part, or for those that the file gives a size.
pub(super) type Sizes<T> = [T; BudgetPart::ALL.len()];

/// Why a budget cannot be divided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Over {
    /// The bytes of each part, at the least.
    pub parts: Vec<(BudgetPart, usize)>,
    /// A budget that is large enough.
    pub needed: usize,
}

/// Divides `memory` among the parts, of which some have a size already.
pub(super) fn divide(memory: usize, given: &Sizes<Option<usize>>) -> Result<Sizes<usize>, Over> {
    let fixed = given.iter().flatten().fold(0usize, |sum, size| sum.saturating_add(*size));
    let open: usize =
        BudgetPart::ALL.iter().filter(|&&part| given[part as usize].is_none()).map(|part| part.share()).sum();
    let base = match memory.checked_sub(fixed) {
        None => 0,
        Some(_) if open == 0 => memory,
        Some(rest) => memory.min(rest / open * 1000 + rest % open * 1000 / open),
    };
    let sizes = |base: usize| BudgetPart::ALL.map(|part| given[part as usize].unwrap_or_else(|| usual(part, base)));
    if base >= BASE_MIN {
        return Ok(sizes(base));
    }
    let least = sizes(BASE_MIN);
    let needed = fixed.saturating_add(BASE_MIN / 1000 * open).saturating_add(1 << 20);
    Err(Over { parts: BudgetPart::ALL.map(|part| (part, least[part as usize])).into(), needed })
}

/// What a part takes of a budget of `base` bytes.
pub(super) fn usual(part: BudgetPart, base: usize) -> usize {
    let measure = || measure::MeterSettings::for_memory(base);
    match part {
        BudgetPart::Series => measure().series_max * SERIES_BYTES,
        BudgetPart::Windows => measure().pool * measure::HISTOGRAM_BYTES,
        _ => base / 1000 * part.share(),
    }
}

/// The default bound on one request: a body is held twice while it is inflated.
pub(super) fn usual_request(in_flight: usize) -> usize {
    (in_flight / 2).min(REQUEST_MAX)
}

/// Bounds on connections and their window for a budget: by default both listeners together hold less than it. No
/// listener gets more connections than `most`, which is what the system allows.
pub(super) fn usual_connections(memory: usize, given: Option<usize>, most: usize) -> (usize, u32) {
    let connections = given.unwrap_or((memory / (512 << 10)).clamp(128, 1024)).min(most);
    let window = (memory / 2 / connections.max(1)).clamp(64 << 10, 1 << 20);
    (connections, window as u32)
}

/// `1.5GiB`, `307.2MiB`: one digit after the point, rounded up.
pub(super) fn show_size(bytes: usize) -> String {
    let (unit, name) = match bytes {
        0..=0xf_ffff => (1 << 10, "KiB"),
        0x10_0000..=0x3fff_ffff => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    let tenths = (bytes as u128 * 10).div_ceil(unit);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole}{name}"),
        (whole, tenth) => format!("{whole}.{tenth}{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_in_the_documentation_holds() {
        for (memory, ring, in_flight, queue, series, windows) in [
            (64 << 20, "38.4MiB", "9.6MiB", ["5.8MiB", "2MiB", "2MiB"], 1024, 88),
            (512 << 20, "307.2MiB", "76.8MiB", ["46.1MiB", "15.4MiB", "15.4MiB"], 5000, 709),
        ] {
            let sizes = divide(memory, &Sizes::default()).expect("the defaults fit");
            let show = |part: BudgetPart| show_size(sizes[part as usize]);
            assert_eq!((show(BudgetPart::Ring).as_str(), show(BudgetPart::InFlight).as_str()), (ring, in_flight));
            assert_eq!(BudgetPart::QUEUES.map(show), queue);
            assert_eq!(sizes[BudgetPart::Series as usize], series * SERIES_BYTES);
            assert_eq!(sizes[BudgetPart::Windows as usize], windows * measure::HISTOGRAM_BYTES);
        }
    }

    #[test]
    fn the_default_request_is_the_recommended_one_where_it_fits() {
        let request = |memory| usual_request(usual(BudgetPart::InFlight, memory));
        assert_eq!(request(512 << 20), 20 << 20);
        assert!(request(64 << 20) > 4 << 20);
        assert!(request(32 << 20) > 2 << 20);
    }

    #[test]
    fn connections_hold_less_than_the_budget() {
        for memory in [MEMORY_MIN, 64 << 20, 512 << 20, 4 << 30] {
            let (connections, window) = usual_connections(memory, None, usize::MAX);
            assert!(2 * connections * window as usize <= memory, "{memory}: {connections} × {window}");
        }
        assert_eq!(usual_connections(512 << 20, None, usize::MAX), (1024, 256 << 10));
        assert_eq!(usual_connections(512 << 20, Some(100), usize::MAX), (100, 1 << 20));
        assert_eq!(usual_connections(512 << 20, None, 384).0, 384, "descriptors are fewer");
        assert_eq!(usual_connections(512 << 20, Some(4000), 384).0, 384, "and cannot be wished for");
    }

    #[test]
    fn what_has_a_size_keeps_it_and_the_rest_shrinks() {
        let mut given = Sizes::default();
        given[BudgetPart::Ring as usize] = Some(400 << 20);
        let sizes = divide(512 << 20, &given).expect("there is room for the rest");
        assert_eq!(sizes[0], 400 << 20);
        assert!(sizes[1] < usual(BudgetPart::InFlight, 512 << 20) && sizes[1] > 30 << 20, "{sizes:?}");
        given[BudgetPart::Ring as usize] = Some(512 << 20);
        let over = divide(512 << 20, &given).expect_err("no room for the rest");
        assert!(over.needed > 512 << 20 && divide(over.needed, &given).is_ok());
    }

    #[test]
    fn sizes_are_shown_rounded_up() {
        let shown = [1, 1 << 20, 3 << 19, (64 << 20) + 1, 1 << 30, 5 << 29].map(show_size);
        assert_eq!(shown, ["0.1KiB", "1MiB", "1.5MiB", "64.1MiB", "1GiB", "2.5GiB"]);
    }

    proptest! {
        #[test]
        fn what_is_divided_fits(
            memory in MEMORY_MIN..8 << 30,
            given in proptest::collection::vec(proptest::option::of(0..1usize << 30), BudgetPart::ALL.len()),
        ) {
            let given: Sizes<Option<usize>> = given.try_into().expect("one for each part");
            match divide(memory, &given) {
                Ok(sizes) => {
                    prop_assert!(sizes.iter().sum::<usize>() <= memory, "{sizes:?}");
                    for (size, given) in sizes.iter().zip(given) {
                        prop_assert!(given.is_none_or(|given| given == *size));
                    }
                }
                Err(over) => {
                    prop_assert!(over.needed > memory);
                    prop_assert!(divide(over.needed, &given).is_ok());
                }
            }
        }
    }
}
