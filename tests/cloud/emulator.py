"""A Log Service that takes nothing on trust.

Every request is verified with the official Python SDK's signer and its body is read with the SDK's
protobuf, so that accepting a request means that the vendor's own code would have made the same one.
Faults are scripted by tests; what was accepted is kept for them.
"""

import calendar
import hashlib
import json
import threading
import time
import zlib

import lz4.block
import zstandard
from aliyun.log.auth import AuthV1, AuthV4
from aliyun.log.credentials import StaticCredentialsProvider
from aliyun.log.log_logs_pb2 import LogGroup

from server import QuietServer

REGION = "cn-hangzhou"
RESERVED = ("__time__", "__source__", "__topic__", "__raw__", "__raw_log__", "_extract_others_")
SKEW_SECONDS = 15 * 60


class Refused(Exception):
    """What is answered in place of 200."""

    def __init__(self, status, code, message=""):
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


class Page(Exception):
    """An answer that is not Log Service's own, such as a proxy's page."""

    def __init__(self, status, body):
        super().__init__(status)
        self.status, self.body = status, body


class FrozenV1(AuthV1):
    """The SDK's V1 signer with the time of the request in place of now."""

    def __init__(self, provider, date):
        super().__init__(provider)
        self._date = date

    def _getGMT(self):
        return self._date


class Accepted:
    """One write that passed every test."""

    def __init__(self, request, store, group):
        self.request, self.store, self.group = request, store, group


