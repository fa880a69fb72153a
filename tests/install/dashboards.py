"""A real Prometheus scrapes the demo: every panel is answered, every alert watches something, and none fires."""

import json
import re
import time
import urllib.parse
from contextlib import ExitStack

from alerts import RULES, rules
from suite.process import ROOT, Program, free_ports, get, wait_until
from suite.tailkeep import Tailkeep, binary, fresh_folder

DASHBOARDS = sorted((ROOT / "config/grafana").glob("*.json"))
# The demo's own.
HEALTH = 13133
# What Grafana puts in place of its variables: an interval, and everything.
VARIABLES = {"$__rate_interval": "10s", "$service": ".*", "$operation": ".*", "$job": ".*", "$instance": ".*"}
SELECTOR = re.compile(r"\btailkeep_\w+(?:\{[^}]*\})?")


class Prometheus(Program):
    def __init__(self, folder, targets):
        [own] = free_ports(1)
        self.url = f"http://127.0.0.1:{own}"
        jobs = [{"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
                for name, port in targets.items()]
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "2s"}, "scrape_configs": jobs,
                  "rule_files": [str(RULES)]}
        (folder / "prometheus.json").write_text(json.dumps(config))  # JSON is YAML
        super().__init__("prometheus", [
            "prometheus", f"--config.file={folder / 'prometheus.json'}", f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{own}", "--log.level=warn"], folder)

    def ask(self, path, **arguments):
        answer = get(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(arguments)}", timeout=20)
        return json.loads(answer)["data"] if answer else None

    def series(self, query):
        """The labels of each number that a query gives."""
        answer = self.ask("query", query=query)
        return [row["metric"] for row in answer["result"] if row["value"][1] != "NaN"] if answer else []


def are_answered(checks):
    for file in DASHBOARDS:
        checks.equal(f"{file.name}: panels have room, a source and a description", flaws(json.loads(file.read_text())), [])
    folder = fresh_folder("install/demo")
    (folder / "home").mkdir()
    policy = (ROOT / "config/policy.yaml").read_text()
    with ExitStack() as stack:
        environment = {"HOME": folder / "home", "XDG_DATA_HOME": folder / "home"}
        demo = stack.enter_context(Program("demo", [binary(), "demo"], folder, environment))
        # The demo's policy has no limits of rules about failed and slow traces; this one has.
        beside = stack.enter_context(Tailkeep(folder, policy))
        targets = {"demo": HEALTH, "beside": beside.health}
        prometheus = stack.enter_context(Prometheus(folder, targets))
        scraped = wait_until(60, lambda: len(prometheus.series("up == 1")) == len(targets))
        checks.check("Prometheus scrapes the demo", scraped and demo.running, prometheus.stderr() + demo.stderr())
        end = time.monotonic() + 60
        for (query, legend), claim in queries().items():
            series = wait_until(max(1, end - time.monotonic()), lambda: prometheus.series(query))
            named = all(legend <= labels.keys() for labels in series)
            checks.check(claim, series and named, f"{query} has {series}, the legend asks for {legend}")
        alerts_watch_what_is_there(checks, prometheus)


def flaws(board):
    """What Grafana would draw badly, without a word."""
    taken, lines = {}, []
    if len({panel["id"] for panel in board["panels"]}) < len(board["panels"]):
        lines.append("two panels have one id")
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        if any(x > 23 for x, _ in cells) or cells & taken.keys():
            lines.append(f"{panel['title']} is on {[taken[cell] for cell in cells & taken.keys()][:1]}, or too wide")
        taken |= dict.fromkeys(cells, panel["title"])
        if panel["type"] == "row":
            continue
        sources = {part["datasource"]["uid"] for part in [panel, *panel["targets"]]}
        if sources != {"${datasource}"} or not panel["description"]:
            lines.append(f"{panel['title']} has no description, or another data source than the variable")
    return lines


def queries():
    """Each query of each dashboard once, as Grafana would send it, and labels of its legend, with the panel's name."""
    found = {}
    for file in DASHBOARDS:
        board = json.loads(file.read_text())
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        asked = [(panel["title"], target["expr"], target.get("legendFormat", ""))
                 for panel in panels for target in panel["targets"]]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()
                asked.append((f"${variable['name']}", f"count by ({label}) ({selector})", f"{{{{{label}}}}}"))
        for title, query, legend in asked:
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            if "$" in query:
                raise ValueError(f"{file.name}: {title}: an unknown variable in {query}")
            labels = frozenset(re.findall(r"{{(\w+)}}", legend))
            found.setdefault((query, labels), f"{file.name}: {title}: Prometheus answers")
    return found


def alerts_watch_what_is_there(checks, prometheus):
    for selector in sorted({found for rule in rules() for found in SELECTOR.findall(rule["expr"])}):
        checks.check(f"there are series of {selector}", prometheus.series(selector))
    loaded = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    checks.equal("Prometheus evaluates every alert", sorted(rule["name"] for rule in loaded if rule["health"] == "ok"),
                 sorted(rule["alert"] for rule in rules()))
    firing = [alert["labels"] for alert in prometheus.ask("alerts")["alerts"] if alert["state"] == "firing"]
    checks.equal("no alert fires on the demo", firing, [])
