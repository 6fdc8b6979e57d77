"""examples/alerts.yml: each rule, by Prometheus' own tool, with series that must alert and with some that must not."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from thingjobs.seeing import metrics

if TYPE_CHECKING:
    from tests.conftest import Require

RULES = Path(__file__).parents[2] / "examples" / "alerts.yml"
NAMES = re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))
DAY = 86400
UNIT = 'node_systemd_unit_state{{instance="a", name="{}", state="active"}}'
CONNECTED = 'thingjobs_connected{instance="a", thing="pump-7"}'
OWED = 'thingjobs_reports_owed{instance="a", thing="pump-7"}'
ENDED = 'thingjobs_jobs_ended_total{{instance="{}", thing="pump-{}", status="{}"}}'

#: Of each case: the series with a value a minute, as promtool writes them, the minute, and what must alert then.
CASES: list[tuple[dict[str, str], int, set[str]]] = [
    ({UNIT.format("thingjobs.service"): "0x12"}, 11, {"ThingjobsNotRunning"}),
    ({UNIT.format("thingjobs@left.service"): "1 0x12"}, 12, {"ThingjobsNotRunning"}),
    ({UNIT.format("thingjobs.service"): "0x8 1x4", UNIT.format("nginx.service"): "0x12"}, 11, set()),
    ({"thingjobs_start_time_seconds": "1 2 3 4 5x30"}, 30, {"ThingjobsRestarts"}),
    ({"thingjobs_start_time_seconds": "1 2x30"}, 30, set()),
    ({CONNECTED: "0x61"}, 60, {"ThingjobsNotConnected"}),
    ({CONNECTED: "0x59 1x2"}, 60, set()),
    ({CONNECTED: "1x61", OWED: "2x61"}, 60, {"ThingjobsOwesReports"}),
    ({CONNECTED: "0x61", OWED: "2x61"}, 60, {"ThingjobsNotConnected"}),
    ({CONNECTED: "1x61", OWED: "2x30 0x31"}, 60, set()),
    ({"thingjobs_late_truths": "1x2"}, 1, {"ThingjobsLateTruth"}),
    ({"thingjobs_late_truths": "0x2"}, 1, set()),
    ({"thingjobs_troubles": "1x16"}, 15, {"ThingjobsTrouble"}),
    ({"thingjobs_troubles": "1x10 0x6"}, 15, set()),
    ({"thingjobs_jobs_waiting": f"1x{24 * 60 + 1}"}, 24 * 60 + 1, {"ThingjobsWaitsLong"}),
    ({"thingjobs_jobs_waiting": "1x700 _x3 1x800"}, 25 * 60, {"ThingjobsWaitsLong"}),  # the agent was restarted
    ({"thingjobs_jobs_waiting": "1x700 0 1x740"}, 24 * 60, set()),
    ({"thingjobs_jobs_waiting": "1x2"}, 2, set()),
    ({"thingjobs_jobs_waiting": "0x700 1x120 stale"}, 24 * 60, set()),
    ({"thingjobs_certificate_expiry_seconds": f"{29 * DAY}x2"}, 1, {"ThingjobsCertificateEnds"}),
    ({"thingjobs_certificate_expiry_seconds": f"{31 * DAY}x2"}, 1, set()),
    (
        {ENDED.format("a", 1, "FAILED"): "0+1x60", ENDED.format("b", 2, "SUCCEEDED"): "0+5x60"},
        60,
        {"ThingjobsFleetFails"},
    ),
    ({ENDED.format("a", 1, "FAILED"): "0+1x60", ENDED.format("b", 2, "SUCCEEDED"): "0+30x60"}, 60, set()),
    ({ENDED.format("a", 1, "FAILED"): "0 5x60"}, 60, set()),
]


@pytest.fixture(scope="module")
def promtool(require: Require) -> str:
    return require("promtool")


def run(promtool: str, *words: str | Path) -> str:
    """Return what promtool says that is wrong; "" if nothing is."""
    done = subprocess.run([promtool, *words], capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_rules_are_rules(promtool: str) -> None:
    assert run(promtool, "check", "rules", RULES) == ""


@pytest.mark.parametrize(
    ("series", "minute", "alerts"), CASES, ids=[f"{number}-{'-'.join(case[2])}" for number, case in enumerate(CASES)]
)
def test_a_rule_alerts_when_it_should(
    promtool: str, tmp_path: Path, series: dict[str, str], minute: int, alerts: set[str]
) -> None:
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    told = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(alerts)]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": firing, "eval_time": f"{minute}m", "exp_samples": told}],
    }
    tests = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "test.yml").write_text(json.dumps(tests))  # which is YAML as well

    assert run(promtool, "test", "rules", tmp_path / "test.yml") == ""


def test_each_rule_has_been_seen_to_alert_and_asks_for_metrics_that_there_are() -> None:
    status = {"thing": "pump-7", "connected": True, "jobs": [], "owed": [], "late": []}
    there = set(re.findall(r"^# TYPE (\w+)", metrics.text("1", status, {}, started=1.0, expires=1.0), re.MULTILINE))

    assert set(NAMES) == {name for _, _, alerts in CASES for name in alerts}
    assert set(re.findall(r"\bthingjobs_\w+", RULES.read_text(encoding="utf-8"))) <= there
