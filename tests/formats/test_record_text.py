from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import example, given
from hypothesis import strategies as st

from autoquant.calibration.record import LayerRecord
from autoquant.errors import PlanError
from autoquant.formats.record_text import MESSAGE, load_record, parse_record, record_text, save_record
from autoquant.formats.text_proto import shipped_message
from autoquant.quantization.affine import EPSILON, Affine

STEP = st.floats(EPSILON, 1.0 / EPSILON, width=32)
AFFINE = st.builds(Affine, STEP, st.integers(-128, 127)) | st.builds(Affine, STEP, st.just(0), st.just(16))
SCALE = st.floats(0.0, exclude_min=True, allow_infinity=False, width=32)
FACTORS = st.lists(st.floats(EPSILON, 1.0 / EPSILON, width=32), max_size=3).map(tuple)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@st.composite
def layer_records(draw: st.DrawFn) -> LayerRecord:
    scales = tuple(draw(st.lists(SCALE, max_size=4)))
    shifts = tuple(draw(st.sampled_from([0, 1, 16])) for _ in scales[:1]) * len(scales)
    return LayerRecord(
        draw(AFFINE),
        scales,
        draw(FACTORS),
        draw(st.sampled_from([8, 7, 6])),
        draw(st.sampled_from([(), shifts])),
        draw(st.booleans()),
    )


@given(st.dictionaries(NAME, layer_records(), min_size=1, max_size=3))
def test_save_and_load(record: dict[str, LayerRecord]) -> None:
    loaded = parse_record(record_text(record), "record.txt")
    assert loaded == record and list(loaded) == list(record)


@given(st.dictionaries(NAME, layer_records(), min_size=1, max_size=3))
@example({"least": LayerRecord(Affine(0.5, 0), (2.0**-149, 3 * 2.0**-149, 2.0**-126, 3.4028234663852886e38))})
def test_it_is_the_text_that_protobuf_writes(record: dict[str, LayerRecord]) -> None:
    message = shipped_message(*MESSAGE)()
    text_format.Parse(record_text(record), message)
    assert record_text(record) == text_format.MessageToString(message)


def test_the_text() -> None:
    record = {
        "conv1": LayerRecord(Affine(0.5, -128), (0.25, 0.125), (2.0, 4.0), 7, (1, 2), True),
        "fc": LayerRecord(Affine(2.0, 3), (1.0,)),
        "pool": LayerRecord(Affine(0.25, 0)),
        "add:1": LayerRecord(Affine(0.75, -5)),
    }
    assert record_text(record) == (
        'record {\n  key: "conv1"\n  value {\n    scale_d: 0.5\n    offset_d: -128\n'
        "    scale_w: 0.25\n    scale_w: 0.125\n    offset_w: 0\n    offset_w: 0\n"
        "    shift_bit: 1\n    shift_bit: 2\n    skip_fusion: true\n"
        '    tensor_balance_factor: 2.0\n    tensor_balance_factor: 4.0\n    wts_type: "INT7"\n  }\n}\n'
        'record {\n  key: "fc"\n  value {\n    scale_d: 2.0\n    offset_d: 3\n'
        "    scale_w: 1.0\n    offset_w: 0\n  }\n}\n"
        'record {\n  key: "pool"\n  value {\n    scale_d: 0.25\n    offset_d: 0\n  }\n}\n'
        'record {\n  key: "add:1"\n  value {\n    scale_d: 0.75\n    offset_d: -5\n  }\n}\n'
    )


def test_floats_have_no_more_digits_than_float32_needs() -> None:
    record = {
        "conv": LayerRecord(Affine(float(np.float32(0.1)), 0), (float(np.float32(0.3)),), (float(np.float32(0.7)),))
    }
    text = record_text(record)
    for line in ("scale_d: 0.1\n", "scale_w: 0.3\n", "tensor_balance_factor: 0.7\n"):
        assert f" {line}" in text
    assert parse_record(text, "record.txt") == record


