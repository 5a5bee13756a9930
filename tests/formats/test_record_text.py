import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.calibration.record import LayerRecord
from autoquant.errors import PlanError
from autoquant.formats.record_text import load_record, parse_record, record_text, save_record
from autoquant.quantization.affine import EPSILON, Affine

AFFINE = st.builds(Affine, st.floats(EPSILON, 1.0 / EPSILON, width=32), st.integers(-128, 127))
SCALES = st.lists(st.floats(0.0, exclude_min=True, allow_infinity=False, width=32), min_size=1, max_size=5)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
RECORD = st.dictionaries(NAME, st.builds(LayerRecord, AFFINE, SCALES.map(tuple)), min_size=1, max_size=3)


@given(RECORD)
def test_save_and_load(record: dict[str, LayerRecord]):
    loaded = parse_record(record_text(record), "record.txt")
    assert loaded == record and list(loaded) == list(record)


def test_the_text():
    record = {"conv1": LayerRecord(Affine(0.5, -128), (0.25, 0.125)), "fc": LayerRecord(Affine(2.0, 3), (1.0,))}
    assert record_text(record) == (
        'record {\n  key: "conv1"\n  value {\n    scale_d: 0.5\n    offset_d: -128\n'
        "    scale_w: 0.25\n    scale_w: 0.125\n    offset_w: 0\n    offset_w: 0\n  }\n}\n"
        'record {\n  key: "fc"\n  value {\n    scale_d: 2.0\n    offset_d: 3\n'
        "    scale_w: 1.0\n    offset_w: 0\n  }\n}\n"
    )


def test_the_published_record(real_data: Path):
    """Every convolution of it, against regular expressions; the pooling layer has no scale_w."""
    text = (real_data / "mobilenet_v2_record.txt").read_text()
    entries = re.findall(r"^record \{.*?^\}\n", text, re.DOTALL | re.MULTILINE)
    assert "".join(entries) == text and len(entries) == 54
    convolutions = [entry for entry in entries if "scale_w" in entry]
    assert len(convolutions) == 53
    for entry in convolutions:
        numbers = {
            key: [float(found) for found in re.findall(rf"{key}: (\S+)", entry)]
            for key in ("scale_d", "offset_d", "scale_w", "offset_w")
        }
        (name,) = re.findall('key: "(.*)"', entry)
        record = parse_record(entry, "record.txt")
        assert list(record) == [name]
        assert record[name].activation.scale == pytest.approx(numbers["scale_d"][0], rel=1e-7)
        assert record[name].activation.offset == numbers["offset_d"][0]
        assert record[name].scale_w == pytest.approx(numbers["scale_w"], rel=1e-7)
        assert set(numbers["offset_w"]) == {0} and len(numbers["offset_w"]) == len(record[name].scale_w)
        assert parse_record(record_text(record), "again") == record


def entry(value: str, key: str = 'key: "conv1"') -> str:
    return f"record {{ {key} value {{ {value} }} }}"


GOOD = "scale_d: 0.5 offset_d: 0 scale_w: 1 offset_w: 0"
BAD = [
    (entry(GOOD) * 2, "record.txt: conv1: is there twice; remove one of the two records"),
    (entry(GOOD, ""), 'record.txt: cannot find "key" in a record'),
    (entry("offset_d: 0 scale_w: 1 offset_w: 0"), "record.txt: conv1: cannot find scale_d; please check"),
    (entry("scale_d: 0.5 scale_w: 1 offset_w: 0"), "record.txt: conv1: cannot find offset_d"),
    ('record { key: "conv1" }', "record.txt: conv1: cannot find scale_d"),
    (entry(f"{GOOD} scale_w: 2"), "record.txt: conv1: scale_w's length 2, offset_w's length 1 should be equal"),
    (entry("scale_d: 0.5 offset_d: 0 scale_w: 1 offset_w: 3"), "record.txt: conv1: offset_w's value should be 0"),
    (entry("scale_d: 0.5 offset_d: 128 scale_w: 1 offset_w: 0"), "record.txt: conv1: offset must be in [-128, 127]"),
    (entry("scale_d: 0 offset_d: 0 scale_w: 1 offset_w: 0"), "record.txt: conv1: scale must be in"),
    (entry("scale_d: nan offset_d: 0 scale_w: 1 offset_w: 0"), "record.txt: conv1: scale must be in"),
    (entry("scale_d: 1e60 offset_d: 0 scale_w: 1 offset_w: 0"), "record.txt: conv1: scale must be in"),
    (entry("scale_d: 0.5 offset_d: 0 scale_w: -1 offset_w: 0"), "record.txt: conv1: scale_w must hold positive"),
    (entry("scale_d: 0.5 offset_d: 0 scale_w: inf offset_w: 0"), "record.txt: conv1: scale_w must hold positive"),
    (entry("scale_d: 0.5 offset_d: 99999999999 scale_w: 1 offset_w: 0"), "record.txt: is no record file: 1:"),
    (entry(f"{GOOD} shift_bit: 1"), "record.txt: is no record file: 1:"),
    (entry(f"{GOOD} scale_d: 1"), "record.txt: is no record file: 1:"),
    ("", "record.txt: record file is empty, no layers to be quantized; finish the calibration first"),
    ("# a comment\n", "record.txt: record file is empty"),
    ("garbage", "record.txt: is no record file: 1:"),
    ("record {", "record.txt: is no record file: 1:"),
    ("\x00\x01", "record.txt: is no record file"),
    (entry(GOOD, r'key: "\377"'), "record.txt: is no record file"),
    ('{"version": 1}', "record.txt: is no record file: 1:1"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[12:60] for _, message in BAD])
def test_what_is_refused(text: str, message: str):
    with pytest.raises(PlanError) as caught:
        parse_record(text, "record.txt")
    assert str(caught.value).startswith(message)
    assert caught.value.hint


def test_files(tmp_path: Path):
    path = tmp_path / "record.txt"
    with pytest.raises(PlanError, match=r"record.txt: cannot be read .*; give a record file"):
        load_record(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match=r"record.txt: cannot be read"):
        load_record(path)
    record = {"größe/Conv2D": LayerRecord(Affine(0.5, 0), (0.25,))}
    save_record(record, path)
    assert load_record(path) == record
