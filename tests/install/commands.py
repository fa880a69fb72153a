"""Runs the command lines of docs/install.md, each as it stands but for what needs a cluster."""

import re
import shlex
import subprocess

from manifests import complaints, read
from suite.process import ROOT, TARGET

DOCUMENT = ROOT / "docs/install.md"


def run(checks):
    blocks = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line]
    checks.check("docs/install.md shows commands", len(lines) > 5, str(lines))
    for line in lines:
        try:
            of_line(shlex.split(line))
            checks.check(line, True)
        except (RuntimeError, ValueError) as error:
            checks.check(line, False, str(error))


def of_line(words):
    match words:
        # Needs a cluster: what would be sent there is rendered, and taken.
        case ["helm", "upgrade", "--install", name, chart, *rest]:
            rest = [word for word in rest if word != "--create-namespace"]
            taken(shell("helm", "template", name, chart, *rest))
        case ["kubectl", "apply", "-k", folder]:
            taken(shell("kustomize", "build", folder))
        case ["kubectl", "apply", *files]:
            for flag, file in zip(files[::2], files[1::2], strict=True):
                if flag != "-f":
                    raise ValueError(f"{flag}: say here what this means")
                taken((ROOT / file).read_text())
        case ["kubectl", *rest] if {"create", "secret", "namespace"} & set(rest):
            pass
        case ["python3", "config/sbom.py", ">", file]:
            (TARGET / "install" / file).write_text(shell("python3", "config/sbom.py"))
        case ["helm" | "promtool", *_]:
            shell(*words)
        case _:
            raise ValueError("say here how to run this")


def shell(*words):
    done = subprocess.run(words, cwd=ROOT, text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr or done.stdout)
    return done.stdout


def taken(text):
    if found := complaints(read(text)):
        raise RuntimeError("\n".join(found))
