"""Tables as data: which columns are inputs, which is the label, and what is said where that cannot be known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from autoquant.errors import DataError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.data.opening import check_spec
from autoquant.evaluation.data.units import column_of
from autoquant.model.model import InputSpec

AGE, SEX = InputSpec("age", np.dtype("float32"), (None, 1)), InputSpec("sex", np.dtype(object), (None, 1))
BOTH = InputSpec("features", np.dtype("float32"), (None, 2))
FRAME = pandas.DataFrame({"age": [30, 41, 25], "sex": ["f", "m", "f"], "sick": [0, 1, 1], "patient": [7, 7, 9]})
NUMBERS = pandas.DataFrame({"a": [1.0, 2.0, 3.0], "kind": [2, 0, 1], "b": [4, 5, 6]})


def read(spec: Any, *inputs: InputSpec) -> tuple[dict[str, Any], Any]:
    (batch,) = open_data(spec, inputs).batches(10)
    return {key: array.tolist() for key, array in batch.inputs.items()}, batch.labels


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    FRAME.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def test_a_column_for_each_input(csv: Path) -> None:
    given = {"age": [[30.0], [41.0], [25.0]], "sex": [[b"f"], [b"m"], [b"f"]]}
    for spec in (f"{csv}@label=sick", FRAME.rename(columns={"sick": "label"}), FRAME.drop(columns="patient")):
        inputs, labels = read(spec, AGE, SEX)
        assert inputs == given
        np.testing.assert_array_equal(labels, [0, 1, 1])
    inputs, labels = read(csv, AGE, SEX)  # two are left, and which is the label cannot be known
    assert inputs == given and labels is None


def test_the_other_columns_can_be_named(csv: Path) -> None:
    data = open_data(f"{csv}@label=sick", [AGE, SEX])
    assert column_of(data, "patient", "--unit").tolist() == [7, 7, 9]
    other = open_data(FRAME.assign(patient=[1, 2, 3], label=FRAME["sick"]), [AGE, SEX])
    assert other.digest != open_data(FRAME.assign(label=FRAME["sick"]), [AGE, SEX]).digest


def test_all_columns_in_one_input() -> None:
    for spec in (NUMBERS.rename(columns={"kind": "y"}), (NUMBERS[["a", "b"]], NUMBERS["kind"])):
        inputs, labels = read(spec, BOTH)
        assert inputs == {"features": [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]}
        np.testing.assert_array_equal(labels, [2, 0, 1])
    assert read((NUMBERS[["a", "b"]], NUMBERS[["kind"]]), BOTH)[1].shape == (3,)
    assert read(NUMBERS[["a", "b"]], BOTH)[1] is None


@pytest.mark.parametrize(
    ("frame", "inputs", "told"),
    [
        (NUMBERS, [BOTH], "has 3 columns (a, kind, b), one more than the model's input 'features' takes; which is the"),
        (NUMBERS.assign(y=0), [BOTH], "has 3 columns beside the label 'y' (a, kind, b), the model's input 'features'"),
        (FRAME.drop(columns="sex"), [AGE, SEX], "data: has no column 'sex'"),
        (FRAME.rename(columns={"sex": "sec"}), [AGE, SEX], "has no column 'sex'; did you mean 'sec'?"),
        (FRAME[["age", "sex"]], [BOTH], "column 'sex' is text, and all columns go into the model's input 'features'"),
        (FRAME.assign(y="well"), [AGE, SEX], "its labels are text: 'well'; number the classes as the model does"),
        (FRAME.assign(age=[30, None, 25]), [AGE, SEX], "sample 1 has NaN or infinite values: input 'age'"),
        (FRAME.assign(age=pandas.array([30, None, 2], "Int64")), [AGE, SEX], "sample 1 has NaN or infinite values"),
        (FRAME.assign(sex=["f", None, "m"]), [AGE, SEX], "data, column 'sex': 'sex' holds"),
        (FRAME.assign(age=pandas.to_datetime("2026-01-01")), [AGE, SEX], "data, column 'age': holds times"),
        (pandas.concat([FRAME, FRAME[["age"]]], axis=1), [AGE, SEX], "has several columns called age"),
        (NUMBERS[:0], [BOTH], "has 3 columns"),
        (NUMBERS[["a", "b"]][:0], [BOTH], "is empty"),
    ],
)
def test_tables_that_do_not_fit(frame: Any, inputs: list[InputSpec], told: str) -> None:
    with pytest.raises(DataError) as caught:
        read(frame, *inputs)
    assert told in str(caught.value)


def test_csv_files_that_cannot_be_read(csv: Path, tmp_path: Path) -> None:
    check_spec(f"{csv}@label=sick")
    with pytest.raises(DataError, match="has no column 'sik'; did you mean 'sick'"):
        open_data(f"{csv}@label=sik", [AGE, SEX])
    with pytest.raises(DataError, match=r"tabel.csv: there is no such file or folder; did you mean 'table.csv'"):
        check_spec(f"{tmp_path / 'tabel.csv'}@label=sick")
    bad = tmp_path / "bad.csv"
    for content in (b"", b"a,b\n1,2,3\n1\n1,2,3,4\n", b"\xff\xfe\x00"):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.csv: cannot be read as \.csv"):
            open_data(bad, [BOTH])


def test_without_pandas_the_way_out_is_told(csv: Path) -> None:
    code = f"""
import sys
sys.modules["pandas"] = None
import numpy as np
from autoquant.evaluation.data.dataset import open_data
from autoquant.model.model import InputSpec
try:
    open_data({str(csv)!r}, [InputSpec("age", np.dtype("float32"), (None, 1))])
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"DataError {csv}: is read by pandas, which is not installed; pip install pandas\n"
