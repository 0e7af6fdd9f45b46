"""The Grafana dashboard and the alert rules use the metrics of docs/metrics.md as their types allow."""

import json
import os
import re
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DASHBOARD = "packaging/grafana/holdfast.json"
RULES = "packaging/prometheus/holdfast.rules.yml"
NAME = re.compile(r"\bholdfast_\w+")
# What goes up only: by its speed, never as it is.
SPEED = re.compile(r"\b(?:rate|increase|irate)\((holdfast_\w+)(?:\{[^}]*\})?\[")
SELECTED = re.compile(r"(holdfast_\w+)\{([^}]*)\}")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
PARTS = {"_bucket": {"le"}, "_sum": set(), "_count": set()}
OF_ALL = {"instance_name"}


def read(path):
    with open(os.path.join(ROOT, path)) as f:
        return f.read()


def documented(page):
    """{name: (type, labels)}, with the parts of histograms."""
    metrics = {}
    for name, kind, labels in re.findall(r"^\| `(holdfast_\w+)` \| (\w+) \| [^|]* \|(.*)\|$", page, re.M):
        own = set(re.findall(r"(?:^|; )`(\w+)`", labels.strip()))
        if kind == "histogram":
            for part, more in PARTS.items():
                metrics[name + part] = ("counter", own | more)
        else:
            metrics[name] = (kind, own)
    return metrics


def expressions(dashboard):
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']!r}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']!r}", variable["query"]["query"]


def rules(text):
    for expression in re.findall(r"^\s*expr: (.*)$", text, re.M):
        yield "a rule", expression


def faults(place, expression, metrics):
    names = NAME.findall(expression)
    if not names:
        yield f"{place}: no metric in {expression}"
    speeds = SPEED.findall(expression)
    labels = set(OF_ALL)
    for name in names:
        if name not in metrics:
            yield f"{place}: {name} is not in docs/metrics.md"
            continue
        kind, own = metrics[name]
        labels |= own
        counted = speeds.count(name) == names.count(name)
        if kind == "counter" and not counted:
            yield f"{place}: {name} is a counter, and is used without rate() or increase()"
        if kind == "gauge" and name in speeds:
            yield f"{place}: {name} is a gauge, and has no rate"
    for name, selected in SELECTED.findall(expression):
        known = OF_ALL | metrics.get(name, ("", set()))[1]
        for label in re.findall(r"(\w+)\s*[=!]", selected):
            if label not in known:
                yield f"{place}: {name} has no label {label}"
    for group in GROUPED.findall(expression):
        for label in re.split(r",\s*", group):
            if label not in labels:
                yield f"{place}: no metric of {expression} has the label {label}"
    if "histogram_quantile" in expression and not all(name.endswith("_bucket") for name in names):
        yield f"{place}: a quantile of what is no histogram: {expression}"


class DashboardTest(unittest.TestCase):
    metrics = documented(read("docs/metrics.md"))

    def test_the_dashboard_uses_metrics_as_they_are(self):
        found = list(expressions(json.loads(read(DASHBOARD))))
        self.assertGreater(len(found), 10)
        self.assertEqual([fault for place, expression in found for fault in faults(place, expression, self.metrics)], [])

    def test_the_rules_use_metrics_as_they_are(self):
        found = list(rules(read(RULES)))
        self.assertGreater(len(found), 5)
        self.assertEqual([fault for place, expression in found for fault in faults(place, expression, self.metrics)], [])

    def test_panels_have_places_of_their_own(self):
        places = [panel["gridPos"] for panel in json.loads(read(DASHBOARD))["panels"]]
        cells = [(x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
        self.assertEqual(len(cells), len(set(cells)))
        self.assertLess(max(x for x, _ in cells), 24)

    def test_a_wrong_use_is_found(self):
        metrics = documented("| `holdfast_c_total` | counter | C | `why`: x |\n| `holdfast_g` | gauge | G |  |\n"
                             "| `holdfast_h` | histogram | H |  |\n")
        for expression in ("holdfast_none", "holdfast_c_total", "rate(holdfast_g[1m])", "1", "holdfast_h",
                           "sum by (how) (rate(holdfast_c_total[1m]))", 'rate(holdfast_c_total{how="x"}[1m])',
                           "rate(holdfast_c_total[1m]) + holdfast_c_total", "histogram_quantile(0.5, holdfast_g)"):
            self.assertNotEqual(list(faults("", expression, metrics)), [], expression)
        for expression in ('holdfast_g{instance_name="x"}', 'sum by (why) (rate(holdfast_c_total{why="x"}[5m]))',
                           "histogram_quantile(0.5, sum by (le) (rate(holdfast_h_bucket[5m])))"):
            self.assertEqual(list(faults("", expression, metrics)), [], expression)


if __name__ == "__main__":
    unittest.main()
