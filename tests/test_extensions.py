"""Rows of tables that packages bring: listed, imported when used, told of where they are broken."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packages import forget, install, site
from tiny_model import Tiny

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import RANGES, range_name
from autoquant.cli.main import main
from autoquant.errors import PlanError, RunError, UsageError, UserFunctionError
from autoquant.evaluation.metrics.table import METRICS, check_metric, open_metric
from autoquant.extensions import at_fault
from autoquant.formats.config_json import config_text, parse_config
from autoquant.formats.space_toml import load_space, parse_space
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.study.origins import check_origins, origins_of
from autoquant.tuning.study.request import SearchRequest

METRIC = """
import numpy as np

def near(outputs, labels):
    return np.abs(outputs[:, 0] - labels) <= 1
near.bounds = (0, 1)
"""
RANGE = """
from dataclasses import dataclass
from autoquant.quantization.affine import Range

@dataclass(frozen=True)
class Clipped:
    share: float = 0.9
    def __call__(self, distribution, *, symmetric):
        return Range.covering(self.share * distribution.low, self.share * distribution.high)
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    with site(tmp_path / "site") as folder:
        yield folder


def acme(folder: Path, code: str, version: str = "1.2", **rows: str) -> None:
    """Install acme 1.2; rows are `group=name`, of what is called so in the module."""
    groups = {f"autoquant.{group}": {name.lower(): f"acme:{name}"} for group, name in rows.items()}
    install(folder, "acme", version, code, groups)


def test_a_row_is_listed_and_imported_only_when_it_is_used(packages: Path) -> None:
    acme(packages, METRIC, metrics="near")
    assert "near" in METRICS
    assert [*METRICS][-1] == "near"
    assert len(METRICS) == len(METRICS.builtin) + 1
    assert METRICS.origin("near") == "acme 1.2"
    assert (METRICS.origin("top1"), METRICS.origin("gone")) == ("", "")
    check_metric("near")
    with pytest.raises(UsageError, match="unknown 'neer'; did you mean 'near'"):
        open_metric("neer")
    assert "acme" not in sys.modules
    metric = open_metric("near@output=y")
    assert "acme" in sys.modules
    assert (metric.name, metric.output, metric.bounds) == ("near@output=y", "y", (0.0, 1.0))
    assert metric.measure({"y": np.array([[1.0], [5.0]])}, np.array([1.5, 1.5]), None).tolist() == [True, False]
    assert "acme 1.2" in metric.key  # so that a run with another version is not resumed


def test_settings_are_of_our_metrics_alone(packages: Path) -> None:
    acme(packages, METRIC, metrics="near")
    with pytest.raises(UsageError, match="'near' has no threshold"):
        open_metric("near@0")


def test_a_name_of_ours_stays_ours(packages: Path) -> None:
    install(packages, "acme", "1.2", METRIC, {"autoquant.metrics": {"top1": "acme:near"}})
    assert open_metric("top1") is METRICS.builtin["top1"]
    assert METRICS.origin("top1") == ""
    assert [*METRICS] == [*METRICS.builtin]


def test_a_name_of_two_packages_is_refused(packages: Path) -> None:
    acme(packages, METRIC, metrics="near")
    install(packages, "other", "2.0", METRIC, {"autoquant.metrics": {"near": "other:near"}})
    with pytest.raises(UsageError, match=r"metric 'near': is of acme 1\.2 and other 2\.0; uninstall all but one"):
        open_metric("near")


@pytest.mark.parametrize(
    ("code", "rows", "what"),
    [
        (
            "import gone_module",
            {"metrics": "near"},
            r"ModuleNotFoundError: No module named 'gone_module' \(.*acme.py:1\)",
        ),
        ("", {"metrics": "near"}, "AttributeError: module 'acme' has no attribute 'near'"),
        ("near = 3", {"metrics": "near"}, "TypeError: must be a function of .* or a Metric, got int"),
        ("PHONE = 3", {"targets": "PHONE"}, "TypeError: must be a TargetInfo, got int"),
        ("grid = 3", {"samplers": "grid"}, "TypeError: must be a function of .problem, seed"),
        ("class Clipped: pass", {"range_algorithms": "Clipped"}, "TypeError: must be a frozen dataclass"),
        (RANGE.replace(" = 0.9", ""), {"range_algorithms": "Clipped"}, "TypeError: its parameter 'share' must have a"),
        (RANGE.replace("__call__", "call"), {"range_algorithms": "Clipped"}, "TypeError: must have a method __call__"),
    ],
)
def test_a_broken_row_is_told_with_its_distribution(packages: Path, code: str, rows: dict[str, str], what: str) -> None:
    from autoquant.tuning.sampling.samplers import SAMPLERS

    acme(packages, code, **rows)
    tables: dict[str, Any] = {"metrics": METRICS, "targets": TARGETS, "samplers": SAMPLERS, "range_algorithms": RANGES}
    ((group, name),) = rows.items()
    with pytest.raises(UsageError, match=f"'{name.lower()}' of acme 1.2: cannot be loaded from acme:{name}: {what}"):
        tables[group][name.lower()]


