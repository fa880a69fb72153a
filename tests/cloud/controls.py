"""Controls: what the emulator must accept (official clients) and what it must refuse (tampering).

Without them a green run would prove nothing: an emulator that accepts everything is easily written.
"""

import http.client
import os
import time

import lz4.block
import lz4.frame
import zstandard
from aliyun.log import LogClient, LogItem, PutLogsRequest
from aliyun.log.auth import AuthV1, AuthV4
from aliyun.log.credentials import StaticCredentialsProvider
from aliyun.log.log_logs_pb2 import LogGroup

from checks import check, equal
from emulator import REGION

HOST = f"demo-proj.{REGION}.log.test"
PATH = "/logstores/otel-traces/shards/lb"


def official_clients(emulator, plain, temporary):
    """`plain` and `temporary` are (id, secret, token or None)."""
    os.environ["http_proxy"] = f"http://127.0.0.1:{emulator.port}"
    try:
        for version in ("v1", "v4"):
            for keys, kind in ((plain, "keys"), (temporary, "STS")):
                for route in (None, "14d2f850ad6ea48e46e4547edbbb27e0"):
                    with check(f"the emulator accepts the Python SDK: {version}, {kind}, route {route is not None}"):
                        python_client(emulator, version, keys, route)
        for compression in ("zstd", "lz4"):
            for keys, kind in ((plain, "keys"), (temporary, "STS")):
                with check(f"the emulator accepts the Rust producer: {compression}, {kind}"):
                    rust_producer(emulator, compression, keys)
    finally:
        del os.environ["http_proxy"]


def python_client(emulator, version, keys, route):
    emulator.clear()
    client = LogClient(f"http://{REGION}.log.test", *keys[:2], keys[2], auth_version=version, region=REGION)
    items = [LogItem(timestamp=int(time.time()), contents=[("k", "v" * 100), ("ü", "é")]) for _ in range(20)]
    client.put_logs(PutLogsRequest("demo-proj", "otel-traces", "topic", "source", items, hashKey=route))
    equal(emulator.refused, [])
    equal(len(emulator.logs("otel-traces")), 20)


def rust_producer(emulator, compression, keys):
    from aliyun_log_producer import Producer, ProducerConfig

    emulator.clear()
    config = ProducerConfig(
        endpoint=f"http://{REGION}.log.test", access_key_id=keys[0], access_key_secret=keys[1],
        security_token=keys[2], compression=compression, linger=0.1, max_attempts=1,
    )
    with Producer(config) as producer:
        writer = producer.writer("demo-proj", "otel-traces")
        for _ in range(20):
            writer.send({"k": "v" * 100})
        producer.flush()
    equal(emulator.refused, [])
    equal(len(emulator.logs("otel-traces")), 20)


class Sample:
    """A good request, made with the SDK's signer, that tests then spoil."""

    def __init__(self, keys, version="v4", raw=None, pack="lz4"):
        self.keys, self.version, self.path, self.query, self.method = keys, version, PATH, {}, "POST"
        self.raw = group() if raw is None else raw
        self.body = self.raw if pack is None else lz4.block.compress(self.raw, store_size=False)
        self.headers = {
            "Content-Type": "application/x-protobuf",
            "host": HOST,
            "x-log-apiversion": "0.6.0",
            "x-log-bodyrawsize": str(len(self.raw)),
        }
        if pack:
            self.headers["x-log-compresstype"] = pack
        self.now = time.time()

    def sign(self):
        provider = StaticCredentialsProvider(*self.keys[:2], self.keys[2])
        if self.version == "v4":
            date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.now))
            signer = AuthV4(provider, REGION)
            arguments = (self.method, self.path, self.query, self.headers, self.body, date)
            self.headers["Authorization"] = signer._do_sign_request(*arguments)
        else:
            date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(self.now))
            signer = AuthV1(provider)
            signer._getGMT = lambda: date
            signer.sign_request(self.method, self.path, self.query, self.headers, self.body)
        return self

    def send(self, emulator):
        target = self.path + ("?" + "&".join(f"{k}={v}" for k, v in self.query.items()) if self.query else "")
        connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=5)
        connection.putrequest(self.method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(self.body)))
        connection.endheaders(self.body)
        status = connection.getresponse().status
        connection.close()
        return status


