use super::*;
use crate::deliver::sink::sls::encode::tests::read;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value},
    metrics::v1::{
        AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point::Value,
        summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
};
use prost::Message;

const NOW: ServiceTime = ServiceTime(1_795_428_000_123_456_789);
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
const DELTA: i32 = AggregationTemporality::Delta as i32;

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

fn request(data: Vec<Data>) -> ExportMetricsServiceRequest {
    let metrics =
        data.into_iter().map(|data| Metric { name: "shop.cart".into(), data: Some(data), ..Default::default() });
    let resource = Some(Resource { attributes: vec![text("service.name", "shop")], ..Default::default() });
    let scope_metrics = vec![ScopeMetrics { metrics: metrics.collect(), ..Default::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }],
    }
}

/// (name and suffix, labels, value) of every sample, and the refused points.
fn samples(data: Vec<Data>) -> (Vec<(String, String, String)>, usize) {
    let (pack, _) = pack(&request(data).encode_to_vec(), Place::default(), &PackLimits::default(), NOW);
    let refused = pack.refused();
    let samples = read(pack).logs.into_iter().map(|log| {
        let keys: Vec<_> = log.contents.iter().map(|pair| pair.key.as_str()).collect();
        assert_eq!(keys, ["__name__", "__labels__", "__time_nano__", "__value__"]);
        assert_eq!(log.contents[2].value, format!("{}{:09}", log.time, log.time_ns.unwrap()));
        let value = |index: usize| log.contents[index].value.clone();
        (value(0), value(1), value(3))
    });
    (samples.collect(), refused)
}

fn number(value: Value, attributes: Vec<KeyValue>) -> NumberDataPoint {
    NumberDataPoint { attributes, time_unix_nano: NOW.0, value: Some(value), ..Default::default() }
}

fn histogram(temporality: i32) -> Data {
    let point = HistogramDataPoint {
        time_unix_nano: NOW.0,
        count: 6,
        sum: Some(3.5),
        explicit_bounds: vec![0.25, 1e6],
        bucket_counts: vec![3, 2, 1],
        attributes: vec![text("zone", "a")],
        ..Default::default()
    };
    Data::Histogram(opentelemetry_proto::tonic::metrics::v1::Histogram {
        data_points: vec![point],
        aggregation_temporality: temporality,
    })
}

fn row(name: &str, labels: &str, value: &str) -> (String, String, String) {
    (format!("shop_cart{name}"), labels.into(), value.into())
}

#[test]
fn gauges_and_sums_are_one_sample_a_point() {
    let gauge = Gauge { data_points: vec![number(Value::AsInt(-3), vec![]), number(Value::AsDouble(0.5), vec![])] };
    let sum = Sum {
        data_points: vec![number(Value::AsDouble(1_234_567.0), vec![])],
        aggregation_temporality: CUMULATIVE,
        is_monotonic: true,
    };
    let (rows, refused) = samples(vec![Data::Gauge(gauge), Data::Sum(sum)]);
    let labels = "service_name#$#shop";
    assert_eq!(rows, [row("", labels, "-3"), row("", labels, "0.5"), row("", labels, "1.234567e+06")]);
    assert_eq!(refused, 0);
}

#[test]
fn percentiles_are_gauges_with_a_quantile() {
    let point = |quantile, value| {
        number(Value::AsDouble(value), vec![text("span.name", "GET /|x"), text("quantile", quantile)])
    };
    let gauge = Gauge { data_points: vec![point("0.5", 12.5), point("0.99", 1_234.567)] };
    let (rows, refused) = samples(vec![Data::Gauge(gauge)]);
    let labels = |quantile| format!("quantile#$#{quantile}|service_name#$#shop|span_name#$#GET /_x");
    assert_eq!(rows, [row("", &labels("0.5"), "12.5"), row("", &labels("0.99"), "1234.567")]);
    assert_eq!(refused, 0);
}

#[test]
fn buckets_are_cumulative_and_end_with_inf() {
    let (rows, _) = samples(vec![histogram(CUMULATIVE)]);
    let bucket = |le: &str, value| row("_bucket", &format!("le#$#{le}|service_name#$#shop|zone#$#a"), value);
    let plain = "service_name#$#shop|zone#$#a";
    let want = [
        row("_sum", plain, "3.5"),
        row("_count", plain, "6"),
        bucket("0.25", "3"),
        bucket("1e+06", "5"),
        bucket("+Inf", "6"),
    ];
    assert_eq!(rows, want);
}

#[test]
fn exponential_histograms_become_explicit_ones() {
    let point = ExponentialHistogramDataPoint {
        time_unix_nano: NOW.0,
        count: 6,
        zero_count: 1,
        positive: Some(Buckets { offset: 0, bucket_counts: vec![2, 3] }),
        ..Default::default()
    };
    let of = |temporality| {
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![point.clone()],
            aggregation_temporality: temporality,
        })
    };
    let (rows, refused) = samples(vec![of(CUMULATIVE), of(DELTA)]);
    let bucket = |le: &str, value| row("_bucket", &format!("le#$#{le}|service_name#$#shop"), value);
    let want = [
        row("_count", "service_name#$#shop", "6"),
        bucket("1", "1"),
        bucket("2", "3"),
        bucket("4", "6"),
        bucket("+Inf", "6"),
    ];
    assert_eq!((&rows[..], refused), (&want[..], 1));
}

