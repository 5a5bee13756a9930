"""What reads files: for each kind, which files of the corpora it is damaged from, and how it is opened.

An opener returns where it accepts what it reads, and raises an AutoquantError where it refuses it. Where it says
`unchanged`, content that differs from the original must be refused, or give what the original gave.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.errors import RunError

Open = Callable[[Path], Any]


@dataclass(frozen=True)
class Parser:
    """One kind of files.

    `files` are those of the corpora; `text` ones are damaged as text. With `beside`, the folder of a file is copied, as
    it is read with others. `slow` ones take more than 20 ms a case. `unchanged` gives what of the result must be the
    same where damage is not refused.
    """

    files: tuple[str, ...]
    open: Open
    text: bool = False
    beside: bool = False
    slow: bool = False
    unchanged: Callable[[Any], Any] | None = None


def _config(path: Path) -> Any:
    from autoquant.formats.config_json import load_config

    return load_config(path)


def _cfg(path: Path) -> Any:
    from autoquant.formats.calibration_cfg import load_cfg

    return load_cfg(path)


def _record(path: Path) -> Any:
    from autoquant.formats.record_text import load_record

    return load_record(path)


def _space(path: Path) -> Any:
    from autoquant.formats.space_toml import load_space

    return load_space(path)


def _request(path: Path) -> Any:
    from autoquant.tuning.study.request import SearchRequest
    from autoquant.tuning.study.run_folder import RunFolder

    folder = RunFolder(path.parent)
    folder.require_run()
    return SearchRequest.from_table(folder.read_request()["request"], str(path)).as_table()


def _trial(path: Path) -> Any:
    from autoquant.tuning.study.trial import load_trial

    return load_trial(path.parent)


def _certificate(path: Path) -> Any:
    from autoquant.tuning.certification.certificate import load_certificate

    return load_certificate(path)


def _holdout_log(path: Path) -> Any:
    from autoquant.tuning.certification.certificate import read_holdout_log
    from autoquant.tuning.study.run_folder import RunFolder

    return read_holdout_log(RunFolder(path.parent))


def _quant(path: Path) -> Any:
    from autoquant.formats.quant_json import load_quant_json

    return load_quant_json(path)


def _journal(path: Path) -> Any:
    """The trials of a run that goes on, whose only one has a folder."""
    from autoquant.formats.space_toml import load_space
    from autoquant.model.layer import Layer
    from autoquant.quiet import no_progress
    from autoquant.tuning.study.recovery import open_recovered
    from autoquant.tuning.study.run_folder import RunFolder
    from autoquant.tuning.study.space import SearchSpace

    run = RunFolder(path.parent)
    run.trial(0).mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "record.txt", "score.json"):
        shutil.copyfile(path.with_name(name), run.trial(0) / name)
    known = json.loads((CORPORA / "litert" / "score.json").read_text(encoding="utf-8"))["parameters"]
    conv, dense = sorted({name.rpartition(":")[0] for name in known})
    layers = [
        Layer(conv, "Conv2D", ("input",), -1, "w", (3, 3, 2, 3), (3,), None, None, 1944),
        Layer(dense, "MatMul", ("pool",), -1, "v", (3, 3), (3,), None, None, 9),
    ]
    space = SearchSpace(load_space(path.with_name("space.toml")), layers, batches=1)
    options: dict[str, Any] = {"max_drop": 0.5, "starts": [], "metric": "top1", "minimized": "macs"}
    return open_recovered(run, space, lambda trials: None, warn=no_progress, **options).trials()


def _ended(trials: Any) -> Any:
    return [(trial.number, trial.state, trial.drop, trial.parameters) for trial in trials]


def _cache(path: Path) -> Any:
    from autoquant.cache import read_cache

    header = json.loads(str(np.load(CORPORA / path.parent.name / path.name)["header"]))
    found = read_cache(path, key=header["key"], version=header["version"])
    if found is None:
        raise RunError(str(path), "is no cache of this run: it is computed again")
    return found.arrays


def _samples(path: Path) -> Any:
    from autoquant.evaluation.data.dataset import open_data
    from autoquant.model.model import InputSpec

    channels = 3 if path.suffix == ".tfrecord" else 2
    data = open_data(path, (InputSpec("input", np.dtype(np.float32), (None, 6, 6, channels)),))
    return [batch.inputs["input"].sum() for batch in data.batches(50)], data.digest


def _model(path: Path) -> Any:
    from autoquant.model.open import open_model

    return open_model(path)


def _saved_model(path: Path) -> Any:
    return _model(path.parent.parent if path.parent.name == "variables" else path.parent)


def _int8(path: Path) -> Any:
    from autoquant.tuning.benchmark import check_unchanged

    check_unchanged(path)
    return path.read_bytes()


def _exported(path: Path) -> Any:
    """What is damaged of a trial is told, so that export builds it again, or refuses it."""
    from autoquant.files import changed_files
    from autoquant.tuning.study.trial import load_trial

    if path.name in changed_files(path.parent, load_trial(path.parent)[0].digests):
        raise RunError(str(path), "is damaged")
    return path.read_bytes()


def _contents(arrays: Any) -> Any:
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}


def _in_run(name: str) -> tuple[str, ...]:
    return tuple(f"{target}/{name}" for target in ("litert", "tensorflow"))


CORPORA = Path(__file__).with_name("corpora")
WEIGHTS = ("saved_model/variables/variables.index", "saved_model/variables/variables.data-00000-of-00001")
PARSERS: dict[str, Parser] = {
    "config.json": Parser(_in_run("config.json"), _config, text=True),
    ".cfg": Parser(("net.cfg",), _cfg, text=True),
    "record.txt": Parser(_in_run("record.txt"), _record, text=True),
    "space": Parser(("space.toml",), _space, text=True),
    "run.toml": Parser(_in_run("run.toml"), _request, text=True, beside=True),
    "score.json": Parser(_in_run("score.json"), _trial, text=True, beside=True),
    "certificate.json": Parser(_in_run("certificate.json"), _certificate, text=True),
    "holdout_log.json": Parser(_in_run("holdout_log.json"), _holdout_log, text=True),
    "quant.json": Parser(("tensorflow/m_quant.json",), _quant, text=True),
    "study.journal": Parser(("litert/study.journal",), _journal, text=True, beside=True, unchanged=_ended),
    "cache": Parser((*_in_run("baseline.npz"), *_in_run("splits.npz")), _cache, beside=True, unchanged=_contents),
    "npz": Parser(("x.npz", "packed.npz"), _samples),
    "npy": Parser(("x.npy",), _samples),
    "tfrecord": Parser(("a.tfrecord",), _samples),
    "tflite": Parser(("m.tflite",), _model),
    "int8": Parser(("litert/m_int8.tflite",), _int8, beside=True, unchanged=bytes),
    "trial": Parser(
        ("litert/m_int8.tflite", "litert/config.json", "tensorflow/record.txt", "tensorflow/m_quantized.pb"),
        _exported,
        beside=True,
        unchanged=bytes,
    ),
    "pb": Parser(("m.pb",), _model, slow=True),
    "saved_model": Parser(("saved_model/saved_model.pb", *WEIGHTS), _saved_model, beside=True, slow=True),
    "keras": Parser(("m.keras",), _model, slow=True),
    "h5": Parser(("m.h5",), _model, slow=True),
}


def placed(parser: Parser, corpora: Path, file: str, content: bytes, folder: Path) -> Path:
    """Put damaged content into an empty folder, beside what it is read with; gives its path."""
    top = Path(file).parts[0]
    if parser.beside:
        shutil.copytree(corpora / top, folder / top, symlinks=True)
        path = folder / file
    else:
        path = folder / Path(file).name
    path.write_bytes(content)
    return path


def expected(parser: Parser, corpora: Path, folder: Path, file: str) -> Any:
    """What the original gives, where that is compared."""
    if parser.unchanged is None:
        return None
    return parser.unchanged(parser.open(placed(parser, corpora, file, (corpora / file).read_bytes(), folder)))
