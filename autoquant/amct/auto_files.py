"""The files that accuracy_based_auto_calibration writes, and where."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoquant.amct.arguments import output_path
from autoquant.amct.evaluator import Judge
from autoquant.amct.logs import LOG, log
from autoquant.amct.roll_back import RollBackSpace
from autoquant.files import unwritable, write_bytes, write_text
from autoquant.formats.quant_json import quant_json_path
from autoquant.targets.tensorflow import TensorFlowTarget
from autoquant.tuning.events import Event, TrialEnded

HISTORY = LOG.parent / "accuracy_based_auto_calibration_record.json"
"""Made in the working directory; written anew, whole, after each trial."""
FINAL = "accuracy_based_auto_calibration_final_config.json"
RANKING = "accuracy_based_auto_calibration_ranking_information.json"


@dataclass
class History:
    """Listens to a session, and writes down what became of each configuration."""

    space: RollBackSpace
    judge: Judge
    entries: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Write it down, on disk as well."""
        if not isinstance(event, TrialEnded):
            return
        roll_back, judgement = self.space.roll_back(event.trial.plan), self.judge.judgement_of(event.trial)
        metric_eval = [judgement.satisfied, judgement.number]
        self.entries.append({"roll_back_config": roll_back, "metric_eval": metric_eval})
        write_text(output_path(HISTORY), json.dumps(self.entries, indent=2, allow_nan=False) + "\n")
        outcome = event.trial.failure or judgement
        log().info("%d of %d layers in INT8: %s", sum(roll_back.values()), len(roll_back), outcome)


@dataclass(frozen=True, slots=True)
class Files:
    """Where everything goes: what begins with the prefix, what lies beside that, and the record."""

    prefix: Path
    record: Path

    @classmethod
    def of(cls, save_dir: str | Path, model_file: Path, record_file: str | Path) -> Files:
        """As `accuracy_based_auto_calibration` says; folders are made. Raises RunError."""
        folder = str(save_dir).endswith(("/", os.sep)) or Path(save_dir).is_dir()
        prefix = Path(save_dir) / model_file.stem if folder else Path(save_dir)
        return cls(output_path(prefix), output_path(record_file))

    @property
    def model(self) -> Path:
        """The quantized model."""
        return self.prefix.with_name(TensorFlowTarget().file_name(self.prefix.name))

    @property
    def config(self) -> Path:
        """The final config."""
        return self.prefix.with_name(FINAL)

    @property
    def ranking(self) -> Path:
        """The layers and their scores."""
        return self.prefix.with_name(RANKING)

    def remove_model(self) -> None:
        """Leave no quantized model, which would be that of an earlier call."""
        for path in (self.model, quant_json_path(self.model)):
            path.unlink(missing_ok=True)

    def take_over(self, model: Path) -> None:
        """Move a model, and what lies beside it, to where it belongs. Raises RunError."""
        for source, to in ((model.with_name("record.txt"), self.record), (model.with_name("config.json"), self.config)):
            write_bytes(to, source.read_bytes())
        try:
            self.remove_model()  # a model never lies beside what describes another
            model.replace(self.model)
            quant_json_path(model).replace(quant_json_path(self.model))
        except OSError as error:
            raise unwritable(self.model, error) from error
