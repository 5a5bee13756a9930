"""A script after the call sequence that AMCT documents for calibration, as one for TensorFlow 2 is written.

Usage: calibration.py MODEL DATA OUTPUTS SAVE_PATH
"""

from __future__ import annotations

import sys
from typing import Any

import amct_tensorflow as amct  # type: ignore[import-not-found]  # is found when the script is run
import numpy as np
import tensorflow as tf

amct.set_logging_level(print_level="info", save_level="info")

BATCH_SIZE = 50
BATCH_NUM = 2


def load_pb(model: Any) -> Any:
    tf.compat.v1.reset_default_graph()
    with tf.io.gfile.GFile(model, "rb") as file:
        graph_def = tf.compat.v1.GraphDef()
        graph_def.ParseFromString(file.read())
    tf.import_graph_def(graph_def, name="")
    return tf.compat.v1.get_default_graph()


def run(graph: Any, batches: Any, outputs: Any) -> Any:
    with tf.compat.v1.Session(graph=graph) as session:
        session.run(tf.compat.v1.global_variables_initializer())
        results = [session.run(outputs, feed_dict={"image:0": batch})[0] for batch in batches]
    return np.concatenate(results)


def accuracy(graph: Any, data: Any, outputs: Any) -> Any:
    batches = np.split(data["x"], len(data["x"]) // BATCH_SIZE)
    return float(np.mean(run(graph, batches, outputs).argmax(axis=1) == data["y"]))


def main() -> None:
    model, data_file, output, save_path = sys.argv[1:]
    outputs = [output]
    data = np.load(data_file)

    original = accuracy(load_pb(model), data, outputs)

    graph = load_pb(model)
    config_file = "./outputs/config.json"
    record_file = "./outputs/record.txt"
    amct.create_quant_config(
        config_file=config_file, graph=graph, skip_layers=[], batch_num=BATCH_NUM, activation_offset=True
    )
    quant_add_ops = amct.quantize_model(graph=graph, config_file=config_file, record_file=record_file)
    assert [v.name for v in quant_add_ops] == [v.name for v in tf.compat.v1.global_variables()]
    batches = [data["x"][n * BATCH_SIZE : (n + 1) * BATCH_SIZE] for n in range(BATCH_NUM)]
    run(graph, batches, outputs)
    amct.save_model(pb_model=model, outputs=outputs, record_file=record_file, save_path=save_path)

    quantized = accuracy(load_pb(f"{save_path}_quantized.pb"), data, outputs)
    print(original, quantized)


if __name__ == "__main__":
    main()