def test_an_error_inside_of_a_package_is_no_bug_of_ours(packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    acme(packages, RANGE, range_algorithms="Clipped")
    with pytest.raises(AttributeError) as caught:
        RANGES["clipped"]()(None, symmetric=True)  # type: ignore[arg-type]
    assert at_fault(caught.value) == "acme 1.2"
    assert at_fault(ValueError("ours")) == ""
    acme(packages, "import autoquant.cli.guide as guide\ndef near(args): raise KeyError('oh')\n", metrics="near")
    broken = METRICS["near"]
    with pytest.raises(UserFunctionError, match=r"near \(acme 1\.2\)"):
        broken.measure({"y": np.ones((2, 1))}, np.ones(2), None)


def test_names_are_shown(packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    acme(packages, "", samplers="grid", targets="phone")
    assert main(["search", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "amct, grid" in shown
    assert "litert or tensorflow or phone" in shown
    assert "acme" not in sys.modules


def test_a_target_must_be_called_like_its_row(packages: Path, tensorflow: None) -> None:
    acme(packages, "from autoquant.targets.table import TARGETS\nphone = TARGETS['litert']", targets="phone")
    assert SearchRequest(model="m", data="d", target="phone", io="int8").target == "phone"
    with pytest.raises(UsageError, match=r"target 'phone' of acme 1\.2: is called 'litert' by itself"):
        open_target("phone")


def test_a_config_with_a_range_algorithm_of_a_package(packages: Path) -> None:
    acme(packages, RANGE, range_algorithms="Clipped")
    plan = Plan({"conv": LayerPlan(activation=RANGES["clipped"](share=0.75)), "fc": None})
    text = config_text(plan)
    assert parse_config(text, "config.json") == plan
    assert range_name(RANGES["clipped"]()) == "clipped"
    (packages / "acme-1.2.dist-info" / "entry_points.txt").write_text("")
    forget()
    with pytest.raises(PlanError, match=r"config\.json.*unknown 'clipped'.*install the package that it is of"):
        parse_config(text, "config.json")
    with pytest.raises(PlanError, match="Clipped: is no range algorithm that is known by name"):
        config_text(plan)


def test_origins_are_compared_when_a_run_goes_on(packages: Path) -> None:
    acme(packages, METRIC + RANGE, metrics="near", range_algorithms="Clipped")
    space = parse_space('version = 1\n[layer]\nquant_enable = [true]\nact_algo = ["clipped"]\n', "space.toml")
    used = origins_of(SearchRequest(model="m", data="d", metric="near@output=y"), space)
    assert used == {"metrics": ["near of acme 1.2"], "range_algorithms": ["clipped of acme 1.2"]}
    assert origins_of(SearchRequest(model="m", data="d"), load_space("quick")) == {}
    check_origins("run.toml", used)
    other = {"range_algorithms": ["clipped of acme 1.1"]}
    with pytest.raises(RunError, match=r"'clipped' was of acme 1\.1 when the run was started, and is of acme 1\.2 now"):
        check_origins("run.toml", other)
    with pytest.raises(RunError, match=r"metric 'far' was of acme 1\.1 .*, which is not installed; install it"):
        check_origins("run.toml", {"metrics": ["far of acme 1.1"]})
    check_origins("run.toml", {"metrics": ["near of acme 1.1"]}, accepted=["metric"])


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_a_search_with_rows_of_a_package(
    packages: Path, tiny: Tiny, target: str, tensorflow: None, capsys: pytest.CaptureFixture[str]
) -> None:
    code = METRIC + RANGE + "def grid(problem, seed, startup, ranking):\n    return lambda trials: 1 / 0\n"
    code = code.replace("outputs[:, 0] - labels", "outputs.argmax(axis=1) - labels")
    acme(packages, code, metrics="near", range_algorithms="Clipped", samplers="grid")
    Path("space.toml").write_text('version = 1\n[layer]\nquant_enable = [true]\nact_algo = ["clipped"]\n')
    words = ["search", str(tiny.model), "--data", str(tiny.evaluation), "--calibration", str(tiny.calibration)]
    words += ["--metric", "near", "--tolerance", "1", "--target", target, "--space", "space.toml", "--certify", "none"]
    assert main([*words, "--run", "run", "--quiet"]) == 0
    used = ["near of acme 1.2", "clipped of acme 1.2"]
    assert json.loads(Path("run/result.json").read_text(encoding="utf-8"))["plugins"] == used
    config = json.loads(Path("run/best/config.json").read_text(encoding="utf-8"))
    assert {row["act_algo"] for row in config["autoquant"]["activation_quant_params"].values()} == {"clipped"}
    assert main(["resume", "run", "--quiet"]) == 0
    forget()
    (packages / "acme-1.2.dist-info").rename(packages / "acme-1.3.dist-info")
    metadata = packages / "acme-1.3.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text(encoding="utf-8").replace("1.2", "1.3"), encoding="utf-8")
    capsys.readouterr()
    assert main(["resume", "run"]) == 2
    told = capsys.readouterr().err
    assert "the metric 'near' was of acme 1.2 when the run was started, and is of acme 1.3 now; install that" in told
    words += ["--metric", "sqnr", "--tolerance", "0"]  # which all in INT8, where a search begins, cannot meet
    assert main([*words, "--run", "other", "--sampler", "grid"]) == 70
    assert "ZeroDivisionError: division by zero, this is a bug in acme 1.3" in capsys.readouterr().err
