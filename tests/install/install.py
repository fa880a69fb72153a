"""What is ready to install, checked without a cluster. `--write` first makes what is made of other files."""

import sys

import alerts
import bill
import chart
import commands
import dashboards
import overlays
from suite import checks as checking


def suite(checks):
    if "--write" in sys.argv:
        overlays.write()
        chart.write()
    alerts.are_tested(checks)
    chart.is_right(checks)
    overlays.are_right(checks)
    bill.is_right(checks)
    commands.run(checks)
    dashboards.are_answered(checks)


checking.run(suite)
