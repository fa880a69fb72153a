"""Log by log: what the Collector's exporter writes and what ours writes of the same OTLP.

All differences that are allowed are named here, each with its reason; everything else must be equal.
"""

import json
import os
import subprocess
import time

import corpus
import product
from checks import check, equal

DAY = 86400
# The exporter drops records without a body; a record can be all attributes, so ours delivers them.
ONLY_OURS = "record without a body"


def oracle(emulator, program, files):
    """Runs the exporter. Its requests are not held to the time window: it poisons its own batches."""
    emulator.check_times = False
    environment = {**os.environ, "ACCESS_KEY_ID": product.KEYS[0], "ACCESS_KEY_SECRET": product.KEYS[1],
                   "http_proxy": f"http://127.0.0.1:{emulator.port}"}
    stores = ["contrib-traces", "contrib-metrics", "contrib-logs"]
    ran = subprocess.run([program, "http://cn-hangzhou.log.test", "demo-proj", *stores, *files],
                         env=environment, timeout=120, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    emulator.check_times = True


def run(emulator, program, folder):
    now = time.time_ns()
    files = [corpus.write(folder, f"t{seed}", corpus.traces(seed, now)) for seed in (1, 2)]
    files += [corpus.write(folder, f"l{seed}", corpus.logs(seed, now)) for seed in (3, 4)]
    files += [corpus.write(folder, f"m{seed}", corpus.metrics(seed, now)) for seed in (5, 6)]
    emulator.clear()
    with check("oracle: the exporter's requests are accepted"):
        oracle(emulator, program, files)
        equal(emulator.refused, [])
    with check("oracle: ours are accepted, the absurd times too"):
        equal(product.sls(emulator, files)["rejected"], 0)
        equal(emulator.refused, [])
    with check("oracle: spans are equal log by log"):
        compare_spans(by(emulator.logs("contrib-traces"), "name"), by(emulator.logs("otel-traces"), "name"), now)
    with check("oracle, control: a change of any field of a span is noticed"):
        changed_fields_are_noticed(emulator, now)
    with check("oracle: log records are equal log by log"):
        compare_records(by_number(emulator.logs("contrib-logs")), by_number(emulator.logs("otel-logs")))
    with check("oracle: samples are equal log by log"):
        compare_samples(samples(emulator.logs("contrib-metrics")), samples(emulator.logs("otel-metrics")))
    with check("oracle: topics are equal, sources are addresses"):
        groups = {name: {(a.group.Topic, a.group.Source) for a in emulator.accepted if a.store.startswith(name)}
                  for name in ("contrib", "otel")}
        equal({topic for topic, _ in groups["contrib"]}, {topic for topic, _ in groups["otel"]})
        assert all(source for _, source in groups["otel"])


def contents(log):
    return {content.Key: content.Value for content in log.Contents}


def by(logs, key):
    made = {contents(log)[key]: log for log in logs}
    equal(len(made), len(logs), "unique keys")
    assert made, "nothing was written"
    return made


def by_number(logs):
    made = {json.loads(contents(log)["attribute"])["n"]: log for log in logs}
    equal(len(made), len(logs), "unique keys")
    return made


def parsed(text):
    """JSON in one spelling: the exporter escapes <, > and & and our 1e+21 is its 1000…, which mean the
    same. Types stay apart: true is not 1, and "1" is not 1."""
    try:
        return json.dumps(plain(json.loads(text, parse_constant=str)), sort_keys=True)
    except ValueError:
        return text


def plain(value):
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value[:1] in ("{", "["):
        return parsed(value)
    return value


def compare_spans(theirs, ours, now):
    equal(sorted(theirs), sorted(ours), "names of spans")
    for name, our in ours.items():
        their = theirs[name]
        left, right = contents(their), contents(our)
        equal([c.Key for c in their.Contents], [c.Key for c in our.Contents], "keys and their order")
        for key in left:
            if key == "duration" and name.startswith(("ends before", "no end", )):
                # The exporter's unsigned difference wraps to half a million years.
                assert int(left[key]) > 10**15, left[key]
                equal(right[key], "0")
            elif key == "attribute" and name.startswith("not a number"):
                # Go's JSON has no NaN: the exporter writes nothing, of the other attributes neither.
                equal(left[key], "")
                equal(right[key], '{"inf":"+Inf","nan":"NaN","other":1}')
            elif key in ("attribute", "resource", "links", "logs"):
                equal(parsed(right[key]), parsed(left[key]), f"{name}: {key}")
            else:
                equal(right[key], left[key], f"{name}: {key}")
        compare_time(name, their, our, now)


def changed_fields_are_noticed(emulator, now):
    theirs = {"span 1 5": by(emulator.logs("contrib-traces"), "name")["span 1 5"]}
    our = by(emulator.logs("otel-traces"), "name")["span 1 5"]
    for index, content in enumerate(our.Contents):
        if content.Key == "name":
            continue
        changed = type(our)()
        changed.CopyFrom(our)
        changed.Contents[index].Value += " "
        if content.Key in ("attribute", "resource", "links", "logs"):
            changed.Contents[index].Value = content.Value.replace("1", "2") if "1" in content.Value else "[7]"
        try:
            compare_spans(theirs, {"span 1 5": changed}, now)
        except AssertionError:
            continue
        raise AssertionError(f"a changed {content.Key} passes")


def compare_time(name, their, our, now):
    assert our.HasField("Time_ns"), "ours carries nanoseconds, the exporter's does not"
    seconds = now // 10**9
    if name.startswith("of last year"):
        # Log Service would refuse the whole request: ours is moved to the edge of what it accepts.
        assert their.Time < seconds - 300 * DAY and seconds - 7 * DAY <= our.Time <= seconds - 6 * DAY
    elif name.startswith("of next year"):
        assert their.Time > seconds + 300 * DAY and seconds <= our.Time <= seconds + 15 * 60
    elif name.startswith(("no times", "no end", "nothing")):
        assert abs(their.Time - our.Time) < 60, "both take their own now"
    else:
        equal(our.Time, their.Time, name)


def compare_records(theirs, ours):
    only = set(ours) - set(theirs)
    equal(set(theirs) - set(ours), set())
    equal({contents(ours[number])["content"] for number in only}, {""}, ONLY_OURS)
    equal(len(only), 4, ONLY_OURS)
    for number, their in theirs.items():
        our = ours[number]
        left, right = contents(their), contents(our)
        equal(list(right), list(left), "keys and their order")
        for key in left:
            json_keys = ("attribute", "resource", "content")
            equal(*((parsed(right[key]), parsed(left[key])) if key in json_keys else (right[key], left[key])), key)
        if number.endswith("timeless"):
            # Ours takes the time of observation, the exporter its own now.
            assert abs(our.Time - their.Time) < 60
        else:
            equal(our.Time, their.Time)


def samples(logs):
    """Keyed by name, labels and time; the exporter's separator in values is repaired first."""
    made = {}
    for log in logs:
        log = contents(log)
        # A label value with | breaks the exporter's labels; ours has _ in its place.
        labels = log["__labels__"].replace("path#$#a|b", "path#$#a_b")
        key = (log["__name__"], labels, log["__time_nano__"])
        assert key not in made, key
        made[key] = log["__value__"]
        equal(list(log), ["__name__", "__labels__", "__time_nano__", "__value__"])
    return made


def compare_samples(theirs, ours):
    equal(sorted(ours), sorted(theirs), "samples")
    buckets = 0
    for key, value in ours.items():
        if key[0].endswith("_bucket"):
            # The exporter writes each bucket's own count, which no histogram_quantile can use.
            buckets += 1
            assert float(value) >= float(theirs[key]), key
        else:
            equal(value, theirs[key], key)
    equal(buckets, 10)
    of_one = [float(value) for key, value in ours.items() if key[0].endswith("_bucket") and "n#$#5-" in key[1]]
    equal(of_one, [3, 5, 5, 5, 6], "cumulative buckets")
