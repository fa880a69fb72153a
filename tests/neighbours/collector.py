"""The OpenTelemetry Collector, built once and started with a configuration of a test's choice."""

import json
import os
import socket
import urllib.request
from pathlib import Path

from suite import otlp
from suite.process import TARGET, Program, build, wait_until

HERE = Path(__file__).resolve().parent
VERSION = "v0.161.0"


def binary():
    """TAILKEEP_OTELCOL, else the one of builder.yaml, built by Go if it is not there yet."""
    if given := os.environ.get("TAILKEEP_OTELCOL"):
        return Path(given).resolve()
    folder = TARGET / "otelcol"
    built = folder / "build" / "otelcol"
    manifest = folder / "builder.yaml"
    wanted = (HERE / "builder.yaml").read_text()
    if not built.exists() or not manifest.exists() or manifest.read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["GOBIN"] = str(folder)
        build("go install", ["go", "install", f"go.opentelemetry.io/collector/cmd/builder@{VERSION}"], folder)
        build("building the Collector", [folder / "builder", "--config", HERE / "builder.yaml"], folder)
        manifest.write_text(wanted)  # last: says that the build was finished
    return built


class Collector(Program):
    """A Collector whose configuration is given as a dictionary; `ports` are those that it listens on."""

    def __init__(self, name, folder, config, ports):
        self._ports = ports
        config["service"]["telemetry"] = {"logs": {"level": "warn"}, "metrics": {"level": "none"}}
        file = folder / f"{name}.json"  # JSON is YAML
        file.write_text(json.dumps(config, indent=1))
        super().__init__(name, [binary(), "--config", file], folder)

    def __enter__(self):
        super().__enter__()
        if not wait_until(20, lambda: not self.running or all(map(listens, self._ports))) or not self.running:
            self.__exit__()
            raise RuntimeError(f"{self.name} did not start:\n{self.stderr()}")
        return self


def listens(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def receiver(grpc=None, http=None):
    protocols = {"grpc": grpc, "http": http}
    return {"protocols": {name: {"endpoint": f"127.0.0.1:{port}"} for name, port in protocols.items() if port}}


def file_exporter(path):
    return {"path": str(path), "flush_interval": "100ms"}


def post(port, signal, request):
    """Sends one OTLP/JSON request; raises unless all of it was taken."""
    body = json.dumps(request).encode()
    message = urllib.request.Request(f"http://127.0.0.1:{port}/v1/{signal}", body, {"content-type": "application/json"})
    with urllib.request.urlopen(message, timeout=20) as response:
        answer = json.load(response)
    if answer.get("partialSuccess"):
        raise RuntimeError(f"only part of a request was taken: {answer}")


def spans_in(path):
    requests = otlp.read_lines(path) if path.exists() else []
    return [span for request in requests for span in otlp.spans(request)]
