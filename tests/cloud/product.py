"""Runs the sinks under test: the example `deliver_once` of this repository."""

import json
import os
import subprocess

BINARY = os.environ["DELIVER_ONCE"]
KEYS = ("testAccessKeyId", "testAccessKeySecret", None)
STS_KEYS = ("STS.test", "stsSecret", "testSecurityToken+/=")


def environment(keys=KEYS, **variables):
    made = {"PATH": os.environ["PATH"], "RUST_LOG": "error", "NO_COLOR": "1"}
    if keys:
        made["ALIBABA_CLOUD_ACCESS_KEY_ID"], made["ALIBABA_CLOUD_ACCESS_KEY_SECRET"] = keys[:2]
        if keys[2]:
            made["ALIBABA_CLOUD_SECURITY_TOKEN"] = keys[2]
    made.update({f"ALIBABA_CLOUD_{name}": text for name, text in variables.items()})
    return made


def sls_arguments(emulator, **options):
    arguments = ["--endpoint", f"http://cn-hangzhou.log.test:{emulator.port}"]
    arguments += ["--connect-to", f"127.0.0.1:{emulator.port}"]
    for name, text in options.items():
        flag = "--" + name.replace("_", "-")
        arguments += [flag] if text is True else [flag, str(text)]
    return arguments


def start_sls(emulator, files, keys=KEYS, variables=None, **options):
    command = [BINARY, "sls", *sls_arguments(emulator, **options), *files]
    return subprocess.Popen(command, env=environment(keys, **(variables or {})), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def result(process, timeout=120):
    out, errors = process.communicate(timeout=timeout)
    assert process.returncode == 0, f"exit {process.returncode}: {errors[-800:]}"
    return json.loads(out.splitlines()[-1])


def sls(emulator, files, **kwargs):
    return result(start_sls(emulator, files, **kwargs))


def run(*arguments, keys=None, variables=None):
    return subprocess.run([BINARY, *arguments], env=environment(keys, **(variables or {})), text=True,
                          capture_output=True, timeout=60, check=False)