def test_records_of_other_tools() -> None:
    text = """record { key: "conv" value { scale_d: 0.5 offset_d: 0 scale_w: 1 offset_w: 0 shift_bit: 0
        skip_fusion: false dst_type: 'INT8' act_type: "INT8" wts_type: "INT6" op_data_type: "FLOAT32"
        is_tensor_quantize: false fakequant_precision_mode: "DEFAULT" } }
    record { key: 'add:0' value: { scale_d: 0.1 offset_d: 1 is_tensor_quantize: true
        fakequant_precision_mode: "FORCE_FP16_QUANT" } }  # a comment"""
    assert parse_record(text, "record.txt") == {
        "conv": LayerRecord(Affine(0.5, 0), (1.0,), weight_bits=6, shift_bit=(0,)),
        "add:0": LayerRecord(Affine(0.0999755859375, 1)),  # 0.1 in float16: 1.599609375 / 16
    }


def test_the_published_record(real_data: Path) -> None:
    """Every convolution of it, against regular expressions; the pooling layer has no scale_w."""
    text = (real_data / "mobilenet_v2_record.txt").read_text()
    entries = re.findall(r"^record \{.*?^\}\n", text, re.DOTALL | re.MULTILINE)
    assert "".join(entries) == text and len(entries) == 54
    record = parse_record(text, "record.txt")
    assert [name for name in record if not record[name].scale_w] == ["MobilenetV2/Logits/AvgPool"]
    for entry, (name, layer) in zip(entries, record.items(), strict=True):
        numbers = {
            key: [float(found) for found in re.findall(rf"{key}: (\S+)", entry)]
            for key in ("scale_d", "offset_d", "scale_w", "offset_w")
        }
        assert re.findall('key: "(.*)"', entry) == [name]
        assert [layer.activation.scale] == pytest.approx(numbers["scale_d"], rel=1e-7)
        assert [layer.activation.offset] == numbers["offset_d"]
        assert layer.scale_w == pytest.approx(numbers["scale_w"], rel=1e-7)
        assert numbers["offset_w"] == [0] * len(layer.scale_w)


def test_the_published_record_again_byte_for_byte(real_data: Path) -> None:
    """Fields, order and lines are AMCT's; a float may have other digits, but must be the same float32."""

    def normal(text: str) -> str:
        return re.sub(r"(scale_[dw]:) (\S+)", lambda found: f"{found[1]} {np.float32(found[2])!r}", text)

    text = (real_data / "mobilenet_v2_record.txt").read_text()
    assert normal(record_text(parse_record(text, "record.txt"))) == normal(text)


def entry(value: str, key: str = 'key: "conv1"') -> str:
    return f"record {{ {key} value {{ {value} }} }}"