#[test]
fn summaries_have_quantiles() {
    let point = SummaryDataPoint {
        count: 2,
        sum: 7.0,
        quantile_values: vec![ValueAtQuantile { quantile: 0.99, value: 4.0 }],
        ..Default::default()
    };
    let (rows, _) = samples(vec![Data::Summary(Summary { data_points: vec![point] })]);
    let plain = "service_name#$#shop";
    assert_eq!(
        rows,
        [row("_sum", plain, "7"), row("_count", plain, "2"), row("", "quantile#$#0.99|service_name#$#shop", "4")]
    );
}

#[test]
fn what_cannot_be_said_is_refused_and_counted_and_gaps_are_neither() {
    let mut stale = number(Value::AsInt(1), vec![]);
    stale.flags = 1;
    let nothing = NumberDataPoint::default();
    let (rows, refused) = samples(vec![histogram(DELTA), Data::Gauge(Gauge { data_points: vec![stale, nothing] })]);
    assert_eq!((rows.len(), refused), (0, 1));

    let mut wide = histogram(CUMULATIVE);
    if let Data::Histogram(histogram) = &mut wide {
        histogram.data_points[0].explicit_bounds = (0..2000).map(f64::from).collect();
    }
    assert_eq!(samples(vec![wide]), (vec![], 1));
}

/// Each of its samples has the name in it.
#[test]
fn a_long_name_is_cut_and_stays_apart_from_others() {
    let wide = |last: &str| {
        let Data::Histogram(mut data) = histogram(CUMULATIVE) else { unreachable!() };
        data.data_points[0].explicit_bounds = (0..1024).map(f64::from).collect();
        data.data_points[0].bucket_counts = vec![1; 1025];
        Metric { name: "n".repeat(1_800_000) + last, data: Some(Data::Histogram(data)), ..Default::default() }
    };
    let mut request = request(vec![]);
    request.resource_metrics[0].scope_metrics[0].metrics = vec![wide("a"), wide("b")];
    let (pack, _) = pack(&request.encode_to_vec(), Place::default(), &PackLimits::default(), NOW);
    assert_eq!((pack.items(), pack.refused()), (2, 0));
    let logs = read(pack).logs;
    let bytes: usize = logs.iter().map(Message::encoded_len).sum();
    assert!(bytes < 1 << 20, "{bytes} bytes of {} samples", logs.len());
    let names = logs.iter().map(|log| log.contents[0].value.trim_end_matches("_bucket"));
    let names: std::collections::BTreeSet<_> = names.filter(|name| !name.ends_with(['m', 't'])).collect();
    assert_eq!(names.iter().map(|name| name.len()).collect::<Vec<_>>(), [256, 256], "{names:?}");
}

#[test]
fn a_point_with_more_text_than_an_item_may_have_is_refused_alone() {
    let empty = KeyValue::default();
    let map = any_value::Value::KvlistValue(KeyValueList { values: vec![empty; ATTRIBUTES_MAX + 1] });
    let huge = KeyValue { key: "map".into(), value: Some(AnyValue { value: Some(map) }), ..Default::default() };
    // One byte on the wire, and six of text: twice, and each alone is within the limit.
    let controls = |key: &str| text(key, &"\u{1}".repeat(1 << 20));
    let list = |key: &str| {
        let values = vec![controls("").value.unwrap()];
        let list = any_value::Value::ArrayValue(ArrayValue { values });
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(list) }), ..Default::default() }
    };
    let points = [vec![huge], vec![list("a"), list("b")], vec![text("zone", "a")]];
    let data_points = points.map(|attributes| number(Value::AsInt(1), attributes)).into();
    let (rows, refused) = samples(vec![Data::Gauge(Gauge { data_points })]);
    assert_eq!((rows, refused), (vec![row("", "service_name#$#shop|zone#$#a", "1")], 2));
}

#[test]
fn labels_keep_the_alphabet_and_the_order() {
    let attributes = vec![
        text("b.c", "2"),
        text("b_c", "1"),
        text("a|b", "x|y#$#z"),
        text("1st", "d"),
        text("_u", "u"),
        text("service.name", "point"),
        text("Ünï", "é"),
    ];
    let (rows, _) = samples(vec![Data::Gauge(Gauge { data_points: vec![number(Value::AsInt(1), attributes)] })]);
    let want = "a_b#$#x_y_z|b_c#$#2;1|key_1st#$#d|key_n_#$#é|key_u#$#u|service_name#$#point";
    assert_eq!(rows[0].1, want);
}

#[test]
fn an_attribute_named_as_the_bound_gives_way_to_it() {
    let attributes = [text("le", "mine"), text("zone", "a")].map(|attribute| attribute.encode_to_vec());
    let labels = Labels::new(attributes.iter().map(Vec::as_slice), 99).unwrap();
    assert_eq!(labels.text(Some(("le", "5"))), "le#$#5|zone#$#a");
    assert_eq!(Labels::default().text(Some(("le", "5"))), "le#$#5");
}

#[test]
fn floats_as_go_writes_them() {
    for (value, text) in [
        (0.0, "0"),
        (100_000.0, "100000"),
        (1e6, "1e+06"),
        (1_234_567.0, "1.234567e+06"),
        (1e21, "1e+21"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (2.5e-7, "2.5e-07"),
        (-15.5, "-15.5"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
    ] {
        assert_eq!(go_float(value), text);
    }
}

#[test]
fn a_points_samples_stay_in_one_request() {
    let request = request(vec![histogram(CUMULATIVE), histogram(CUMULATIVE)]).encode_to_vec();
    let limits = PackLimits { logs: 7, ..Default::default() };
    let (first, next) = pack(&request, Place::default(), &limits, NOW);
    let (second, _) = pack(&request, next, &limits, NOW);
    assert_eq!((first.items(), second.items()), (1, 1));
    assert_eq!((read(first).logs.len(), read(second).logs.len()), (5, 5));
}
