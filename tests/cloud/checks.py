"""Counts checks. A check that raises has failed; the run goes on."""

import contextlib
import sys
import traceback

passed, failed = [], []


@contextlib.contextmanager
def check(name):
    try:
        yield
    except Exception as error:  # noqa: BLE001  (any error is the check's)
        failed.append(name)
        where = traceback.extract_tb(error.__traceback__)[-1]
        print(f"FAIL  {name}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})", flush=True)
    else:
        passed.append(name)
        print(f"ok    {name}", flush=True)


def equal(left, right, what=""):
    assert left == right, f"{what} {left!r} is not {right!r}"


def finish():
    print(f"{len(passed)} passed, {len(failed)} failed")
    sys.exit(bool(failed))
