"""The alerts and the dashboard speak of metrics, labels and words that the processor has, and alerts fire."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector

from neatlogs_processor.core.policy import Place
from neatlogs_processor.core.request import Signal
from neatlogs_processor.exposition import Exposition, described
from neatlogs_processor.holding.memory import EVICTED, NO_END_USER, STAMPED, TIMED_OUT
from neatlogs_processor.holding.sorting import NO_TRACE_ID, ROOT
from neatlogs_processor.telemetry import QUEUE_OUTCOMES, Telemetry

REPOSITORY = Path(__file__).resolve().parents[2]
ALERTS = REPOSITORY / "deploy" / "prometheus" / "alerts.yaml"
ALERTS_TEST = REPOSITORY / "tests" / "data" / "prometheus" / "alerts.test.yaml"
DASHBOARD = REPOSITORY / "deploy" / "grafana" / "dashboard.json"

INHERIT_OUTCOMES = (STAMPED, NO_END_USER, TIMED_OUT, EVICTED, ROOT, NO_TRACE_ID)

# What Prometheus itself puts on every series of a target.
OF_TARGETS = {"job", "instance"}
METRICS = {metric.name: metric for metric in described(Telemetry())}

_registry = CollectorRegistry()
ProcessCollector(registry=_registry)
OF_PROCESSES = {sample.name for family in _registry.collect() for sample in family.samples}

# Grafana puts a range and chosen values where these stand.
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*"}


class Used(NamedTuple):
    """One metric in an expression: its name as scraped, what is asked of its labels, and the function around it."""

    metric: str
    matchers: tuple[tuple[str, str], ...]
    function: str


def alerts() -> list[dict[str, Any]]:
    """Every alert."""
    content = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Every panel of the dashboard that shows something."""
    content = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [panel for panel in content["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """Every PromQL expression, by where it stands."""
    found = {f"alert {rule['alert']}": rule["expr"] for rule in alerts()}
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"]
            for variable, value in VARIABLES.items():
                text = text.replace(variable, value)
            found[f"panel {panel['title']} {target['refId']}"] = text
    return found


def walked(expression: promql_parser.Expr, function: str = "") -> Iterator[promql_parser.Expr | Used]:
    """Every node of an expression, and every metric in it."""
    yield expression
    if isinstance(expression, promql_parser.MatrixSelector):
        expression = expression.vector_selector
    if isinstance(expression, promql_parser.VectorSelector):
        matchers = tuple((one.name, one.value) for one in expression.matchers.matchers)
        yield Used(str(expression.name), matchers, function)
    if isinstance(expression, promql_parser.Call):
        for argument in expression.args:
            yield from walked(argument, expression.func.name)
    for child in ("expr", "lhs", "rhs"):
        if hasattr(expression, child):
            yield from walked(getattr(expression, child), function)


def used(text: str) -> list[Used]:
    """The metrics of an expression."""
    return [one for one in walked(promql_parser.parse(text)) if isinstance(one, Used)]


def labels_of(name: str) -> set[str] | None:
    """The labels of a series that is scraped under this name; `None` where there is no such series."""
    if name in METRICS and METRICS[name].kind != "histogram":
        return set(METRICS[name].labels)
    for suffix in ("_bucket", "_sum", "_count"):
        histogram = METRICS.get(name.removesuffix(suffix))
        if name.endswith(suffix) and histogram is not None and histogram.kind == "histogram":
            return {*histogram.labels, *({"le"} if suffix == "_bucket" else set())}
    return set() if name in OF_PROCESSES else None


def labels_left(expression: promql_parser.Expr) -> set[str]:
    """The labels of an expression's result, which an annotation may name."""
    if isinstance(expression, promql_parser.AggregateExpr):
        return set(expression.modifier.labels) if expression.modifier is not None else set()
    if isinstance(expression, promql_parser.BinaryExpr):
        return labels_left(expression.lhs)
    if isinstance(expression, promql_parser.ParenExpr):
        return labels_left(expression.expr)
    if isinstance(expression, promql_parser.Call):
        return labels_left(expression.args[-1])
    if isinstance(expression, promql_parser.MatrixSelector):
        return labels_left(expression.vector_selector)
    return (labels_of(str(expression.name)) or set()) | OF_TARGETS


def words_of_errors() -> set[str]:
    """What an outcome or a reason may be: the words of the errors, and those beside them."""
    source = (REPOSITORY / "processor" / "neatlogs_processor" / "errors.py").read_text(encoding="utf-8")
    reasons = {
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        and any(isinstance(one, ast.Name) and one.id == "reason" for one in node.targets)
    }
    return reasons | {"ok", "client_gone", *QUEUE_OUTCOMES, *INHERIT_OUTCOMES}


WORDS = {
    "outcome": words_of_errors(),
    "place": {place.value for place in Place},
    "signal": {signal.value for signal in Signal},
    "end_user": {"yes", "no"},
}
EXPRESSIONS = [pytest.param(text, id=where) for where, text in expressions().items()]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_every_expression_asks_for_what_is_scraped(text: str) -> None:
    """Each expression is PromQL whose metrics, labels and label values are those of `/metrics`."""
    nodes = list(walked(promql_parser.parse(text)))
    known = set(OF_TARGETS)
    for one in nodes:
        if not isinstance(one, Used):
            continue
        labels = labels_of(one.metric)
        assert labels is not None, f"nothing is scraped under {one.metric}"
        known |= labels
        for label, value in one.matchers:
            assert label in labels | OF_TARGETS, f"{one.metric} has no label {label}"
            if label in WORDS:
                assert set(value.split("|")) <= WORDS[label]
    for node in nodes:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= known, text


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_counters_are_shown_as_rates_and_gauges_as_they_are(text: str) -> None:
    """What only grows stands inside rate() or increase(), and nothing else does."""
    for one in used(text):
        grows = one.metric.endswith(("_total", "_bucket", "_sum", "_count"))
        assert (one.function in {"rate", "increase"}) == grows, one


def test_what_is_counted_seldom_is_there_before_it_happens() -> None:
    """A series that an alert sees grow is zero from the beginning: that a new one has grown, Prometheus cannot know."""
    text = Exposition(Telemetry()).render("")[0].decode()
    for rule in alerts():
        for one in used(rule["expr"]):
            if one.function != "increase":
                continue
            alternatives = [(label, value.split("|")) for label, value in one.matchers]
            for label, values in alternatives:
                for value in values:
                    assert re.search(rf'^{one.metric}{{[^}}]*{label}="{value}"[^}}]*}} 0\.0$', text, re.MULTILINE), one
            if not alternatives:
                assert re.search(rf"^{one.metric}(?:{{[^}}]*}})? 0\.0$", text, re.MULTILINE), one


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["alert"]) for rule in alerts()])
def test_every_alert_says_how_urgent_it_is_and_what_it_means(rule: dict[str, Any]) -> None:
    """Each alert has a severity, a summary and a description in sentences, and names only labels that are left."""
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    annotations = rule["annotations"]
    assert annotations.keys() == {"summary", "description"}
    assert all(text.endswith(".") for text in annotations.values())
    named = set(re.findall(r"\$labels\.(\w+)", str(annotations)))
    assert named <= labels_left(promql_parser.parse(rule["expr"]))


