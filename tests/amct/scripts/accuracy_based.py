"""A script after the call sequence that AMCT documents for accuracy_based_auto_calibration, for TensorFlow 1.

Usage: accuracy_based.py MODEL DATA SAVE_DIR
"""

from __future__ import annotations

import argparse
from typing import Any

import tensorflow as tf

tf.logging.set_verbosity(tf.logging.ERROR)

import amct_tensorflow as amct  # type: ignore[import-not-found]  # noqa: E402  # is found when the script is run
import numpy as np  # noqa: E402
from amct_tensorflow.common.auto_calibration import (  # type: ignore[import-not-found]  # noqa: E402
    AutoCalibrationEvaluatorBase,
)
from amct_tensorflow.utils.log import LOGGER  # type: ignore[import-not-found]  # noqa: E402


class Evaluator(AutoCalibrationEvaluatorBase):  # type: ignore[misc]
    def __init__(self, path: str) -> None:
        data = np.load(path)
        self.images, self.labels = data["x"], data["y"]

    def calibration(self, graph: Any, outputs: Any) -> None:
        with graph.as_default():
            data = tf.data.Dataset.from_tensor_slices(self.images).batch(32)
            batch = tf.data.make_one_shot_iterator(data).get_next()
            with tf.Session(graph=graph) as session:
                session.run(tf.global_variables_initializer())
                session.run(outputs[0] + ":0", feed_dict={"image:0": session.run(batch)})

    def evaluate(self, graph: Any, outputs: Any) -> float:
        with graph.as_default(), tf.Session() as session:
            scores = session.run(outputs[0] + ":0", feed_dict={"image:0": self.images})
        return float(np.mean(scores.argmax(axis=1) == self.labels)) * 100

    def metric_eval(self, original_metric: float, new_metric: float) -> tuple[bool, float]:
        loss = original_metric - new_metric
        return (loss < 5.0, loss)


def main(args: argparse.Namespace) -> None:
    with tf.gfile.GFile(args.model, mode="rb") as file:
        graph_def = tf.GraphDef()
        graph_def.ParseFromString(file.read())
    tf.import_graph_def(graph_def)
    config_file = f"{args.save_dir}/config.json"
    amct.create_quant_config(config_file, tf.get_default_graph(), batch_num=np.int64(1))
    LOGGER.push_warning_message("begins", module_name="sample")
    record_file, save_dir = f"{args.save_dir}/record.txt", f"{args.save_dir}/tiny"
    amct.accuracy_based_auto_calibration(
        args.model, ["scores"], record_file, config_file, save_dir, Evaluator(args.data), "BinarySearch"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("save_dir")
    main(parser.parse_args())
