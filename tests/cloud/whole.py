"""The whole program against the same stubs: outages and refusals must show in its accounts, its log and on its disk.

The accounting identity holds at the end of each part.
"""

import contextlib
import pathlib
import random
import subprocess
import time
import urllib.request

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from suite.metrics import identity
from suite.process import wait_until
from suite.tailkeep import Tailkeep, binary

import arms
import corpus
import product
from checks import check, equal
from emulator import Refused
from stubs import Metadata

POLICY = """version: 1
wait: { after_root: 100ms }
rules:
  - { name: keep-errors, when: { error: true }, keep: all }
otherwise: { keep: none }
"""
RRSA = {"ROLE_ARN": "acs:ram::1:role/tail", "OIDC_PROVIDER_ARN": "acs:ram::1:oidc-provider/ack"}


class Stage:
    """A folder for each run of the program, and what they share."""

    def __init__(self, emulator, folder):
        self.emulator, self.folder, self.runs = emulator, pathlib.Path(folder) / "whole", 0
        self.folder.mkdir()
        self.rng = random.Random(41)

    def sls(self, more="", auth="{ type: environment }"):
        """A sink for all three signals."""
        port = self.emulator.port
        return (f"  - name: sls\n    sls: {{ endpoint: 'http://cn-hangzhou.log.test:{port}', project: demo-proj, "
                f"traces: otel-traces, metrics: otel-metrics, logs: otel-logs, "
                f"connect_to: '127.0.0.1:{port}', auth: {auth}{more} }}\n")

    @contextlib.contextmanager
    def tailkeep(self, sinks, config="", env=None, folder=None, killed=False):
        """Runs the program to its end: its accounts balance and it exits 0, or it is killed."""
        self.runs += 1
        folder = folder or self.folder / str(self.runs)
        folder.mkdir(exist_ok=True)
        env = env or product.environment()
        with Tailkeep(folder, POLICY, sinks=sinks, config=config, env=env) as running:
            yield running
            equal(identity(running.scrape()), [])
            if not killed:
                equal(running.stop(), 0)

    def failed(self, count):
        """A request of that many failed entry spans, each a trace of its own."""
        request, now = ExportTraceServiceRequest(), time.time_ns()
        group = request.resource_spans.add()
        group.resource.attributes.extend(corpus.attributes({"service.name": "shop"}))
        scope = group.scope_spans.add()
        for _ in range(count):
            span = scope.spans.add(name=f"order {self.rng.getrandbits(64):x}", kind=2, start_time_unix_nano=now - 10**6,
                                   end_time_unix_nano=now)
            span.trace_id, span.span_id = self.rng.randbytes(16), self.rng.randbytes(8)
            span.status.code = 2
        return request


def names_of(request):
    return {span.name for group in request.resource_spans for scope in group.scope_spans for span in scope.spans}


def taken(emulator):
    """Names of the spans that Log Service holds, as often as it holds them."""
    return sorted(c.Value for log in emulator.logs("otel-traces") for c in log.Contents if c.Key == "name")


def send(port, request, signal="traces"):
    headers = {"Content-Type": "application/x-protobuf"}
    url = f"http://127.0.0.1:{port}/v1/{signal}"
    urllib.request.urlopen(urllib.request.Request(url, request.SerializeToString(), headers), timeout=10).close()


def outage(stage):
    emulator, folder = stage.emulator, stage.folder / "outage"
    requests = [stage.failed(50) for _ in range(4)]
    everything = sorted(set().union(*map(names_of, requests)))
    queue = f"queue: {{ path: {folder / 'spool'}, longest_wait: 1s }}\n"
    with check("Log Service is away, kill -9, start, it is back: every failed trace arrives once"):
        emulator.clear()
        emulator.away = True
        with stage.tailkeep(stage.sls(), config=queue, folder=folder, killed=True) as running:
            for request in requests[:3]:
                send(running.http, request)
            on_disk = lambda: running.scrape().sum("tailkeep_queue_disk_bytes", signal="traces") > 0  # noqa: E731
            queued = lambda: running.scrape().sum("tailkeep_sink_queued", sink="sls", signal="traces")  # noqa: E731
            assert wait_until(20, lambda: queued() == 150 and on_disk()), running.stderr()[-800:]
            in_memory = lambda: running.scrape().sum("tailkeep_queue_memory_bytes", signal="traces")  # noqa: E731
            assert wait_until(20, lambda: in_memory() == 0), "not all of it reached the disk"
            equal(running.scrape().sum("tailkeep_sink_delivered_total", sink="file", signal="traces"), 150, "the other sink went on")
        equal(emulator.accepted, [])
        with stage.tailkeep(stage.sls(), config=queue, folder=folder) as running:
            equal(running.scrape().sum("tailkeep_sink_recovered_total", sink="sls"), 150)
            send(running.http, requests[3])
            emulator.away = False
            assert wait_until(40, lambda: len(taken(emulator)) >= 200), running.stderr()[-800:]
            equal(taken(emulator), everything)
            assert "the sink takes again" in running.stderr(), running.stderr()
        equal(emulator.refused, [])