class Emulator:
    """Listens on a free loopback port. `accounts` maps access key ids to (secret, token or None);
    `expiry` holds the Unix time at which some of them end."""

    def __init__(self, accounts):
        self.accounts, self.expiry = dict(accounts), {}
        self.check_times = True
        self.accepted, self.refused, self.probed = [], [], []
        self.fault = None  # called with the request once it is verified; may raise Refused
        self.after = None  # called with the request once it is accepted; "close" loses the reply
        self.clock_offset = 0
        self.away = False  # closes every connection without a word
        self.lock = threading.Lock()
        self.server = QuietServer(self._answer)
        self.port = self.server.port

    def clear(self):
        with self.lock:
            self.accepted, self.refused, self.probed = [], [], []
            self.fault = self.after = None
            self.clock_offset = 0
            self.check_times = True
            self.away = False

    def logs(self, store):
        return [log for accepted in self.accepted if accepted.store == store for log in accepted.group.Logs]

    def now(self):
        return time.time() + self.clock_offset

    def _answer(self, request):
        if self.away:
            return None
        request_id = hashlib.sha1(f"{time.time_ns()}".encode()).hexdigest()[:24].upper()
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(self.now()))
        headers = {"x-log-requestid": request_id, "Date": date}
        try:
            entry = self._verify(request)
            if self.fault:
                self.fault(request)
        except Refused as refusal:
            with self.lock:
                self.refused.append(refusal.code)
            body = {"errorCode": refusal.code, "errorMessage": refusal.message or refusal.code}
            return refusal.status, headers, json.dumps(body).encode()
        except Page as page:
            with self.lock:
                self.refused.append(str(page.status))
            return page.status, {"Content-Type": "text/html"}, page.body
        with self.lock:
            (self.accepted if isinstance(entry, Accepted) else self.probed).append(entry)
        if self.after and self.after(request) == "close":
            return None
        return 200, headers, b""

    def _verify(self, request):
        if request.header("x-log-apiversion") != "0.6.0":
            raise Refused(400, "InvalidAPIVersion")
        self._verify_signature(request)
        self._verify_hash(request)
        path = request.path.strip("/").split("/")
        if request.method == "GET" and path[0] == "logstores" and len(path) == 2:
            return path[1]
        return Accepted(request, self._store(request, path), self._group(request))

    def _store(self, request, path):
        if path[0] == "logstores" and path[2:] in ([], ["shards", "lb"]):
            return path[1]
        if path[0] == "logstores" and path[2:] == ["shards", "route"]:
            key = request.query.get("key", "")
            if len(key) != 32 or set(key) - set("0123456789abcdef"):
                raise Refused(400, "ParameterInvalid", "route key")
            return path[1]
        if path[0] == "prometheus" and path[3:] == ["api", "v1", "write"]:
            if path[1] != request.header("host").split(".")[0]:
                raise Refused(404, "ProjectNotExist")
            return path[2]
        raise Refused(404, "InvalidPath", request.path)

    def _verify_signature(self, request):
        text = request.header("authorization")
        is_v4 = text.startswith("SLS4-HMAC-SHA256 ")
        if is_v4:
            credential = text.split("Credential=")[1].split(",")[0]
            access_key_id, _, region, product, terminator = credential.split("/")
            if (region, product, terminator) != (REGION, "sls", "aliyun_v4_request"):
                raise Refused(401, "SignatureNotMatch", "scope")
        elif text.startswith(("LOG ", "SLS ")):
            access_key_id = text[4:].split(":")[0]
        else:
            raise Refused(401, "Unauthorized", "no authorization")
        if access_key_id not in self.accounts:
            raise Refused(401, "Unauthorized", f"unknown access key {access_key_id}")
        secret, token = self.accounts[access_key_id]
        if request.headers.get("x-acs-security-token") != token:
            raise Refused(401, "Unauthorized", "security token")
        if self.expiry.get(access_key_id, float("inf")) <= self.now():
            raise Refused(401, "SecurityTokenExpired")
        self._verify_clock(request, is_v4)
        if self._sign(request, access_key_id, secret, token, is_v4) != "LOG " * (not is_v4) + text.removeprefix("LOG ").removeprefix("SLS "):
            raise Refused(401, "SignatureNotMatch")

    def _verify_clock(self, request, is_v4):
        if is_v4:
            sent = time.strptime(request.header("x-log-date"), "%Y%m%dT%H%M%SZ")
        else:
            date = request.headers.get("x-log-date") or request.header("date")
            sent = time.strptime(date, "%a, %d %b %Y %H:%M:%S GMT")
        if abs(calendar.timegm(sent) - self.now()) > SKEW_SECONDS:
            raise Refused(400, "RequestTimeTooSkewed")

    def _sign(self, request, access_key_id, secret, token, is_v4):
        provider = StaticCredentialsProvider(access_key_id, secret, token)
        # The V1 signer looks for this one name in this spelling.
        headers = {"Content-Type" if n == "content-type" else n: v for n, v in request.headers.items()}
        for name in ("authorization", "content-md5"):
            headers.pop(name, None)
        if is_v4:
            date = headers["x-log-date"]
            signer = AuthV4(provider, REGION)
            return signer._do_sign_request(request.method, request.path, request.query, headers, request.body, date)
        date = headers.pop("x-log-date", None) or headers["date"]
        headers.pop("date", None)
        FrozenV1(provider, date).sign_request(request.method, request.path, request.query, headers, request.body)
        return headers["Authorization"]

    def _verify_hash(self, request):
        if request.header("authorization").startswith("SLS4"):
            if request.header("x-log-content-sha256") != hashlib.sha256(request.body).hexdigest():
                raise Refused(400, "InvalidBodySHA256")
        elif request.body and request.header("content-md5") != hashlib.md5(request.body).hexdigest().upper():
            raise Refused(400, "InvalidContentMD5")

    def _group(self, request):
        if request.header("content-type") != "application/x-protobuf":
            raise Refused(415, "InvalidContentType")
        raw = unpack(request)
        group = LogGroup()
        try:
            group.ParseFromString(raw)
        except Exception as error:
            raise Refused(400, "PostBodyInvalid", str(error)) from error
        self._check_group(group)
        return group

    def _check_group(self, group):
        if not group.Logs or len(group.Logs) > 40960:
            raise Refused(400, "PostBodyInvalid", f"{len(group.Logs)} logs")
        for log in group.Logs:
            if self.check_times and not self.now() - 7 * 86400 <= log.Time <= self.now() + SKEW_SECONDS:
                raise Refused(400, "InvalidTimestamp", str(log.Time))
            keys = [content.Key for content in log.Contents]
            if len(set(keys)) != len(keys):
                raise Refused(400, "InvalidKey", "twice the same key")
            if any(key in RESERVED or key.startswith("__tag__:") for key in keys):
                raise Refused(400, "InvalidKey", "reserved")
            for content in log.Contents:
                content.Value.encode()


def unpack(request):
    """The body before compression, exactly as large as it claims to be."""
    try:
        size = int(request.header("x-log-bodyrawsize"))
    except ValueError as error:
        raise Refused(400, "InvalidBodyRawSize") from error
    if size > 10 << 20:
        raise Refused(400, "PostBodyTooLarge")
    kind = request.headers.get("x-log-compresstype")
    try:
        if kind is None:
            raw = request.body
        elif kind == "lz4":
            raw = lz4.block.decompress(request.body, uncompressed_size=size)
        elif kind == "zstd":
            raw = zstandard.ZstdDecompressor().decompress(request.body, max_output_size=size)
        elif kind == "deflate":
            raw = zlib.decompress(request.body)
        else:
            raise Refused(400, "InvalidCompressType", kind)
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, zlib.error) as error:
        raise Refused(400, "PostBodyUncompressError", str(error)) from error
    if len(raw) != size:
        raise Refused(400, "InvalidBodyRawSize", f"{len(raw)} instead of {size}")
    return raw
