"""create_quant_config: what it writes of a live graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import autoquant as amct
from autoquant.errors import PlanError

CONFIG = Path("new/folder/config.json")
CFG = Path("quant.cfg")


def written() -> Any:
    return json.loads(CONFIG.read_text())


def test_every_layer_has_the_documented_defaults(live: Any) -> None:
    amct.create_quant_config(str(CONFIG), live)
    ifmr = {
        "act_algo": "ifmr",
        "asymmetric": True,
        "max_percentile": 0.999999,
        "min_percentile": 0.999999,
        "num_bits": 8,
        "search_range": [0.7, 1.3],
        "search_step": 0.01,
    }

    def layer(*, channel_wise: bool) -> dict[str, Any]:
        weight = {"channel_wise": channel_wise, "num_bits": 8, "wts_algo": "arq_quantize"}
        return {"quant_enable": True, "activation_quant_params": ifmr, "weight_quant_params": weight}

    assert written() == {
        "version": 1,
        "batch_num": 1,
        "activation_offset": True,
        "do_fusion": True,
        "skip_fusion_layers": [],
        "conv": layer(channel_wise=True),
        "depthwise": layer(channel_wise=True),
        "dense": layer(channel_wise=False),
    }


def test_arguments_are_taken_over(live: Any) -> None:
    amct.create_quant_config(CONFIG, live, ["conv"], 4, False)
    config = written()
    assert config["batch_num"] == 4
    assert config["conv"] == {"quant_enable": False}
    assert not config["dense"]["activation_quant_params"]["asymmetric"]


def test_a_cfg_overrides_the_arguments(live: Any) -> None:
    CFG.write_text(
        "batch_num: 2 skip_layers: 'dense' do_fusion: false "
        "override_layer_configs { layer_name: 'conv' calibration_config { hfmg_quantize { num_of_bins: 1024 } } }"
    )
    amct.create_quant_config(CONFIG, live, skip_layers=["conv"], batch_num=7, config_defination=str(CFG))
    config = written()
    assert (config["batch_num"], config["do_fusion"]) == (2, False)
    assert config["dense"] == {"quant_enable": False}
    assert config["conv"]["activation_quant_params"] == {
        "act_algo": "hfmg",
        "asymmetric": True,
        "num_bits": 8,
        "num_of_bins": 1024,
    }


def test_a_written_configuration_can_be_used_unchanged(live: Any) -> None:
    amct.create_quant_config(CONFIG, live, ["conv"])
    assert len(amct.quantize_model(live, CONFIG, "record.txt")) == 2


def test_a_layer_that_is_not_quantized_anyway_can_be_skipped(
    built: Callable[[Callable[[], Any]], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (4, 4), name="x")
        y = tf.matmul(x, np.eye(4, dtype=np.float32), transpose_a=True, name="turned")
        tf.add(tf.matmul(y, np.eye(4, dtype=np.float32), name="plain"), x, name="sum")

    amct.create_quant_config(CONFIG, built(write), ["turned", "sum"])
    assert [name for name, value in written().items() if isinstance(value, dict)] == ["plain"]
    assert "cannot be quantized, `autoquant inspect` says why: turned\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skip_layers": ["cnv"]}, "Layer cnv does not exist in the graph.*; did you mean 'conv'"),
        ({"skip_layers": ["conv", "dense", "depthwise"]}, "Except skip_layers, no layer needs to quantize"),
        ({"batch_num": 0}, "create_quant_config: batch_num must be greater than zero, got 0"),
        ({"batch_num": "2"}, "create_quant_config: batch_num must be an int, got '2'"),
        ({"batch_num": True}, "create_quant_config: batch_num must be an int, got True"),
        ({"activation_offset": "no"}, "create_quant_config: activation_offset must be a bool, got 'no'"),
        ({"skip_layers": "conv"}, "create_quant_config: skip_layers is a text, 'conv'; give a list"),
        ({"config_defination": "none.cfg"}, "none.cfg: cannot be read"),
        ({"config_defination": CFG}, "quant.cfg.*batch_nun"),
    ],
)
def test_options_that_are_refused(live: Any, arguments: dict[str, Any], message: str) -> None:
    CFG.write_text("batch_nun: 2")
    with pytest.raises(PlanError, match=message):
        amct.create_quant_config(CONFIG, live, **arguments)
    assert not CONFIG.exists()
