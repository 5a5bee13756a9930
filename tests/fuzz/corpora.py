"""Makes the files that are damaged, models, data and runs of one small network: what is in corpora/.

python tests/fuzz/corpora.py [FOLDER]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

SPACE = '[global]\nbatch_num = [1]\n[layer]\nact_algo = ["minmax", "ifmr"]\nquant_enable = [true, false]\n'
CFG = """# simplified configuration
batch_num : 2
activation_offset : true
do_fusion : true
skip_layers : "dense"
conv_calibration_config : {
    arq_quantize : { channel_wise : true }
    ifmr_quantize : { search_range_start : 0.7 search_range_end : 1.3 search_step : 0.01 max_percentile : 0.999 }
}
override_layer_configs : { layer_name : "conv" calibration_config : { arq_quantize : { channel_wise : false } } }
"""


def make_corpora(folder: Path) -> None:
    """Write all of them into a folder that is there."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 6, 6, 2)).astype(np.float32)
    keras_net = _network(tf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras_net.save(folder / "m.keras")
        keras_net.save(folder / "m.h5")
        keras_net.export(folder / "saved_model", verbose=False)
    y = np.asarray(keras_net(x)).argmax(axis=1)
    np.savez(folder / "x.npz", input=x[:12], y=y[:12], patient=np.arange(12) // 2)
    np.savez_compressed(folder / "packed.npz", input=x[:12], y=y[:12])
    np.save(folder / "x.npy", x[:4])
    (folder / "m.pb").write_bytes(_frozen(tf))
    (folder / "space.toml").write_text(SPACE)
    (folder / "net.cfg").write_text(CFG)
    _records(tf, folder / "a.tfrecord")
    np.savez(folder / "all.npz", input=x[:200], y=y[:200])
    np.savez(folder / "calibration.npz", input=x[200:])
    _runs(folder)


def _network(tf: Any) -> Any:
    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(0)
    return tf.keras.Sequential(
        [
            tf.keras.Input((6, 6, 2), name="input"),
            layers.Conv2D(3, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="dense"),
        ]
    )


def _frozen(tf: Any) -> bytes:
    rng = np.random.default_rng(1)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 2), name="input")
        x = tf.nn.conv2d(x, tf.constant(rng.normal(size=(3, 3, 2, 3)).astype(np.float32)), 1, "SAME", name="conv")
        x = tf.nn.relu(tf.nn.bias_add(x, tf.constant(np.ones(3, np.float32))))
        x = tf.reduce_mean(x, (1, 2))
        tf.linalg.matmul(x, tf.constant(rng.normal(size=(3, 3)).astype(np.float32)), name="dense")
    return bytes(graph.as_graph_def().SerializeToString())


def _records(tf: Any, path: Path) -> None:
    image = tf.io.encode_png(np.arange(108, dtype=np.uint8).reshape(6, 6, 3)).numpy()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for label in range(6):
            feature = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def _runs(folder: Path) -> None:
    """A certified run of each target, those of its files that are read, flat; and a float .tflite."""
    import autoquant
    from autoquant.model.litert.convert import convert
    from autoquant.model.open import open_model

    for target in ("litert", "tensorflow"):
        found = autoquant.search(
            folder / "m.keras",
            folder / "all.npz",
            calibration=folder / "calibration.npz",
            space=folder / "space.toml",
            tolerance=0.5,
            max_trials=3,
            batch_size=20,
            target=target,
            run=folder / f"run-{target}",
        )
        assert found.certificate is not None, found.uncertified
        shutil.copytree(found.run / "best", folder / target)
        for name in ("run.toml", "space.toml", "study.journal", "holdout_log.json", "baseline.npz", "splits.npz"):
            shutil.copy(found.run / name, folder / target / name)
        request = folder / target / "run.toml"  # on no machine in particular
        request.write_text(request.read_text().replace(str(folder), "/corpora"))
    (folder / "m.tflite").write_bytes(convert(open_model(folder / "m.keras").graph).content)


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("corpora")
    with tempfile.TemporaryDirectory() as made:
        make_corpora(Path(made))
        for run in Path(made).glob("run-*"):
            shutil.rmtree(run)
        for data in ("all.npz", "calibration.npz"):
            (Path(made) / data).unlink()
        shutil.copytree(made, place, dirs_exist_ok=True)
