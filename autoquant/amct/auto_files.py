"""The files that accuracy_based_auto_calibration writes, and where."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from autoquant.amct.arguments import output_path
from autoquant.files import unwritable, write_bytes
from autoquant.formats.quant_json import quant_json_path
from autoquant.targets.tensorflow import TensorFlowTarget

FINAL = "accuracy_based_auto_calibration_final_config.json"
RANKING = "accuracy_based_auto_calibration_ranking_information.json"


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