def refusal(stage):
    emulator = stage.emulator
    with check("a pack that is refused for good: counted as such, said with its request id, and the next one goes on"):
        emulator.clear()
        bad = []

        def once(request):
            if not bad and "otel-traces" in request.path:
                bad.append(request)
                raise Refused(400, "PostBodyInvalid", "no reason at all")
        emulator.fault = once
        with stage.tailkeep(stage.sls()) as running:
            send(running.http, stage.failed(7))
            lost = {"sink": "sls", "signal": "traces", "reason": "refused"}
            counted = lambda: running.scrape().sum("tailkeep_sink_discarded_total", **lost) == 7  # noqa: E731
            assert wait_until(20, counted), running.stderr()[-800:]
            send(running.http, good := stage.failed(3))
            assert wait_until(20, lambda: taken(emulator) == sorted(names_of(good))), running.stderr()[-800:]
            said = [line for line in running.stderr().splitlines() if "PostBodyInvalid" in line]
            equal(len(said), 1, said)
            for part in ("ERROR", "sls", "traces", "7", "no reason at all", "request id"):
                assert part in said[0], said[0]


def quota(stage):
    emulator = stage.emulator
    for code, pauses in (("WriteQuotaExceed", True), ("ShardWriteQuotaExceed", False)):
        with check(f"{code} pauses {'all stores' if pauses else 'its store alone'}, and nothing is lost"):
            emulator.clear()
            seen = []  # (time, store) of every write

            def limit(request, code=code, seen=seen):
                first = "otel-traces" in request.path and not any("otel-traces" in path for _, path in seen)
                seen.append((time.monotonic(), request.path))
                if first:
                    raise Refused(403, code)
            emulator.fault = limit
            logs = ExportLogsServiceRequest()
            logs.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "sold out"
            with stage.tailkeep(stage.sls(), config="measure: { every: 1h }\n") as running:
                send(running.http, request := stage.failed(2))
                # Batches leave in the order in which they were begun.
                queued = lambda: running.scrape().sum("tailkeep_sink_queued", sink="sls", signal="traces")  # noqa: E731
                assert wait_until(20, lambda: seen or queued()), running.stderr()[-800:]
                send(running.http, logs, "logs")
                assert wait_until(20, lambda: len(taken(emulator)) == 2 and emulator.logs("otel-logs"))
                equal(taken(emulator), sorted(names_of(request)))
            between = [path for at, path in seen[1:] if at < seen[0][0] + 0.95]
            equal(bool(between), not pauses, between)


def domain(stage):
    with check("a domain of one's own: it is the host, and the project is a header"):
        stage.emulator.clear()
        with stage.tailkeep(stage.sls(more=", domain: log.example.test")) as running:
            send(running.http, request := stage.failed(1))
            assert wait_until(20, lambda: taken(stage.emulator) == sorted(names_of(request))), running.stderr()[-800:]
        request = stage.emulator.accepted[0].request
        equal((request.header("host").split(":")[0], request.header("x-log-project")), ("log.example.test", "demo-proj"))


def rotation(stage, sts, token_file):
    with check("RRSA in the program: keys of four seconds are renewed ahead, under load, and all arrives"):
        emulator = stage.emulator
        emulator.clear()
        sts.clear(lifetime=4)
        auth = f"{{ type: rrsa, sts: '{sts.url}' }}"
        env = product.environment(None, **RRSA, OIDC_TOKEN_FILE=token_file)
        sent = set()
        with stage.tailkeep(stage.sls(auth=auth), env=env) as running:
            end = time.monotonic() + 7
            while time.monotonic() < end:
                send(running.http, request := stage.failed(5))
                sent |= names_of(request)
                time.sleep(0.05)
            assert wait_until(20, lambda: len(taken(emulator)) >= len(sent)), running.stderr()[-800:]
        equal((taken(emulator), emulator.refused), (sorted(sent), []))
        used = {a.request.header("x-acs-security-token") for a in emulator.accepted}
        assert len(used) >= 2, used


