"""The alerts: Prometheus reads them, each fires in its case and is silent before, and each has a row in the documents."""

import re

import yaml
from manifests import call
from suite.process import ROOT

RULES = ROOT / "config/prometheus/alerts.yaml"
TESTS = ROOT / "config/prometheus/alerts.tests.yaml"
METRIC = re.compile(r"\b(?:tailkeep|traces_span_metrics)_\w+")
# Rows that explain another one.
EXPLAIN = {"tailkeep_traces_left_total"}


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def are_tested(checks):
    call("promtool", "check", "rules", RULES)
    checks.check("promtool reads the alerts", True)
    try:
        call("promtool", "test", "rules", TESTS)
        checks.check("every case of the alerts is as it says", True)
    except RuntimeError as error:
        checks.check("every case of the alerts is as it says", False, str(error))
    cases = {case["name"]: case["promql_expr_test"] for case in yaml.safe_load(TESTS.read_text())["tests"]}
    checks.equal("every alert has a case", sorted(cases), sorted(rule["alert"] for rule in rules()))
    for rule in rules():
        alert_is_whole(checks, rule, cases.get(rule["alert"], []))
    groups = {group["name"]: {rule["labels"]["severity"] for rule in group["rules"]}
              for group in yaml.safe_load(RULES.read_text())["groups"]}
    checks.equal("symptoms page, causes make tickets", groups,
                 {"tailkeep-symptoms": {"page"}, "tailkeep-causes": {"ticket"}})
    documents_agree(checks)


def alert_is_whole(checks, rule, asked):
    name = rule["alert"]
    lines = [f"{question['expr']} asks for another alert" for question in asked if f'"{name}"' not in question["expr"]]
    fired = [sample["labels"] for question in asked for sample in question.get("exp_samples", [])]
    if not fired or all(question.get("exp_samples") for question in asked):
        lines.append("no case in which it fires, or none in which it is silent")
    if set(rule["annotations"]) != {"summary", "action"}:
        lines.append(f"it says {set(rule['annotations'])}, not what is and what to do")
    named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    lines += [f"it names {label}, which it has not" for label in named if any(f"{label}=" not in one for one in fired)]
    checks.equal(f"{name} fires, is silent, and says what to do", lines, [])


def documents_agree(checks):
    """`Is it healthy?` and the alerts speak of the same."""
    [section] = re.findall(r"^## Is it healthy\?\n(.*?)^## ", (ROOT / "docs/operating.md").read_text(), re.M | re.S)
    rows = [METRIC.findall(line.split("|")[1]) for line in section.splitlines() if line.startswith("| `")]
    documented = {metric for row in rows for metric in row}
    watched = {rule["alert"]: set(METRIC.findall(rule["expr"])) for rule in rules()}
    alerted = set().union(*watched.values())
    checks.equal("every row of `Is it healthy?` has an alert",
                 [row for row in rows if not set(row) & (alerted | EXPLAIN)], [])
    checks.equal("every alert has a row there",
                 [name for name, metrics in watched.items() if not metrics & documented], [])
