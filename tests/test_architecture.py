"""Imports point one way, heavy packages stay where they belong, and the wheel has all it needs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import autoquant
from autoquant.formats.space_toml import presets

PACKAGE = Path(autoquant.__file__).parent
LAYERS = (
    (
        "array",
        "errors",
        "extensions",
        "files",
        "npz",
        "cache",
        "guide",
        "memory",
        "messages",
        "options",
        "pulse",
        "quiet",
        "threads",
    ),
    ("evaluation/statistics",),
    ("model",),
    ("quantization",),
    ("calibration",),
    ("formats",),
    ("targets",),
    ("evaluation/data",),
    ("evaluation/metrics",),
    ("evaluation/engines",),
    ("evaluation/scoring",),
    ("evaluation/passes",),
    ("evaluation/latency",),
    ("tuning/study",),
    ("tuning/repairs",),
    ("tuning/sensitivity",),
    ("tuning/sampling",),
    ("tuning/certification",),
    ("tuning",),
    ("amct", "reports"),
    ("common",),
    ("api",),
    ("cli", "__main__"),
)
"""Each imports only from its own and from earlier ones."""
OWNERS = {
    "ai_edge_litert": (
        "evaluation/engines/litert.py",
        "evaluation/latency/models.py",
        "model/litert/flatbuffer.py",
        "model/litert/interpreter.py",
    ),
    "boto3": ("tuning/study/artifacts.py",),
    "jinja2": ("reports/page.py",),
    "litert_quantizer": ("targets/litert_library.py",),
    "optuna": (
        "tuning/fleet/board.py",
        "tuning/fleet/status.py",
        "tuning/fleet/storages.py",
        "tuning/sampling/samplers.py",
        "tuning/sampling/study_copy.py",
        "tuning/study/artifacts.py",
        "tuning/study/databases.py",
        "tuning/study/journal.py",
        "tuning/study/journal_file.py",
        "tuning/study/patient_storage.py",
        "tuning/study/stored_trials.py",
        "tuning/study/stores.py",
        "tuning/study/study.py",
        "tuning/study/supersede.py",
    ),
    "rich": ("cli/explain.py", "cli/output.py", "cli/screen.py"),
    "sqlalchemy": ("tuning/study/databases.py",),
    "threadpoolctl": ("threads.py",),
    "tensorflow": (
        "amct/calibration.py",
        "amct/from_file.py",
        "amct/graph_evaluator.py",
        "amct/live_graph.py",
        "amct/ranking.py",
        "evaluation/data/images.py",
        "evaluation/data/records.py",
        "evaluation/engines/tensorflow.py",
        "model/channels_last.py",
        "model/folding.py",
        "model/freezing.py",
        "model/front.py",
        "model/graph.py",
        "model/inlining.py",
        "model/half.py",
        "model/in_memory.py",
        "model/interface.py",
        "model/litert/convert.py",
        "model/litert/lists.py",
        "model/keras_file.py",
        "model/loops.py",
        "model/nodes.py",
        "model/saved_model.py",
        "model/shapes.py",
        "model/tables.py",
        "model/trust.py",
        "targets/ascend_functions.py",
        "tuning/repairs/training/graph_student.py",
        "tuning/repairs/training/lite_functions.py",
        "tuning/repairs/training/lite_student.py",
        "tuning/repairs/training/runner.py",
        "tuning/repairs/training/student.py",
        "tuning/sensitivity/fisher.py",
        "tuning/sensitivity/likelihoods.py",
    ),
}
"""The files that import a package, anywhere in them."""
NUMBERS = {
    "quantization": (),
    "evaluation/statistics": (),
    "reports": (),
    "tuning/sampling": ("tuning/sampling/samplers.py", "tuning/sampling/study_copy.py"),
}
"""Rooms that load neither TensorFlow nor LiteRT, nor Optuna but in these files."""
FILES = [str(path.relative_to(PACKAGE).as_posix()) for path in sorted(PACKAGE.rglob("*.py"))]


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Every module that a file imports anywhere, in functions and under TYPE_CHECKING too, in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], node.module or ""])
            start = base.strip(".") if node.level else node.module or ""
            yield from (f"{start}.{name.name}" for name in node.names)


@cache
def imports_of(file: str) -> set[str]:
    package = ".".join(["autoquant", *Path(file).parts[:-1]])
    return set(imported(ast.parse((PACKAGE / file).read_text(encoding="utf-8")), package))


def rank(place: str) -> int:
    """The layer of a file or module, by its path without '.py': the longest of the names above that it begins with."""
    parts = place.split("/")
    for length in range(len(parts), 0, -1):
        for number, names in enumerate(LAYERS):
            if "/".join(parts[:length]) in names:
                return number
    raise ValueError(f"{place} has no layer")


def later(file: str, imports: set[str]) -> list[str]:
    """Those imports that lie in a later layer than the file."""
    own = rank(file.removesuffix(".py"))
    inside = [name for name in imports if name.startswith("autoquant.") and not name.endswith(".__version__")]
    return sorted(name for name in inside if rank("/".join(name.split(".")[1:])) > own)


def test_every_file_has_a_layer() -> None:
    for file in FILES:
        if not file.endswith("__init__.py"):
            rank(file.removesuffix(".py"))


@pytest.mark.parametrize("file", [file for file in FILES if not file.endswith("__init__.py")])
def test_imports_point_one_way(file: str) -> None:
    assert later(file, imports_of(file)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from autoquant.tuning.study.space import Choice", ["autoquant.tuning.study.space.Choice"]),
        ("from autoquant import tuning", ["autoquant.tuning"]),
        ("import autoquant.cli.main as m", ["autoquant.cli.main"]),
        ("from ..tuning import space", ["autoquant.tuning.space"]),
        ("def f():\n    from autoquant.api import search", ["autoquant.api.search"]),
        ("if TYPE_CHECKING:\n    from autoquant.api import search", ["autoquant.api.search"]),
        ("from autoquant.model.survey import Layer\nfrom .strict import Fields\nimport numpy as np", []),
    ],
)
def test_the_test_sees_every_way_to_import(text: str, found: list[str]) -> None:
    assert later("formats/x.py", set(imported(ast.parse(text), "autoquant.formats"))) == found


def test_no_files_import_each_other() -> None:
    known = {"autoquant." + file.removesuffix(".py").replace("/", "."): file for file in FILES}
    graph = {
        file: {known[name] for found in imports_of(file) for name in (found, found.rpartition(".")[0]) if name in known}
        for file in FILES
    }
    assert "tuning/study/space.py" in graph["tuning/study/trial.py"]
    TopologicalSorter(graph).prepare()  # CycleError names the files


@pytest.mark.parametrize(("package", "owners"), OWNERS.items())
def test_packages_with_owners(package: str, owners: tuple[str, ...]) -> None:
    users = [file for file in FILES if any(name.split(".")[0] == package for name in imports_of(file))]
    assert users == sorted(owners)


@pytest.mark.parametrize(("room", "with_optuna"), NUMBERS.items())
def test_numbers_are_computed_without_heavy_packages(room: str, with_optuna: tuple[str, ...]) -> None:
    """Each file is imported, in a new process, those with Optuna last; it says what each of them loads first."""
    files = sorted((file for file in FILES if file.startswith(f"{room}/")), key=lambda file: file in with_optuna)
    code = f"""
import sys
from importlib import import_module

before = set()
for file in {files}:
    import_module("autoquant." + file.removesuffix(".py").replace("/", "."))
    heavy = {{"tensorflow", "ai_edge_litert", "litert_quantizer", "optuna"}} & set(sys.modules)
    if heavy - before:
        print(file, *sorted(heavy - before))
    before |= heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{file} optuna" for file in with_optuna[:1]]


def test_importing_autoquant_is_light() -> None:
    code = "import sys, autoquant; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "autoquant" in loaded
    assert {"tensorflow", "keras", "numpy", "scipy", "optuna", "rich", "google"}.isdisjoint(loaded)


def test_the_public_names_are_sorted_and_no_package_has_one_of_them() -> None:
    assert sorted(autoquant.__all__) == autoquant.__all__
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert packages.isdisjoint(autoquant.__all__)


def test_the_wheel_ships_the_search_spaces() -> None:
    assert {"amct", "default", "demo", "litert", "quick", "skip_only", "thorough"} <= set(presets())
    project = PACKAGE.parent / "pyproject.toml"
    if project.is_file():
        wheel = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
        assert wheel["force-include"] == {"search_spaces": "autoquant/search_spaces"}
