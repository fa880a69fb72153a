"""The error table, a misbehaving network and rotating keys, against the sink as a process."""

import collections
import time

import corpus
import product
from checks import check, equal
from emulator import Page, Refused


def names(emulator):
    return collections.Counter(
        content.Value for log in emulator.logs("otel-traces") for content in log.Contents if content.Key == "name"
    )


def run(emulator, folder):
    request = corpus.traces(11, spans=400, plain=True)
    file = corpus.write(folder, "faults", request)
    want = {span.name for r in request.resource_spans for s in r.scope_spans for span in s.spans}

    def times(count, make):
        """Raises for the first `count` requests."""
        left = [count]

        def fault(_):
            if left[0] > 0:
                left[0] -= 1
                raise make()
        return fault

    def delivered_once():
        equal(set(names(emulator)), want, "spans")
        equal(max(names(emulator).values()), 1, "copies")

    retryable = [
        (403, "WriteQuotaExceed"), (403, "ShardWriteQuotaExceed"), (403, "ExceedQuota"), (403, "ProjectQuotaExceed"),
        (500, "InternalServerError"), (503, "ServerBusy"), (401, "Unauthorized"), (401, "SignatureNotMatch"),
        (401, "InvalidAccessKeyId"), (401, "SecurityToken.Expired"), (401, "SecurityTokenExpired"),
        (404, "LogStoreNotExist"), (404, "ProjectNotExist"), (404, "ProjectNotExists"), (400, "RequestTimeout"),
        (403, "SomethingNew"), (401, "SomethingNew"), (429, "SomethingNew"), (418, "SomethingNew"),
    ]
    for status, code in retryable:
        with check(f"fault {status} {code}, twice: delivered once"):
            emulator.clear()
            emulator.fault = times(2, lambda status=status, code=code: Refused(status, code))
            said = product.sls(emulator, [file])
            equal((said["rejected"], len(said["retries"])), (0, 2))
            assert code in said["retries"][0] and "request id" in said["retries"][0]
            delivered_once()

    pages = [(502, b"<html>Bad Gateway</html>"), (503, b'{"errorCode":"Serve'), (504, b""), (429, b"slow down")]
    for status, body in pages:
        with check(f"fault {status} with {body!r}: delivered once"):
            emulator.clear()
            emulator.fault = times(2, lambda status=status, body=body: Page(status, body))
            equal(product.sls(emulator, [file])["rejected"], 0)
            delivered_once()

    for status, code in [(400, "PostBodyInvalid"), (400, "InvalidTimestamp"), (400, "InvalidEncoding"),
                         (400, "InvalidKey"), (400, "ParameterInvalid"), (400, "InvalidCompressType"),
                         (400, "MissingBodyRawSize"), (400, "InvalidBodyRawSize"),
                         (400, "PostBodyUncompressError"), (415, "InvalidContentType"), (411, "MissingContentLength")]:
        with check(f"fault {status} {code}: dropped and counted, the next batch goes on"):
            emulator.clear()
            emulator.fault = times(1, lambda status=status, code=code: Refused(status, code))
            said = product.sls(emulator, [file], repeat=2)
            dropped = said["rejected"]
            equal(said["retries"], [])
            equal(sum(names(emulator).values()) + dropped, 2 * len(want))
            assert dropped > 0

    with check("fault PostBodyTooLarge: split until it fits"):
        emulator.clear()

        def too_large(request):
            if int(request.header("x-log-bodyrawsize")) > 40_000:
                raise Refused(400, "PostBodyTooLarge")
        emulator.fault = too_large
        equal(product.sls(emulator, [file])["rejected"], 0)
        delivered_once()

    with check("faults under signature V1: retried, split and delivered once"):
        emulator.clear()
        emulator.fault = times(2, lambda: Refused(503, "ServerBusy"))
        equal(product.sls(emulator, [file], signature="v1")["rejected"], 0)
        delivered_once()
        emulator.clear()
        emulator.fault = too_large
        equal(product.sls(emulator, [file], signature="v1")["rejected"], 0)
        delivered_once()

    with check("a reply that is lost: one duplicate, nothing missing"):
        emulator.clear()
        lost = [1]
        emulator.after = lambda _: "close" if lost and lost.pop() else None
        equal(product.sls(emulator, [file])["rejected"], 0)
        equal(set(names(emulator)), want)
        equal({1, 2}, set(names(emulator).values()) | {1}, "copies")

    with check("a slow reply: given up after the timeout, then delivered"):
        emulator.clear()
        slow = [1]
        emulator.after = lambda _: time.sleep(1.0) if slow and slow.pop() else None
        said = product.sls(emulator, [file], timeout_ms=300)
        assert "no reply within 300 ms" in said["retries"][0], said
        equal(set(names(emulator)), want)

    for offset, version in ((-7200, "v4"), (7200, "v4"), (-7200, "v1"), (7200, "v1")):
        with check(f"a clock that is off by {offset} s, {version}: set from the reply's Date"):
            emulator.clear()
            emulator.clock_offset = offset
            said = product.sls(emulator, [file], signature=version)
            equal((said["rejected"], said["retries"]), (0, []))
            equal(emulator.refused, ["RequestTimeTooSkewed"])
            equal(set(names(emulator)), want)

    with check("a wrong secret: tried for as long as somebody may correct it"):
        emulator.clear()
        process = product.start_sls(emulator, [file], keys=(product.KEYS[0], "wrong", None))
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1, process.returncode
        assert "gave up after 30 tries: log service answered 401 SignatureNotMatch" in errors, errors[-800:]
        equal(set(emulator.refused), {"SignatureNotMatch"})


def rotation(emulator, sts, folder):
    """Keys that live six seconds, under load: not one request with expired keys, not one failure."""
    file = corpus.write(folder, "rotation", corpus.traces(12, spans=40, plain=True))
    token_file = f"{folder}/oidc-token"
    with open(token_file, "w") as out:
        out.write(sts.oidc_token)
    with check("keys that expire in mid-run are renewed ahead of it"):
        emulator.clear()
        sts.clear(lifetime=6)
        emulator.after = lambda _: time.sleep(0.03)
        variables = {"ROLE_ARN": "acs:ram::1:role/tail", "OIDC_PROVIDER_ARN": "acs:ram::1:oidc-provider/ack",
                     "OIDC_TOKEN_FILE": token_file}
        said = product.sls(emulator, [file], keys=None, variables=variables, sts=sts.url, repeat=300)
        equal((said["rejected"], said["retries"], emulator.refused), (0, [], []))
        equal(len(emulator.logs("otel-traces")), 300 * 40)
        used = {a.request.header("x-acs-security-token") for a in emulator.accepted}
        assert len(used) >= 2 and len(sts.calls) == len(used), (len(used), len(sts.calls))
