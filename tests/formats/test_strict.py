from __future__ import annotations

import pytest

from autoquant.errors import PlanError, SpaceError
from autoquant.formats.strict import Fields, as_float


def fields(**values: object) -> Fields:
    return Fields(values, "f.json:$", PlanError)


def test_values_and_defaults() -> None:
    read = fields(a=2, b=2, c=True, d="x", e={"f": 1.5}, g=None)
    assert read.take("a", 1) == 2
    assert type(read.take("b", 1.0)) is float
    assert (read.take("c", False), read.only("d", ["x", "y"], "y"), read.take("missing", 7)) == (True, "x", 7)
    assert (read.sub("e").take("f", 0.0), read.sub("none").rest(), read.raw("g")) == (1.5, {}, None)
    read.done()


def test_values_without_a_default() -> None:
    read = fields(a=2, b=None)
    assert "a" in read and read.needed("a", float) == 2.0 and "a" not in read
    assert read.optional("c", float) is None and "c" not in read
    with pytest.raises(PlanError, match=r"f.json:\$.b: expected int, got None; correct the value"):
        read.optional("b", int)
    with pytest.raises(PlanError, match=r'f.json:\$.c: is missing, expected str; add "c"'):
        read.needed("c", str)


def test_fields_that_must_be_right() -> None:
    fields().require(True, "a", "is wrong", hint="correct it")
    with pytest.raises(PlanError, match=r"f.json:\$.a: is wrong; correct it"):
        fields().require(False, "a", "is wrong", hint="correct it")


def test_the_given_object_is_not_changed() -> None:
    given = {"a": 1}
    Fields(given, "$", PlanError).take("a", 0)
    assert given == {"a": 1}


@pytest.mark.parametrize(
    ("value", "default", "message"),
    [
        (True, 1, "f.json:$.a: expected int, got True; for example 1"),
        (1, True, "f.json:$.a: expected bool, got 1; for example True"),
        (True, 1.0, "f.json:$.a: expected float, got True; for example 1.0"),
        (1.5, 1, "f.json:$.a: expected int, got 1.5; for example 1"),
        ("1", 1.0, "f.json:$.a: expected float, got '1'; for example 1.0"),
        (None, 1, "f.json:$.a: expected int, got None; for example 1"),
        (2**53 + 1, 1.0, f"f.json:$.a: expected float, got {2**53 + 1}; for example 1.0"),
    ],
)
def test_wrong_type(value: object, default: object, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        fields(a=value).take("a", default)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [("ifrm", "f.json:$.a: unknown 'ifrm'; try 'ifmr'"), ("zzz", "f.json:$.a: unknown 'zzz'; it can be ifmr, minmax")],
)
def test_none_of_the_allowed(value: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        fields(a=value).only("a", ["ifmr", "minmax"], "ifmr")
    assert str(caught.value) == message


def test_unknown_keys() -> None:
    read = fields(batchnum=1)
    read.take("batch_num", 1)
    read.sub("layer")
    with pytest.raises(PlanError, match=r"f.json:\$.batchnum: unknown key; did you mean 'batch_num'\?"):
        read.done()
    with pytest.raises(SpaceError, match=r"x.zzz: unknown key; known are a"):
        other = Fields({"zzz": 1}, "x", SpaceError)
        other.take("a", 1)
        other.done()


@pytest.mark.parametrize("value", [None, 3, [], "text"])
def test_no_object(value: object) -> None:
    with pytest.raises(PlanError, match=r"f.json:\$.a: expected an object, got "):
        fields(a=value).sub("a")


def test_a_value_that_checks_itself() -> None:
    def refuse() -> int:
        raise ValueError("must be even")

    assert fields().build(lambda: 4) == 4
    with pytest.raises(PlanError, match=r"f.json:\$: must be even; correct the value"):
        fields().build(refuse)


@pytest.mark.parametrize(
    ("value", "expected"), [(3, 3.0), (-(2**53), -(2.0**53)), (2**53 + 1, 2**53 + 1), (True, True)]
)
def test_as_float(value: object, expected: object) -> None:
    got = as_float(value)
    assert got == expected and type(got) is type(expected)