def reasons(stage):
    with check("ARMS: a failed trace leaves the program with the `sample.reason` that ARMS knows"):
        stub = arms.Http(arms.classic(), {})
        sink = f"  - name: arms\n    arms: {{ endpoint: '{stub.url}', token: '${{env:ARMS_TOKEN}}' }}\n"
        env = {**product.environment(), "ARMS_TOKEN": arms.TOKEN}
        with stage.tailkeep(sink, env=env) as running:
            send(running.http, stage.failed(1))
            traces = lambda: [t for t in stub.taken if isinstance(t, ExportTraceServiceRequest)]  # noqa: E731
            assert wait_until(20, traces), running.stderr()[-800:]
            assert arms.TOKEN not in running.stderr()
        span = traces()[0].resource_spans[0].scope_spans[0].spans[0]
        equal(arms.text_attributes(span.attributes)["sample.reason"], "s9")
        equal(stub.refused, [])
    with check("ARMS refuses the token: the data waits, and the token is not logged"):
        stub = arms.Http(arms.classic(), {})
        sink = (f"  - name: arms\n    arms: {{ endpoint: '{stub.url}', token: '${{env:ARMS_TOKEN}}', "
                "signals: [traces] }\n")
        queue = f"queue: {{ path: {stage.folder / 'arms'} }}\n"
        with stage.tailkeep(sink, config=queue, env={**product.environment(), "ARMS_TOKEN": "swordfish@x"}) as running:
            send(running.http, stage.failed(3))
            assert wait_until(20, lambda: stub.refused), running.stderr()[-800:]
            equal(running.scrape().sum("tailkeep_sink_queued", sink="arms"), 3)
            equal(running.scrape().sum("tailkeep_sink_discarded_total", sink="arms"), 0)
            assert "swordfish" not in running.stderr(), running.stderr()
        with stage.tailkeep(sink, config=queue, env={**product.environment(), "ARMS_TOKEN": arms.TOKEN}) as running:
            # With the right token after a restart.
            assert wait_until(20, lambda: stub.taken), running.stderr()[-800:]


def doctor(stage, sts, token_file):
    def run(sinks, env):
        file = stage.folder / "doctor.yaml"
        file.write_text(f"sinks:\n{sinks}")
        command = [binary(), "doctor", "--config", file]
        ran = subprocess.run(command, env=env, text=True, capture_output=True, timeout=60, check=False)
        return ran.returncode, ran.stdout, ran.stdout + ran.stderr

    emulator = stage.emulator
    stub = arms.Http(arms.classic(), {})
    arms_sink = f"  - name: arms\n    arms: {{ endpoint: '{stub.url}', token: '${{env:ARMS_TOKEN}}' }}\n"
    env = {**product.environment(None, **RRSA, OIDC_TOKEN_FILE=token_file), "ARMS_TOKEN": arms.TOKEN}
    auth = f"{{ type: rrsa, sts: '{sts.url}' }}"
    with check("tailkeep doctor: keys from STS, three stores and ARMS, with request ids"):
        emulator.clear()
        sts.clear()
        code, out, _ = run(stage.sls(auth=auth) + arms_sink, env)
        equal(code, 0, out)
        assert "keys from RRSA: access key id STS." in out and "request id STS-R" in out, out
        equal(emulator.probed, ["otel-traces", "otel-metrics", "otel-logs"])
        assert out.count("request id") == 4 + 2 and "6 probes, none failed" in out, out
        assert not emulator.accepted and all(not t.ByteSize() for t in stub.taken), "it wrote something"
    with check("tailkeep doctor: what fails is said with advice, exits 1, and shows no secret"):
        broken = {**env, "ARMS_TOKEN": "swordfish@x"}
        emulator.fault = lambda request: (_ for _ in ()).throw(Refused(404, "LogStoreNotExist"))
        code, out, everything = run(stage.sls(auth=auth) + arms_sink, broken)
        equal(code, 1, out)
        assert out.count("FAIL") == 5 and "create otel-traces" in out and "check the token" in out, out
        assert "5 of 6 probes failed" in out and "swordfish" not in everything, everything
    with check("tailkeep doctor: a role that STS does not know, and a machine without one"):
        emulator.clear()
        unknown = {**env, "ALIBABA_CLOUD_ROLE_ARN": "nonsense"}
        code, out, _ = run(stage.sls(auth=auth), unknown)
        assert code == 1 and "EntityNotExist.Role" in out and "rrsa-trust.json" in out, out
        nobody = Metadata(sts, v1=False, v2=False)
        code, out, _ = run(stage.sls(auth=f"{{ type: ecs_role, metadata: '{nobody.url}' }}"), product.environment(None))
        assert code == 1 and "attach a RAM role" in out, out
        equal(emulator.probed, [])
    with check("tailkeep doctor: keys that may only write are no failure"):
        emulator.clear()
        denied = "denied by sts or ram, action: log:GetLogStore, resource: acs:log:cn-hangzhou:1:project/demo-proj"
        emulator.fault = lambda request: (_ for _ in ()).throw(Refused(401, "Unauthorized", denied))
        code, out, _ = run(stage.sls(), product.environment())
        assert code == 0 and out.count("  ?  ") == 3 and "sls-doctor.json" in out, out


def run(emulator, sts, folder, token_file):
    stage = Stage(emulator, folder)
    outage(stage)
    refusal(stage)
    quota(stage)
    domain(stage)
    rotation(stage, sts, token_file)
    reasons(stage)
    doctor(stage, sts, token_file)
    emulator.clear()
