"""A best model that is not the file that was scored is built again, or refused: never shipped, never silently."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_model import Tiny

import autoquant
from autoquant.errors import RunError
from autoquant.files import sha256_of
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.trial import load_trial

SPACE = '[layer]\nact_algo = "minmax"\ndmq_balancer = false\nquant_enable = [true, false]\n'
Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
}


@pytest.fixture(scope="module")
def runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SearchResult]:
    """A certified run of each target."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "space.toml").write_text(SPACE)
    return {
        target: autoquant.search(
            tiny.model,
            tiny.evaluation,
            calibration=tiny.calibration,
            tolerance=0.3,
            max_trials=1,
            target=target,
            space=folder / "space.toml",
            run=folder / target,
        )
        for target in ("litert", "tensorflow")
    }


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


@pytest.mark.parametrize("target", ["litert", "tensorflow"])
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


@pytest.mark.parametrize("target", ["litert", "tensorflow"])
@pytest.mark.parametrize("file", ["model", "record.txt", "config.json"])
def test_resume_builds_damaged_files_again(copied: Callable[[str], Path], file: str, target: str) -> None:
    run = copied(target)
    path = model_of(run) if file == "model" else run / "best" / file
    content = damaged(path, DAMAGES["one bit"])
    result = autoquant.resume(run)
    assert path.read_bytes() == content
    assert result.warnings == (f"trial 0: {path.name}: not as when it was scored (another SHA-256); built again",)
    assert (result.verdict, result.certificate is not None) == (Verdict.CERTIFIED, True)


def test_a_record_that_is_damaged_is_not_exported_and_a_config_is_refused(copied: Callable[[str], Path]) -> None:
    run = copied("tensorflow")
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


def test_another_model_is_scored(copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """As other versions of libraries may build it."""
    run = copied("litert")
    model = model_of(run)
    other = model.read_bytes() + bytes(16)  # behind a flatbuffer: it computes the same
    monkeypatch.setattr("autoquant.targets.litert.LiteRTCompiler.compile", compiling(other))
    model.unlink()
    result = autoquant.resume(run)
    assert result.best is not None
    assert result.warnings[1] == "trial 0: what was built again is another model, which is scored"
    assert result.best.digests[model.name] == sha256_of(model)
    assert load_trial(run / "best")[0].digests == result.best.digests
    assert (result.certificate, result.verdict) == (None, Verdict.MET)
    assert "is not the one that was scored on the holdout" in result.uncertified


def compiling(content: bytes) -> Any:
    from autoquant.targets.litert import LiteRTCompiler

    compile_ = LiteRTCompiler.compile

    def compile_other(self: LiteRTCompiler, plan: Any, path: Path, *rest: Any, **options: Any) -> Any:
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
