"""Programs under test: started, waited for, stopped by signal, their output kept in files."""

import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "target" / "suites"


def free_ports(count):
    """Ports that nothing listens on. All are held at once, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def wait_until(seconds, condition):
    """Asks `condition` until it is true, gives its last answer."""
    end = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return answer


def get(url, timeout=5):
    """The body at `url` as text, or None if it is not there or not fine."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return response.read().decode()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def build(what, argv, cwd, seconds=600):
    """Runs a build step; its output is shown if it fails."""
    done = subprocess.run(argv, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds)
    if done.returncode != 0:
        raise RuntimeError(f"{what} failed: {' '.join(map(str, argv))}\n{done.stdout[-4000:]}")
    return done.stdout


class Program:
    """A child process. `with` makes sure that it is gone at the end."""

    def __init__(self, name, argv, folder, env=None):
        self.name = name
        self._argv = [str(part) for part in argv]
        self._env = os.environ | {key: str(val) for key, val in (env or {}).items()}
        self._stdout = Path(folder) / f"{name}.stdout"
        self._stderr = Path(folder) / f"{name}.stderr"
        self._process = None

    def __enter__(self):
        with open(self._stdout, "wb") as out, open(self._stderr, "wb") as err:
            self._process = subprocess.Popen(self._argv, env=self._env, stdout=out, stderr=err)
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def running(self):
        return self._process.poll() is None

    def port(self, seconds=20):
        """The port in its line `listening PORT`."""
        found = wait_until(
            seconds, lambda: re.search(r"^listening (\d+)$", self.stdout(), re.MULTILINE) or not self.running
        )
        if not isinstance(found, re.Match):
            raise RuntimeError(f"{self.name} does not listen:\n{self.stdout()}{self.stderr()}")
        return int(found[1])

    def ask_to_stop(self):
        self._process.send_signal(signal.SIGTERM)

    def exit_code(self, seconds=30):
        """Waits for its end. None if it does not come to one."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, seconds=30):
        self.ask_to_stop()
        return self.exit_code(seconds)

    def stdout(self):
        return self._stdout.read_text(errors="replace")

    def stderr(self):
        return self._stderr.read_text(errors="replace")
