

import alerts
import dashboards
from suite import checks as checking


def suite(checks):
    alerts.are_tested(checks)
    dashboards.are_answered(checks)


checking.run(suite)
