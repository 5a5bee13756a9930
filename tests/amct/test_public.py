"""The functions that scripts made for AMCT find in the package itself, with AMCT's arguments."""

from __future__ import annotations

import inspect

import pytest

import autoquant as amct

SIGNATURES = {
    "accuracy_based_auto_calibration": (
        "model_file, outputs, record_file, config_file, save_dir, evaluator, strategy, sensitivity"
    ),
    "convert_model": "pb_model, outputs, record_file, save_path",
    "convert_qat_model": "pb_model, outputs, save_path, record_file",
    "create_quant_config": "config_file, graph, skip_layers, batch_num, activation_offset, config_defination",
    "quantize_model": "graph, config_file, record_file, calib_outputs",
    "save_model": "pb_model, outputs, record_file, save_path",
    "set_logging_level": "print_level, save_level",
    "GraphEvaluator": "data_dir, input_shape, data_types",
}
"""Name -> the arguments that may be given by position, as AMCT documents them."""


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize(("name", "arguments"), SIGNATURES.items())
def test_arguments_are_those_of_amct(name: str, arguments: str) -> None:
    parameters = inspect.signature(getattr(amct, name)).parameters.values()
    assert ", ".join(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD) == arguments


@pytest.mark.usefixtures("tensorflow")
def test_every_public_name_is_there() -> None:
    assert {name for name in amct.__all__ if getattr(amct, name).__module__.startswith("autoquant.amct")} == {
        *SIGNATURES,
        "AutoCalibrationEvaluatorBase",
    }
    with pytest.raises(AttributeError, match="has no attribute 'quantise'"):
        _ = amct.quantise
