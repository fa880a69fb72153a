"""The tailkeep binary, started with a policy and sinks of a suite's choice."""

import os
import shutil
from pathlib import Path

from . import otlp
from .metrics import Scrape
from .process import ROOT, TARGET, Program, build, free_ports, get, wait_until


def binary():
    """TAILKEEP_BIN, else a debug build of this tree."""
    if given := os.environ.get("TAILKEEP_BIN"):
        return Path(given).resolve()
    build("cargo build", ["cargo", "build", "--quiet", "--bin", "tailkeep"], ROOT)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "tailkeep"


def fresh_folder(name):
    """An empty folder for a run's files, which stay there to be looked at."""
    folder = TARGET / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class Tailkeep(Program):
    """`tailkeep run` on ports of its own, with a file sink beside what `sinks` adds."""

    def __init__(self, folder, policy, sinks="", name="tailkeep", config="", env=None):
        self.folder = Path(folder)
        self.grpc, self.http, self.health, self.admin = free_ports(4)
        self.out = self.folder / f"{name}.out"  # traces.jsonl, metrics.jsonl and logs.jsonl
        policy_file = self.folder / f"{name}.policy.yaml"
        config_file = self.folder / f"{name}.yaml"
        policy_file.write_text(policy)
        config_file.write_text(
            f"receive: {{ grpc: 127.0.0.1:{self.grpc}, http: 127.0.0.1:{self.http} }}\n"
            "ring: { size: 64MiB }\n"
            f"health: {{ listen: 127.0.0.1:{self.health} }}\n"
            f"admin: {{ listen: 127.0.0.1:{self.admin} }}\n"
            f"{config}"
            "sinks:\n"
            f"  - name: file\n    file: {{ path: {self.out}, format: json }}\n"
            f"{sinks}"
        )
        argv = [binary(), "run", "--config", config_file, "--policy", policy_file]
        super().__init__(name, argv, folder, env)

    def __enter__(self):
        super().__enter__()
        url = f"http://127.0.0.1:{self.health}/readyz"
        if not wait_until(20, lambda: not self.running or get(url) is not None) or not self.running:
            self.__exit__()
            raise RuntimeError(f"tailkeep did not become ready:\n{self.stdout()}{self.stderr()}")
        return self

    def scrape(self):
        text = get(f"http://127.0.0.1:{self.health}/metrics")
        if text is None:
            raise RuntimeError(f"tailkeep has no metrics:\n{self.stdout()}{self.stderr()}")
        return Scrape(text)

    def requests(self):
        """What the file sink holds so far."""
        return [request for file in sorted(self.out.glob("*.jsonl")) for request in otlp.read_lines(file)]

    def spans(self):
        return [span for request in self.requests() for span in otlp.spans(request)]
