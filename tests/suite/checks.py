"""One line a check, and the closing line that says how many held."""

import sys
import time


class Checks:
    def __init__(self):
        self.passed = 0
        self.failed = 0
        self._start = time.monotonic()

    def check(self, claim, holds, detail=""):
        """Prints whether `claim` holds; `detail` (text or a list of lines) is for when it does not."""
        seconds = time.monotonic() - self._start
        print(f"{'ok  ' if holds else 'FAIL'} {seconds:6.1f}s  {claim}", flush=True)
        if holds:
            self.passed += 1
            return
        self.failed += 1
        for line in [detail] if isinstance(detail, str) else detail:
            for part in line.splitlines():
                print(f"        {part}", flush=True)

    def equal(self, claim, got, want):
        self.check(claim, got == want, [f"got  {_short(got)}", f"want {_short(want)}"])

    def close(self):
        """Prints the closing line and gives the exit code."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 0 if self.failed == 0 and self.passed > 0 else 1


def run(suite):
    """Runs `suite(checks)`; an exception is one failed check."""
    checks = Checks()
    try:
        suite(checks)
    except Exception as error:  # the closing line must come whatever happened
        checks.check("the suite runs to its end", False, f"{type(error).__name__}: {error}\n{_where(error)}")
    sys.exit(checks.close())


def _where(error):
    trace = error.__traceback__
    places = []
    while trace:
        code = trace.tb_frame.f_code
        places.append(f"  in {code.co_name} ({code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno})")
        trace = trace.tb_next
    return "\n".join(places)


def _short(value):
    text = repr(value)
    return text if len(text) < 600 else text[:600] + " …"
