"""A frozen .pb calibrated by an evaluator, from its file to its INT8 model, in one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoquant.amct.arguments import Names, output_names, save_prefix
from autoquant.amct.calibration import calibration_of, quantize_model
from autoquant.amct.configuration import create_quant_config
from autoquant.amct.saving import SavedModel, save_model
from autoquant.amct.script import add_import_names
from autoquant.amct.tensorflow_1 import add_names
from autoquant.errors import DataError, RunError, UsageError
from autoquant.evaluation.data.plugins import load_file, user_error
from autoquant.files import write_bytes
from autoquant.formats.quant_json import quant_json_path
from autoquant.formats.record_text import record_path
from autoquant.messages import reason
from autoquant.model.feed import Feed
from autoquant.model.load import load
from autoquant.model.shapes import import_graph


@dataclass(frozen=True, slots=True)
class CalibratedModel(SavedModel):
    """The files that were written: those of `save_model`, and beside them what they were made by."""

    config: Path
    record: Path


def calibrate_file(
    model: str | Path,
    outputs: Names | str,
    save_path: str | Path,
    evaluator: Any,
    *,
    batch_num: int = 1,
    calibration_config: str | Path | None = None,
    simulation: bool = True,
    feed: Feed = (),
    trust_model: bool = False,
) -> CalibratedModel:
    """Calibrate a frozen .pb by what `evaluator.calibration(graph, outputs)` runs, and write its INT8 model.

    `calibration_config` is a simplified configuration, `.cfg`, with a batch_num of its own; `feed` gives values to
    placeholders that are no data, such as is_training; `trust_model` opens a model that may do more than compute.
    Beside the files of save_model, `<save_path>_config.json` and `<save_path>_record.txt` are written. All four
    replace those of an earlier call; where that fails, config and record stay as they were. Raises as
    create_quant_config, quantize_model and save_model do, RunError where another's config or record would be lost,
    and DataError where the evaluator does not get through.
    """
    prefix, names = save_prefix(save_path), output_names(outputs)
    quantized = prefix.with_name(f"{prefix.name}_quantized.pb")
    config, record = prefix.with_name(f"{prefix.name}_config.json"), record_path(quantized)
    _refuse_others(config, record, quantized, quant_json_path(quantized))
    graph = import_graph(load(Path(model), feed, trust=trust_model))
    with _kept_if_it_fails(config, record):
        create_quant_config(config, graph, batch_num=batch_num, config_defination=calibration_config)
        quantize_model(graph, config, record, list(names))
        calibrate_with(evaluator, graph, names, record)
        saved = save_model(model, names, record, save_path, simulation=simulation, feed=feed)
    return CalibratedModel(saved.model, saved.mapping, config, record)


def _refuse_others(config: Path, record: Path, *model: Path) -> None:
    """Raise RunError where a config or record is there, but not all files of an earlier call."""
    found = [path for path in (config, record) if path.exists()]
    if found and not all(path.is_file() for path in (config, record, *model)):
        what = "is there already, and not with a config, a record and a model of this save_path"
        raise RunError(str(found[0]), what, hint="give another save_path, or move the file away")


@contextmanager
def _kept_if_it_fails(*paths: Path) -> Iterator[None]:
    """Whatever is raised within, let the files be what they are now, or not be there."""
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                write_bytes(path, content)
        raise


def open_evaluator(path: Path) -> Any:
    """The one object of a .py file that has a method `calibration(graph, outputs)`.

    The file may import amct_tensorflow, and use names of TensorFlow 1, as evaluators made for AMCT do. Raises
    DataError where the file cannot be imported, UsageError where it has no such object or several.
    """
    import tensorflow as tf

    if path.suffix != ".py":
        raise UsageError("--evaluator", f"'{path}' is not a .py file", hint="give the Python file of an evaluator")
    add_import_names()
    add_names(tf, behave=False)
    values = vars(load_file(str(path), path)).items()
    found = {
        id(value): name
        for name, value in values
        if not name.startswith("__") and not isinstance(value, type) and callable(getattr(value, "calibration", None))
    }
    if len(found) != 1:
        which = f"several objects ({', '.join(found.values())})" if found else "no object"
        hint = "make one instance of the evaluator's class in it, such as evaluator = Evaluator()"
        raise UsageError(str(path), f"has {which} with a method calibration(graph, outputs)", hint=hint)
    return next(value for _, value in values if id(value) in found)


def calibrate_with(evaluator: Any, graph: Any, outputs: Sequence[str], record_file: Path) -> None:
    """Let an evaluator run the calibration of a graph.

    Raises what ended the calibration of `record_file`, where something did; DataError for whatever else goes wrong in
    the evaluator, with its file and line.
    """
    import tensorflow as tf

    where = type(evaluator).__name__
    try:
        with _as_default(graph):
            evaluator.calibration(graph, list(outputs))
    except Exception as error:
        calibration = calibration_of(record_file)
        if calibration is not None:
            calibration.probes.raise_error(error)
        if isinstance(error, tf.errors.OpError):
            what = f"TensorFlow cannot run the model: {reason(error)}"
            raise DataError(where, what, hint="check what calibration(graph, outputs) feeds and runs") from error
        raise user_error(where, error) from error


@contextmanager
def _as_default(graph: Any) -> Iterator[None]:
    """Let a tf.Graph be the default one, so that tf.Session() without an argument runs it.

    Where operations were carried out at once, they still are: an evaluator may read its data so.
    """
    import tensorflow as tf
    from tensorflow.python.eager import context

    eager = tf.executing_eagerly()
    with graph.as_default():
        if not eager:
            yield
            return
        with context.eager_mode():
            yield
