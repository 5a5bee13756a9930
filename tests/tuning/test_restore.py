"""A best model that is not the file that was scored is built again, or refused: never shipped, never silently."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from finished_runs import TARGETS, finished_runs
from tiny_model import Tiny

import autoquant
from autoquant.calibration.plan import Plan
from autoquant.errors import RunError
from autoquant.files import sha256_of
from autoquant.targets.litert import LiteRTCompiler
from autoquant.targets.tensorflow import GraphCompiler
from autoquant.tuning.builder import Builder, Built
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.events import Warned
from autoquant.tuning.restore import keep_best
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import State, Terms, Trial, load_trial

OTHER = {"litert": bytes(16), "tensorflow": b"\x22\x00"}
"""What may stand behind a model that computes the same: bytes behind a flatbuffer, no versions of a graph."""
Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
}


@pytest.fixture(scope="module")
def runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SearchResult]:
    """A certified run of each target."""
    return finished_runs(tiny, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def copied(runs: dict[str, SearchResult], tmp_path: Path) -> Callable[[str], Path]:
    """A run of a target, to damage."""

    def copy(target: str) -> Path:
        return Path(shutil.copytree(runs[target].run, tmp_path / target, symlinks=True))

    return copy


def model_of(run: Path) -> Path:
    (model,) = [*(run / "best").glob("*.tflite"), *(run / "best").glob("*_quantized.pb")]
    return model


def damaged(path: Path, damage: Damage) -> bytes:
    """Damage a file; gives what it was."""
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    return content


def test_digests_are_those_of_the_files(runs: dict[str, SearchResult]) -> None:
    for target, result in runs.items():
        assert result.best is not None and result.certificate is not None
        names = {"config.json", "record.txt", model_of(result.run).name}
        names |= {"tiny_quant.json"} if target == "tensorflow" else set()
        assert result.best.digests == {name: sha256_of(result.run / "best" / name) for name in names}
        assert load_trial(result.run / "best")[0].digests == result.best.digests
        assert result.verdict is Verdict.CERTIFIED


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", DAMAGES)
def test_export_builds_a_damaged_model_again_and_says_so(copied: Callable[[str], Path], kind: str, target: str) -> None:
    run = copied(target)
    content = damaged(model_of(run), DAMAGES[kind])
    made = autoquant.export(run, run.parent / "out")
    assert made.model.read_bytes() == content
    certificate = json.loads((made.folder / "certificate.json").read_text())
    assert certificate["origin"]["int8_model"] == sha256_of(made.model)
    name = made.model.name
    told = f"{name} of trial 0: not as when it was scored (another SHA-256); what is exported was built again"
    assert made.notes == (told,)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("file", ["model", "record.txt", "config.json"])
def test_resume_builds_damaged_files_again(copied: Callable[[str], Path], file: str, target: str) -> None:
    run = copied(target)
    path = model_of(run) if file == "model" else run / "best" / file
    content = damaged(path, DAMAGES["one bit"])
    result = autoquant.resume(run)
    assert path.read_bytes() == content
    assert result.warnings == (f"trial 0: {path.name}: not as when it was scored (another SHA-256); built again",)
    assert (result.verdict, result.certificate is not None) == (Verdict.CERTIFIED, True)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("lost", [("model",), ("record.txt", "model"), ("config.json",)], ids="+".join)
def test_resume_builds_lost_files_again_and_says_so(
    copied: Callable[[str], Path], lost: tuple[str, ...], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, whatever is lost."""
    run, built = copied(target), []
    build = Builder.build

    def counted(self: Builder, plan: Plan, folder: Path, *rest: Any) -> Built:
        built.append(folder.name)
        return build(self, plan, folder, *rest)

    monkeypatch.setattr(Builder, "build", counted)
    paths = [model_of(run) if file == "model" else run / "best" / file for file in lost]
    before = {path: path.read_bytes() for path in paths}
    for path in paths:
        path.unlink()
    result = autoquant.resume(run)
    assert {path: path.read_bytes() for path in paths} == before
    names = ", ".join(path.name for path in paths)
    assert result.warnings == (f"trial 0: {names}: not there any more; built again",)
    assert (built, result.verdict) == (["0000"], Verdict.CERTIFIED)


def test_models_are_compared_once_not_after_each_trial(
    hopeless: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Path] = []

    def nothing_changed(folder: Path, digests: Mapping[str, str]) -> tuple[str, ...]:
        compared.append(folder)
        return ()

    monkeypatch.setattr("autoquant.tuning.restore.changed_files", nothing_changed)
    result = autoquant.search(**{**hopeless, "max_trials": 4})
    assert result.best is not None
    assert (len(result.trials), [int(folder.name) for folder in compared]) == (4, [result.best.number])


