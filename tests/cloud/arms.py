"""ARMS's two generations of endpoints, as strict as their documents."""

import concurrent.futures
import gzip
import json

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import corpus
import product
from checks import check, equal
from server import QuietServer

TOKEN = "abc@def_abc@ghi"
LICENCE = {"x-arms-license-key": "key1", "x-arms-project": "proj-xtrace-1", "x-cms-workspace": "prod"}


def classic():
    """Paths of the classic endpoint and what is sent there."""
    return {f"/adapt_{TOKEN}/api/otlp/traces": ExportTraceServiceRequest,
            f"/adapt_{TOKEN}/api/otlp/metrics": ExportMetricsServiceRequest}


class Http:
    """Takes traces and metrics on exactly the given paths with exactly the given headers."""

    def __init__(self, paths, headers):
        self.paths, self.headers, self.taken, self.refused = paths, headers, [], []
        self.server = QuietServer(self._answer)
        self.url = self.server.url

    def _answer(self, request):
        kind = self.paths.get(request.path)
        named = {name: request.headers.get(name) for name in (*self.headers, "authentication")}
        wanted = {**{"authentication": None}, **self.headers}
        if kind is None or named != wanted or request.header("content-type") != "application/x-protobuf":
            self.refused.append(request.target)
            return 403, {}, b""
        body = request.body
        if request.header("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.taken.append(kind.FromString(body))
        return 200, {"Content-Type": "application/x-protobuf", "x-request-id": "ARMS-R"}, b""


class Grpc:
    """Plain-text HTTP/2 with exactly the given metadata."""

    def __init__(self, metadata):
        self.metadata, self.taken, self.refused = metadata, [], []
        kinds = {"trace.v1.TraceService": ExportTraceServiceRequest,
                 "metrics.v1.MetricsService": ExportMetricsServiceRequest}
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), compression=None)
        for name, kind in kinds.items():
            handler = grpc.unary_unary_rpc_method_handler(
                self._export, request_deserializer=kind.FromString, response_serializer=lambda reply: reply)
            service = f"opentelemetry.proto.collector.{name}"
            self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def _export(self, request, context):
        metadata = dict(context.invocation_metadata())
        about_us = {name: text for name, text in metadata.items() if name.startswith(("auth", "x-arms", "x-cms"))}
        if about_us != self.metadata:
            self.refused.append(metadata)
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "token")
        self.taken.append(request)
        return b""


def text_attributes(attributes):
    return {attribute.key: attribute.value.string_value for attribute in attributes}


def run(folder):
    traces = corpus.traces(21, spans=16, plain=True)
    spans = traces.resource_spans[0].scope_spans[0].spans
    spans[0].attributes.extend(corpus.attributes({"tailkeep.reason": "failed"}))
    node = traces.resource_spans[1].resource.attributes
    node.extend(corpus.attributes({"k8s.node.name": "node-7"}))
    traces_file = corpus.write(folder, "arms", traces)
    metrics = corpus.metrics(22)
    delta = metrics.resource_metrics[0].scope_metrics[0].metrics.add(name="delta")
    delta.histogram.aggregation_temporality = 1
    delta.histogram.data_points.add(count=1)
    exponential = metrics.resource_metrics[0].scope_metrics[0].metrics.add(name="exponential")
    exponential.exponential_histogram.aggregation_temporality = 2
    exponential.exponential_histogram.data_points.add(count=3).positive.bucket_counts.extend([1, 2])
    files = [traces_file, corpus.write(folder, "arms", metrics)]

    def deliver(*arguments):
        ran = product.run("arms", *arguments, "--host-name", "here", *files)
        assert ran.returncode == 0, ran.stderr
        assert TOKEN not in ran.stderr and "key1" not in ran.stderr
        equal(json.loads(ran.stdout.splitlines()[-1])["rejected"], 1, "the delta histogram")

    def verify(taken):
        equal(len(taken), 2)
        got, sent = taken[0], traces.resource_spans
        for index, host in enumerate(["node-1", "node-7", corpus.TEXTS[3], "here"]):
            equal(text_attributes(got.resource_spans[index].resource.attributes)["host.name"], host)
        first = got.resource_spans[0].scope_spans[0].spans[0]
        equal(text_attributes(first.attributes)["sample.reason"], "s9")
        del first.attributes[-1]
        equal([s for r in got.resource_spans for s in r.scope_spans], [s for r in sent for s in r.scope_spans])
        got = {metric.name: metric for metric in taken[1].resource_metrics[0].scope_metrics[0].metrics}
        assert "delta" not in got
        sent_gauges = {m.name: m for m in metrics.resource_metrics[0].scope_metrics[0].metrics if m.HasField("gauge")}
        assert sent_gauges
        equal({name: got[name] for name in sent_gauges}, sent_gauges, "gauges pass")
        equal(list(got["exponential"].histogram.data_points[0].bucket_counts), [0, 1, 2, 0])

    with check("ARMS classic over HTTP: token in the path, no header"):
        stub = Http(classic(), {})
        deliver("--endpoint", stub.url, "--token", TOKEN)
        equal(stub.refused, [])
        verify(stub.taken)
    with check("ARMS classic over gRPC: Authentication metadata on plain HTTP/2"):
        stub = Grpc({"authentication": TOKEN})
        deliver("--endpoint", "http://dc.test:8090", "--connect-to", f"127.0.0.1:{stub.port}", "--token", TOKEN)
        equal(stub.refused, [])
        verify(stub.taken)
    with check("ARMS with licence, project and workspace"):
        paths = {"/opentelemetry/v1/traces": ExportTraceServiceRequest,
                 "/opentelemetry/v1/metrics": ExportMetricsServiceRequest}
        stub = Http(paths, LICENCE)
        licence = ["--licence", "key1", "--project", "proj-xtrace-1", "--workspace", "prod"]
        deliver("--endpoint", stub.url, *licence)
        equal(stub.refused, [])
        verify(stub.taken)
        for group in [*stub.taken[0].resource_spans, *stub.taken[1].resource_metrics]:
            equal(text_attributes(group.resource.attributes)["acs.cms.workspace"], "prod")
    with check("ARMS with licence, project and workspace over gRPC"):
        stub = Grpc(LICENCE)
        deliver("--endpoint", "http://proj.test:10010", "--connect-to", f"127.0.0.1:{stub.port}", *licence)
        equal(stub.refused, [])
        verify(stub.taken)
    with check("a wrong token is refused and is not printed"):
        stub = Http(classic(), {})
        ran = product.run("arms", "--endpoint", stub.url, "--token", "swordfish@x", *files)
        assert ran.returncode and "403" in ran.stderr, ran.stderr
        assert "swordfish" not in ran.stderr + ran.stdout
    with check("doctor: an empty export, and advice without the token"):
        stub = Http(classic(), {})
        ran = product.run("doctor", "arms", "--endpoint", stub.url, "--token", TOKEN)
        equal(ran.returncode, 0, ran.stdout)
        ran = product.run("doctor", "arms", "--endpoint", stub.url, "--token", "swordfish@x")
        assert ran.returncode and "FAIL" in ran.stdout and "swordfish" not in ran.stdout + ran.stderr, ran.stdout