def test_alert_names_are_unique() -> None:
    """No two alerts share a name."""
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)


def test_prometheus_takes_the_alerts_and_they_fire_when_they_should(tmp_path: Path) -> None:
    """`promtool` checks the rules, and plays numbers to them: a fleet in trouble alerts, one that is well does not."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (it comes with Prometheus)")
    for file in (ALERTS, ALERTS_TEST):
        shutil.copy(file, tmp_path)
    for command in (["check", "rules", ALERTS.name], ["test", "rules", ALERTS_TEST.name]):
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_played() -> None:
    """Each alert's name stands in the tests that `promtool` runs."""
    text = ALERTS_TEST.read_text(encoding="utf-8")
    assert {rule["alert"] for rule in alerts()} <= set(re.findall(r"NeatlogsProcessor\w+", text))


def test_the_dashboard_is_laid_out_and_can_be_imported() -> None:
    """Panels have ids of their own and places that do not overlap; data come from the source that one chooses."""
    content = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in content["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in content["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    names = {variable["name"] for variable in content["templating"]["list"]}
    assert names == {"datasource", "job", "instance"}
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["description"].endswith(".")
        for target in panel["targets"]:
            assert 'job=~"$job"' in target["expr"]


@pytest.mark.parametrize("panel", [pytest.param(panel, id=panel["title"]) for panel in panels()])
def test_every_panel_has_the_unit_of_what_it_shows(panel: dict[str, Any]) -> None:
    """Seconds are shown as seconds, bytes as bytes, shares as percent, and what happens as so many a second."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    text = " ".join(target["expr"] for target in panel["targets"])
    if "histogram_quantile" in text or "age_seconds" in text or "1e6 * sum(rate(process_cpu_seconds" in text:
        expected = {"s"}
    elif " / " in text:
        expected = {"percentunit"}
    elif "_bytes" in text:
        expected = {"bytes"}
    elif "process_cpu_seconds" in text:
        expected = {"none"}
    elif "rate(" in text:
        expected = {"reqps"} if "requests_total" in text else {"cps"}
    else:
        expected = {"none"}
    assert {unit} == expected