@pytest.mark.parametrize("target", TARGETS)
def test_a_record_that_is_damaged_is_not_exported_and_a_config_is_refused(
    copied: Callable[[str], Path], target: str
) -> None:
    run = copied(target)
    record = run / "best" / "record.txt"
    damaged(record, lambda content: content.replace(b"1", b"2", 1))
    made = autoquant.export(run, run.parent / "out")
    assert made.record.read_bytes() != record.read_bytes()
    assert made.transferred is not None  # what was calibrated anew is scored anew
    assert made.notes[0].startswith("record.txt of trial 0: not as when it was scored")
    assert len(made.notes) == 1 + (not (made.folder / "certificate.json").exists())
    damaged(run / "best" / "config.json", lambda content: content + b" ")
    with pytest.raises(RunError, match=r"config.json: is not the file that was scored .* resume .* writes it again"):
        autoquant.export(run, run.parent / "out")


def test_a_certificate_of_another_file_is_told(copied: Callable[[str], Path]) -> None:
    run = copied("tensorflow")
    options: list[dict[str, Any]] = [{"simulation": False}, {"target": "litert"}]
    for number, option in enumerate(options):
        made = autoquant.export(run, run.parent / f"out{number}", **option)
        assert made.notes == ("the certificate of trial 0 is of another file (another SHA-256), and not exported",)
        assert not (made.folder / "certificate.json").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_another_model_is_scored(copied: Callable[[str], Path], target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As other versions of libraries may build it."""
    run = copied(target)
    model = model_of(run)
    compiler = {"litert": LiteRTCompiler, "tensorflow": GraphCompiler}[target]
    monkeypatch.setattr(compiler, "compile", compiling(compiler, model.read_bytes() + OTHER[target]))
    model.unlink()
    result = autoquant.resume(run)
    assert result.best is not None
    assert result.warnings[1] == "trial 0: what was built again is another model, which is scored"
    assert result.best.digests[model.name] == sha256_of(model)
    assert load_trial(run / "best")[0].digests == result.best.digests
    assert (result.certificate, result.verdict) == (None, Verdict.MET)
    assert "is not the one that was scored on the holdout" in result.uncertified


def compiling(compiler: type[Any], content: bytes) -> Any:
    compile_ = compiler.compile

    def compile_other(self: Any, plan: Any, path: Path, *rest: Any, **options: Any) -> Any:
        made = compile_(self, plan, path, *rest, **options)
        path.write_bytes(content)
        return made

    return compile_other


def test_benchmark_refuses_what_was_not_scored(copied: Callable[[str], Path]) -> None:
    run = copied("litert")
    made = autoquant.export(run, run.parent / "out")
    for model, named in ((model_of(run), run), (made.model, made.folder), (made.model, made.model)):
        content = damaged(model, DAMAGES["one bit"])
        with pytest.raises(RunError, match=r"is not the file that was scored or certified \(another SHA-256\)"):
            autoquant.benchmark(named, repeat=3)
        model.write_bytes(content)
    assert autoquant.benchmark(run, repeat=3).rounds == 3


class Files:
    """A builder whose files are the number of the trial."""

    file_name = "m.tflite"

    def files(self, path: Path) -> tuple[Path, ...]:
        return (path,)

    def build(self, plan: Plan, folder: Path) -> None:
        for name in ("config.json", "record.txt", self.file_name):
            (folder / name).write_text(folder.name)


def test_what_was_deleted_on_purpose_is_no_damage(tmp_path: Path) -> None:
    """As the model of a trial that is the best only once another one was scored on all samples."""
    heard: list[Any] = []
    folder, builder, trials = RunFolder(tmp_path), Files(), [Trial(n, State.STOPPED, Plan({}), "") for n in range(2)]
    terms = Terms("top1", 1.0, 0.1, "litert", "litert", "macs")
    for trial in trials:
        builder.build(trial.plan, folder.make_trial(trial.number))
    session: Any = SimpleNamespace(
        folder=folder,
        builder=builder,
        terms=terms,
        study=SimpleNamespace(best=trials[1], trials=lambda: tuple(trials)),
        max_drop=0.1,
        keep_models=1,
        listener=heard.append,
        on_progress=lambda what: heard.append(what),
        keep_all_models=False,
    )
    assert keep_best(session) == trials[1]
    assert not (folder.trial(0) / "m.tflite").exists()
    session.study.best = trials[0]
    assert keep_best(session) == trials[0]
    assert (heard, (folder.best / "m.tflite").read_text()) == (["building trial 0 again"], "0000")
    assert not (folder.trial(1) / "m.tflite").exists()
    (folder.best / "m.tflite").unlink()
    keep_best(session)
    told = "trial 0: m.tflite: not there any more; built again"
    assert heard[1:] == [Warned(told), "building trial 0 again"]
    assert (folder.best / "m.tflite").read_text() == "0000"
