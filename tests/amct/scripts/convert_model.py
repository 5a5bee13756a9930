"""A script after the call sequences that AMCT documents for scales of the user's own, and for a QAT model.

Usage: convert_model.py MODEL RECORD TRAINED SAVE_DIR
"""

from __future__ import annotations

import os
import sys
from typing import Any

import amct_tensorflow as amct  # type: ignore[import-not-found]  # is found when the script is run
import numpy as np
import tensorflow as tf

PATH = os.path.realpath("./")


def infer(model: Any, inputs: str, outputs: str, size: int) -> Any:
    tf.compat.v1.reset_default_graph()
    with tf.io.gfile.GFile(model, mode="rb") as file:
        graph_def = tf.compat.v1.GraphDef()
        graph_def.ParseFromString(file.read())
    tf.import_graph_def(graph_def, name="")
    graph = tf.compat.v1.get_default_graph()
    with tf.compat.v1.Session() as session:
        image = np.linspace(-1, 1, 2 * size * size * 2).reshape(2, size, size, 2)
        return session.run(graph.get_tensor_by_name(outputs), feed_dict={graph.get_tensor_by_name(inputs): image})


def main() -> None:
    model, record, trained, folder = sys.argv[1:]
    amct.convert_model(pb_model=model, outputs=["scores"], record_file=record, save_path=f"{PATH}/{folder}/own")
    original = infer(model, "image:0", "scores:0", 8)
    converted = infer(f"{folder}/own_quantized.pb", "image:0", "scores:0", 8)
    amct.convert_qat_model(pb_model=trained, outputs=["y"], save_path=f"{PATH}/{folder}/qat")
    before = infer(trained, "x:0", "y:0", 8)
    after = infer(f"{folder}/qat_quantized.pb", "x:0", "y:0", 8)
    for one, other in ((original, converted), (before, after)):
        print(np.linalg.norm(one - other) / np.linalg.norm(one))


if __name__ == "__main__":
    main()