def group(seconds=None):
    made = LogGroup()
    for number in range(5):
        log = made.Logs.add()
        log.Time = int(time.time() if seconds is None else seconds)
        content = log.Contents.add()
        content.Key, content.Value = "k", f"{number}" * 50
    return made.SerializeToString()


def tampering(emulator, plain, temporary):
    """Every case spoils one thing of a good request; the code says which test caught it."""

    def refused(name, code, make):
        with check(f"the emulator refuses {name}"):
            emulator.clear()
            status = make().send(emulator)
            assert status >= 400, f"accepted with {status}"
            equal(emulator.refused, [code])

    def accepted(name, make):
        with check(f"the emulator accepts {name}"):
            emulator.clear()
            equal(make().send(emulator), 200, emulator.refused)

    def after(spoil, version="v4", keys=plain, **kwargs):
        def make():
            sample = Sample(keys, version, **kwargs).sign()
            spoil(sample)
            return sample
        return make

    def before(prepare, version="v4", keys=plain, **kwargs):
        def make():
            sample = Sample(keys, version, **kwargs)
            prepare(sample)
            return sample.sign()
        return make

    def flip(sample):
        sample.body = sample.body[:-1] + bytes([sample.body[-1] ^ 1])

    def put(name, value):
        return lambda sample: sample.headers.__setitem__(name, value)

    def drop(name):
        return lambda sample: sample.headers.pop(name)

    def body(pack):
        return lambda sample: setattr(sample, "body", pack(sample.raw))

    nothing = lambda sample: None  # noqa: E731
    wrong = (plain[0], "wrong", None)
    for version in ("v1", "v4"):
        accepted(f"a good {version} request", after(nothing, version))
        accepted(f"a good {version} request with a token", after(nothing, version, temporary))
        refused(f"a wrong secret, {version}", "SignatureNotMatch", after(nothing, version, wrong))
        refused(f"an unknown access key, {version}", "Unauthorized", after(nothing, version, ("nobody", "x", None)))
        refused(f"a wrong token, {version}", "Unauthorized",
                after(put("x-acs-security-token", "other"), version, temporary))
        refused(f"a missing token, {version}", "Unauthorized", after(drop("x-acs-security-token"), version, temporary))
        refused(f"an added x-log header, {version}", "SignatureNotMatch", after(put("x-log-extra", "1"), version))
        refused(f"another raw size, {version}", "SignatureNotMatch", after(put("x-log-bodyrawsize", "7"), version))
        refused(f"another path, {version}", "SignatureNotMatch",
                after(lambda sample: setattr(sample, "path", PATH.replace("traces", "logs")), version))
        refused(f"an added query, {version}", "SignatureNotMatch",
                after(lambda sample: sample.query.update(key="1"), version))
        refused(f"another clock, {version}", "RequestTimeTooSkewed",
                before(lambda sample: setattr(sample, "now", time.time() - 3600), version))
    refused("a flipped byte, v4", "SignatureNotMatch", after(flip))
    refused("a flipped byte, v1", "SignatureNotMatch", after(flip, "v1"))
    refused("a missing Content-MD5", "InvalidContentMD5", after(drop("Content-MD5"), "v1"))
    refused("another Host, v4", "SignatureNotMatch", after(put("host", HOST.replace("demo", "other"))))
    accepted("another Host with v1, which does not sign it", after(put("host", "other.log.test"), "v1"))
    refused("an LZ4 frame", "PostBodyUncompressError", before(body(lz4.frame.compress)))
    refused("LZ4 with its size in front", "PostBodyUncompressError",
            before(body(lambda raw: lz4.block.compress(raw, store_size=True))))
    refused("raw bytes that claim to be zstd", "PostBodyUncompressError", before(body(lambda raw: raw), pack="zstd"))
    accepted("zstd", before(body(zstandard.ZstdCompressor().compress), pack="zstd"))
    refused("an unknown compression", "InvalidCompressType", before(put("x-log-compresstype", "brotli")))
    refused("a raw size that is wrong and signed", "InvalidBodyRawSize", before(put("x-log-bodyrawsize", "999"), pack=None))
    refused("no protobuf", "PostBodyInvalid", after(nothing, raw=b"\xff\xff\xff", pack=None))
    refused("a log of last month", "InvalidTimestamp", after(nothing, raw=group(time.time() - 30 * 86400)))
    refused("another content type", "InvalidContentType", before(put("Content-Type", "application/json")))