GOOD = "scale_d: 0.5 offset_d: 0 scale_w: 1 offset_w: 0"
CONV = "record.txt: conv1: "
UNREADABLE = "the record_file{record.txt} cannot be parsered: "
BAD = [
    (entry(GOOD) * 2, f"{CONV}appears twice; remove one of the two records"),
    (entry(GOOD, ""), 'record.txt: Cannot find "key" in record file, in record 1; every record needs a key'),
    ('record { key: "conv1" }', f"{CONV}cannot find 'value' in conv1 in record_file"),
    (
        'record {\n  key: "conv1"\n  value {\n  }\n}\n',
        f"{CONV}its record is empty: the calibration of this layer",
    ),
    (
        entry("offset_d: 0 scale_w: 1 offset_w: 0"),
        f"{CONV}cannot find scale_d of layer conv1 in record_file; please check data calibration process",
    ),
    (entry("scale_d: 0.5 scale_w: 1 offset_w: 0"), f"{CONV}cannot find offset_d of layer conv1 in record_file"),
    (entry("skip_fusion: true"), f"{CONV}cannot find scale_d of layer conv1 in record_file"),
    (
        entry(f"{GOOD} scale_w: 2"),
        f"{CONV}scale_w's length, offset_w's length should be equal in layer conv1, got 2 and 1; give one of each",
    ),
    (entry("scale_d: 0.5 offset_d: 0 scale_w: 1 offset_w: 3"), f"{CONV}offset_w's value should be 0 in layer conv1"),
    (
        entry("scale_d: 0.5 offset_d: 128 scale_w: 1 offset_w: 0"),
        f"{CONV}offset_d's value should be in [-128, 127] in layer conv1, got 128",
    ),
    (entry("scale_d: 0 offset_d: 0 scale_w: 1 offset_w: 0"), f"{CONV}scale must be in"),
    (entry("scale_d: nan offset_d: 0 scale_w: 1 offset_w: 0"), f"{CONV}scale must be in"),
    (entry("scale_d: 1e60 offset_d: 0 scale_w: 1 offset_w: 0"), f"{CONV}scale must be in"),
    (entry("scale_d: 0.5 offset_d: 0 scale_w: -1 offset_w: 0"), f"{CONV}scale_w must hold positive"),
    (entry("scale_d: 0.5 offset_d: 0 scale_w: inf offset_w: 0"), f"{CONV}scale_w must hold positive"),
    (entry(f"{GOOD} shift_bit: 17"), f"{CONV}shift_bit must be all 0, or all in [1, 16]"),
    (entry(f"{GOOD} shift_bit: 1 shift_bit: 1"), f"{CONV}there are 2 shift_bit for 1 scale_w"),
    (entry(f"{GOOD} tensor_balance_factor: 0"), f"{CONV}tensor_balance_factor must hold positive"),
    (entry(f"{GOOD} dst_type: 'INT4'"), f"{CONV}dst_type INT4 is not supported, only INT8; calibrate the layer anew"),
    (entry(f"{GOOD} act_type: 'INT4'"), f"{CONV}act_type INT4 is not supported, only INT8, INT16"),
    (
        entry("scale_d: 0.5 offset_d: 1 scale_w: 1 offset_w: 0 act_type: 'INT16'"),
        f"{CONV}there are 8 bits, or 16 without an offset, got 16 with 1",
    ),
    (entry(f"{GOOD} wts_type: 'INT4'"), f"{CONV}wts_type INT4 is not supported, only INT8, INT7, INT6"),
    (entry(f"{GOOD} op_data_type: 'FLOAT16'"), f"{CONV}op_data_type FLOAT16 is not supported, only FLOAT32"),
    (
        entry(f"{GOOD} fakequant_precision_mode: 'HALF'"),
        f"{CONV}fakequant_precision_mode HALF is not supported, only",
    ),
    (entry(f"{GOOD} cluster: 1"), f"{CONV}cluster: non-uniform quantization (NUQ) is not supported"),
    (entry(f"{GOOD} scale_h: 1"), f"{CONV}scale_h: recurrent layers are not quantized"),
    (entry(f"{GOOD} offset_r: 1"), f"{CONV}offset_r: recurrent layers are not quantized"),
    (entry(f"{GOOD} prune_producer: 'a'"), f"{CONV}prune_producer: the layer was pruned"),
    (
        entry(GOOD)
        + " prune_record { producer { name: 'a' attr { name: 'begin' type: INT i: 0 } } consumer { name: 'b' } }",
        "record.txt: prune_record: pruning is not supported",
    ),
    (entry("scale_d: 0.5 offset_d: 99999999999"), f"record.txt:1:54: {UNREADABLE}"),
    (entry(f"{GOOD} shift_bits: 1"), f'record.txt:1:79: {UNREADABLE}Message type "SingleLayerRecord" has no field'),
    (entry(f"{GOOD} scale_d: 1"), f"record.txt:1:88: {UNREADABLE}"),
    ("", "record.txt: record_file is empty, no layers to be quantized; please ensure calibration is finished"),
    ("# a comment\n", "record.txt: record_file is empty"),
    ("garbage", f"record.txt:1:1: {UNREADABLE}"),
    ("record {", f"record.txt:1:8: {UNREADABLE}"),
    ("\x00\x01", f"record.txt:1:1: {UNREADABLE}"),
    (entry(GOOD, r'key: "\377"'), "record.txt"),
    ('{"version": 1}', f"record.txt:1:1: {UNREADABLE}"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[12:60] for _, message in BAD])
def test_refused_input_is_named(text: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_record(text, "record.txt")
    assert str(caught.value).startswith(message)
    assert caught.value.hint


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "record.txt"
    with pytest.raises(PlanError, match=r"record.txt: cannot be read .*; give a record file"):
        load_record(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match=r"record.txt: cannot be read"):
        load_record(path)
    path.write_bytes(b"\xef\xbb\xbfrecord {\r\n  key: 'pool'\r\n  value { scale_d: 0.5 offset_d: 0 }\r\n}\r\n")
    assert load_record(path) == {"pool": LayerRecord(Affine(0.5, 0))}  # as Windows writes it
    record = {"größe/Conv2D": LayerRecord(Affine(0.5, 0), (0.25,))}
    save_record(record, path)
    assert load_record(path) == record
