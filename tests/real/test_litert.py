"""Whole searches for LiteRT on real models. Every score is computed again here, by a plain interpreter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from real_cases import CASES, TIGHT, Case, SplitPositions, check_claim, right, searched
from super_resolution import FP32, OUTPUT, images, psnr

import autoquant
from autoquant.tuning import verification
from autoquant.tuning.certification.certificate import Verdict

SPACE = """
version = 1
[global]
batch_num = 13
act_algo = ["minmax", "ifmr"]
[layer]
quant_enable = [true, false]
"""


@dataclass(frozen=True)
class Plain:
    """An interpreter of LiteRT, as its documentation has it: one input, one output, the batch as it comes."""

    interpreter: Interpreter

    @classmethod
    def of(cls, path: Path) -> Plain:
        return cls(Interpreter(model_path=str(path), num_threads=2))

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        (entry,), (result,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.interpreter.resize_tensor_input(entry["index"], batch.shape)
        self.interpreter.allocate_tensors()
        self.interpreter.set_tensor(entry["index"], batch)
        self.interpreter.invoke()
        return np.array(self.interpreter.get_tensor(result["index"]))


@pytest.mark.parametrize("name", sorted(CASES | TIGHT))
def test_search(real_data: Path, tmp_path: Path, name: str) -> None:
    case = (CASES | TIGHT)[name]
    result = searched(case, real_data, tmp_path / "run", target="litert")
    assert result.best is not None
    assert result.model is not None
    before = right(case, real_data, Plain.of(float_file(case, real_data, tmp_path)))
    after = right(case, real_data, Plain.of(result.model))
    parts = SplitPositions.of(tmp_path / "run", len(after))
    assert (result.baseline, result.score) == (before[parts.search].mean(), after[parts.search].mean())
    # The runtimes of TensorFlow and LiteRT round differently: one sample may fall to another class.
    assert before.mean() == pytest.approx(case.fp32, abs=1.5 / len(before))
    check_claim(case, result, parts, before, after)
    assert result.layers == sum(case.layers.values())
    assert result.best.int8_layers >= result.layers - case.in_float


def float_file(case: Case, real_data: Path, folder: Path) -> Path:
    """The FP32 model as a .tflite, by TensorFlow's own converter."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef.FromString((real_data / case.model).with_suffix(".pb").read_bytes())
    name = next(node.name for node in graph_def.node if node.op == "Placeholder")
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(graph_def, name="")
        ends = [[graph.get_tensor_by_name(f"{end}:0")] for end in (name, case.output)]
        text = tf.compat.v1.lite.TFLiteConverter.from_session(session, *ends).convert()
    path = folder / "float.tflite"
    path.write_bytes(text)
    return path


def test_super_resolution(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of many sizes, one at a time."""
    monkeypatch.setattr(verification, "SAMPLES", 2)  # the reference kernels take seconds for an image
    folder = real_data / "super_resolution"
    set5, set14 = images(folder / "set5"), images(folder / "set14")
    (tmp_path / "space.toml").write_text(SPACE)
    result = autoquant.search(
        folder / "FSRCNN_x3.pb",
        set5,
        calibration=set14,
        metric=psnr,
        outputs=(OUTPUT,),
        batch_size=1,
        tolerance=0.3,
        max_trials=12,  # a plan of 5 layers loses 0.301 dB
        target="litert",
        space=tmp_path / "space.toml",
        run=tmp_path / "run",
    )
    assert result.baseline == pytest.approx(FP32, abs=0.01)
    assert result.model is not None
    plain = Plain.of(result.model)
    assert float(np.mean([psnr(plain(x), y) for x, y in set5()])) == pytest.approx(result.score, abs=1e-4)
    assert result.verdict is Verdict.MET  # five images are too few to certify it
    assert result.certificate is None
    assert result.verification is not None
    assert result.verification.samples == 2
