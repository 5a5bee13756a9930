"""A frozen .pb calibrated from its file to its INT8 model, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoquant.amct.configuration import create_quant_config
from autoquant.amct.evaluators import calibrate_with
from autoquant.amct.live import quantize_model
from autoquant.amct.saving import output_names, save_model
from autoquant.model.load import load
from autoquant.model.shapes import imported


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The files that were written: the last two by `save_model`, all others beside them."""

    config: Path
    record: Path
    model: Path
    mapping: Path


def calibrate_file(
    model: str | Path,
    outputs: Sequence[str] | str,
    save_path: str | Path,
    evaluator: Any,
    *,
    batch_num: int = 1,
    calibration_config: str | Path | None = None,
    simulation: bool = True,
) -> Calibrated:
    """Calibrate a frozen .pb by what `evaluator.calibration(graph, outputs)` runs, and write its INT8 model.

    `calibration_config` is a simplified configuration, `.cfg`, with a batch_num of its own. In the folder of
    `save_path`, config.json and record.txt are written too, over what is there. Raises as create_quant_config,
    quantize_model and save_model do, and DataError where the evaluator does not get through.
    """
    folder, names = Path(save_path).parent, output_names(outputs)
    config, record = folder / "config.json", folder / "record.txt"
    graph = imported(load(Path(model)))
    create_quant_config(config, graph, batch_num=batch_num, config_defination=calibration_config)
    quantize_model(graph, config, record, list(names))
    calibrate_with(evaluator, graph, names, record)
    saved = save_model(model, names, record, save_path, simulation=simulation)
    return Calibrated(config, record, saved.model, saved.mapping)
