//! No conversion does more than a few visits of each field, whatever shape a request has.

use super::{
    TimeUnit,
    encode::{Pack, PackLimits},
    logs, metrics,
    time::ServiceTime,
    traces,
};
use crate::otlp::{
    walk::Place,
    wire::{put_bytes, work},
};

const NOW: ServiceTime = ServiceTime(1_795_428_000_123_456_789);
const MANY: usize = 4000;

fn field(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, number, payload);
    out
}

/// All packs of a request, one after the other as a sink makes them.
fn packed(body: &[u8], pack: impl Fn(&[u8], Place) -> (Pack, Place)) -> u64 {
    let (before, mut place) = (work::done(), Place::default());
    while let (packed, next) = pack(body, place)
        && packed.items() > 0
    {
        place = next;
    }
    work::done() - before
}

#[test]
fn what_is_around_items_is_read_once() {
    let limits = PackLimits { items: 500, ..PackLimits::default() };
    let scope = |items: Vec<u8>| field(1, &field(2, &[field(1, &field(1, b"scope")), items].concat()));
    let histogram = |points: usize| field(2, &field(9, &[field(1, b"").repeat(points), vec![0x10, 2]].concat()));
    let logs_of = |body: &[u8]| packed(body, |body, from| logs::pack(body, from, &limits, NOW));
    let spans_of =
        |body: &[u8]| packed(body, |body, from| traces::pack(body, from, &limits, NOW, TimeUnit::Nanoseconds));
    let points_of = |body: &[u8]| packed(body, |body, from| metrics::pack(body, from, &limits, NOW));
    let visits = [
        ("spans of one scope", spans_of(&scope(field(2, b"").repeat(MANY)))),
        ("records of one scope", logs_of(&scope(field(2, b"").repeat(MANY)))),
        ("points of one histogram", points_of(&scope(histogram(MANY)))),
        ("metrics of one point", points_of(&scope(histogram(1).repeat(MANY)))),
        ("a scope for each span", spans_of(&scope(field(2, b"")).repeat(MANY))),
    ];
    for (what, visits) in visits {
        assert!((MANY as u64..80 * MANY as u64).contains(&visits), "{what}: {visits} visits");
    }
}

/// Each log has its resource in it.
#[test]
fn a_large_resource_does_not_leave_with_each_item_of_it() {
    let attribute =
        |key: &str, value: &[u8]| field(1, &[field(1, key.as_bytes()), field(2, &field(1, value))].concat());
    let large = attribute("process.command_line", &vec![b'x'; 500_000]);
    let attributes = [large, attribute("k8s.pod.name", b"shop-0"), attribute("service.name", &vec![b's'; 500_000])];
    let body = |item: &[u8]| field(1, &[field(1, &attributes.concat()), field(2, &item.repeat(100))].concat());
    let limits = PackLimits::default();
    let (spans, _) = traces::pack(&body(&field(2, b"")), Place::default(), &limits, NOW, TimeUnit::Nanoseconds);
    let (points, _) = metrics::pack(
        &body(&field(2, &field(5, &field(1, &[0x21, 0, 0, 0, 0, 0, 0, 0, 0])))),
        Place::default(),
        &limits,
        NOW,
    );
    for (pack, keys) in [(spans, ["left_out\":\"1\"", "shop-0"]), (points, ["process_command_line#$#xxx", "shop-0"])] {
        assert_eq!((pack.items(), pack.refused()), (100, 0));
        let written = pack.finish("topic", "source", "id");
        assert!(written.len() < 200_000, "{} bytes", written.len());
        for key in keys {
            assert_eq!(memchr::memmem::find_iter(&written, key).count(), 100, "{key}");
        }
    }
}

/// Each log has its scope in it, and the resource as it is written.
#[test]
fn what_all_logs_of_a_scope_share_is_bounded_as_it_is_written() {
    let attribute = |key: &str, value: &[u8]| {
        let any = field(2, &field(5, &field(1, &field(1, value))));
        field(1, &[field(1, key.as_bytes()), any].concat())
    };
    // In a list in a text of an object, a control character takes seven bytes.
    let resource = [attribute("escaped", &[1; 60_000]), attribute("short", b"kept")].concat();
    let scope = field(1, &[field(1, &[b's'; 200_000]), field(2, &[b'v'; 200_000])].concat());
    let body = |items: Vec<u8>| field(1, &[field(1, &resource), field(2, &[scope.clone(), items].concat())].concat());
    let body = body(field(2, b"").repeat(300));
    let limits = PackLimits::default();
    let (spans, _) = traces::pack(&body, Place::default(), &limits, NOW, TimeUnit::Nanoseconds);
    let (records, _) = logs::pack(&body, Place::default(), &limits, NOW);
    for pack in [spans, records] {
        assert_eq!((pack.items(), pack.refused()), (300, 0));
        let written = pack.finish("topic", "source", "id");
        assert!(written.len() < 300 * 1500, "{} bytes", written.len());
        for text in ["kept", "left_out\":\"1\"", "sss\u{2026}", "vvv\u{2026}"] {
            assert_eq!(memchr::memmem::find_iter(&written, text).count(), 300, "{text}");
        }
    }
}
