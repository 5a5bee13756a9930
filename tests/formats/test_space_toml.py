from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from autoquant.calibration.ranges import RANGES, Ifmr, MinMax, Percentile
from autoquant.errors import SpaceError
from autoquant.formats.space_toml import Choices, Override, load_space, parse_space, presets

TEXT = """
version = 1
[global]
batch_num = [8, 1]
asymmetric = true
[layer]
quant_enable = [true, false]
act_algo = ["minmax", "percentile", "ifmr"]
[layer.percentile]
fraction = [0.999, 1]
[layer.ifmr]
max_percentile = [0.9999, 0.99999]
search_step = [0.01, 0.02]
[[override]]
layers = ["conv1*", "head"]
act_algo = "minmax"
[[override]]
types = "MatMul"
quant_enable = false
"""


def test_all_of_it() -> None:
    space = parse_space(TEXT, "my.toml")
    assert (space.where, space.text, space.whole["batch_num"]) == ("my.toml", TEXT, (8, 1))
    assert space.shared == Choices(asymmetric=(True,))
    assert space.layer == Choices(
        quant_enable=(True, False),
        activation=(
            MinMax(),
            Percentile(0.999),
            Percentile(1.0),
            Ifmr(max_percentile=0.9999, search_step=0.01),
            Ifmr(max_percentile=0.9999, search_step=0.02),
            Ifmr(max_percentile=0.99999, search_step=0.01),
            Ifmr(max_percentile=0.99999, search_step=0.02),
        ),
    )
    assert space.overrides == (
        Override(("conv1*", "head"), (), Choices(activation=(MinMax(),)), "my.toml.override[0]"),
        Override((), ("MatMul",), Choices(quant_enable=(False,)), "my.toml.override[1]"),
    )


def test_an_empty_file_offers_the_defaults() -> None:
    space = parse_space("", "my.toml")
    assert space.whole["batch_num"] == (1,)
    assert space.shared == Choices()
    assert space.layer == Choices()
    assert space.overrides == ()


def test_repairs_of_the_whole_model() -> None:
    others = "weight_rounding = ['gptq', 'nearest']\ntraining = [false, true]"
    space = parse_space(f"[global]\nequalize = [true, false]\nbias_correction = ['empirical', 'none']\n{others}", "a")
    assert space.whole == {
        "batch_num": (1,),
        "equalize": (True, False),
        "weight_rounding": ("gptq", "nearest"),
        "bias_correction": ("empirical", "none"),
        "training": (False, True),
    }
    assert parse_space("[global]\nequalize = true\nbias_correction = 'analytic'", "a").whole == {
        "batch_num": (1,),
        "equalize": (True,),
        "weight_rounding": ("nearest",),
        "bias_correction": ("analytic",),
        "training": (False,),
    }
    assert parse_space("", "a").whole == {
        "batch_num": (1,),
        "equalize": (False,),
        "weight_rounding": ("nearest",),
        "bias_correction": ("none",),
        "training": (False,),
    }


def test_a_balancer_has_strengths_and_false_for_none() -> None:
    space = parse_space(
        "[global]\ndmq_balancer = [false, 0.5]\n[[override]]\ntypes = 'MatMul'\ndmq_balancer = 0.2", "a"
    )
    assert space.shared == Choices(dmq=(None, 0.5))
    assert space.overrides[0].table == Choices(dmq=(0.2,))
    assert parse_space("[layer]\ndmq_balancer = false", "a").layer == Choices(dmq=(None,))


def test_powers_of_two() -> None:
    space = parse_space(
        "[global]\npower_of_two = true\n[[override]]\ntypes = 'MatMul'\npower_of_two = [true, false]", "a"
    )
    assert space.shared == Choices(power_of_two=(True,))
    assert space.overrides[0].table == Choices(power_of_two=(True, False))


def test_weight_algorithms() -> None:
    space = parse_space(
        "[layer]\nweight_algorithm = ['octav', 'minmax']\n[[override]]\ntypes = 'MatMul'\nweight_algorithm = 'mse'", "a"
    )
    assert space.layer == Choices(weight_algorithm=("octav", "minmax"))
    assert space.overrides[0].table == Choices(weight_algorithm=("mse",))
    assert parse_space("[global]\nweight_algorithm = 'octav'", "a").shared == Choices(weight_algorithm=("octav",))


def test_whole_numbers_stay_whole() -> None:
    own = "[layer.hfmg]\nnum_of_bins = [4096, 1024]\n[layer.ifmr]\nmax_percentile = 1"
    text = f"[layer]\nact_algo = ['hfmg', 'ifmr']\n{own}"
    hfmg = RANGES["hfmg"]
    offered = parse_space(text, "a").layer.activation
    assert offered == (hfmg(num_of_bins=4096), hfmg(num_of_bins=1024), Ifmr(max_percentile=1.0))
    assert [type(value) for one in offered[:2] for value in asdict(one).values()] == [int, int]


BAD = [
    ("x = [1,", "my.toml: is not valid TOML: "),
    ("version = 2", "my.toml.version: unknown 2; it can be 1"),
    ("[globl]", "my.toml.globl: unknown key; did you mean 'global'?"),
    ("layer = 3", "my.toml.layer: expected an object, got 3"),
    ("[layer]\nact_alg = 'ifmr'", "my.toml.layer.act_alg: unknown key; did you mean 'act_algo'?"),
    ("[layer]\nbatch_num = 1", "my.toml.layer.batch_num: unknown key"),
    ("[global]\nquant_enable = true", "my.toml.global.quant_enable: unknown key"),
    ("[layer]\nact_algo = ['ifrm']", "my.toml.layer.act_algo: unknown 'ifrm'; try 'ifmr'"),
    ("[layer]\nact_algo = 'minmaks'", "my.toml.layer.act_algo: unknown 'minmaks'; try 'minmax'"),
    ("[layer]\nact_algo = 3", "my.toml.layer.act_algo: expected a list of str, got 3"),
    ("[layer]\nact_algo = []", "my.toml.layer.act_algo: expected a list of str, got []; at least one value"),
    ("[layer]\nquant_enable = 1", "my.toml.layer.quant_enable: expected a list of bool, got 1"),
    ("[layer]\nasymmetric = [true, 'x']", "my.toml.layer.asymmetric: expected a list of bool"),
    ("[layer]\nasymmetric = [[true]]", "my.toml.layer.asymmetric: expected a list of bool"),
    ("[layer]\nasymmetric = [true, true]", "my.toml.layer.asymmetric: a value appears twice"),
    ("[global]\nbatch_num = [1, 0]", "my.toml.global.batch_num: must be greater than zero, got 0"),
    ("[global]\nbatch_num = 1.5", "my.toml.global.batch_num: expected a list of int, got 1.5"),
    ("[global]\nbatch_num = true", "my.toml.global.batch_num: expected a list of int, got True"),
    ("[global]\nequalize = 1", "my.toml.global.equalize: expected a list of bool, got 1"),
    ("[global]\nequalize = [true, true]", "my.toml.global.equalize: a value appears twice"),
    ("[layer]\nequalize = true", "my.toml.layer.equalize: unknown key"),
    ("[global]\nbias_correction = 'empiric'", "my.toml.global.bias_correction: unknown 'empiric'; try 'empirical'"),
    ("[global]\nweight_rounding = 'adaround'", "my.toml.global.weight_rounding: unknown 'adaround'"),
    ("[global]\nbias_correction = true", "my.toml.global.bias_correction: expected a list of str, got True"),
    ("[global]\nbias_correction = ['none', 'none']", "my.toml.global.bias_correction: a value appears twice"),
    ("[global]\ntraining = 'yes'", "my.toml.global.training: expected a list of bool, got 'yes'"),
    ("[layer]\nbias_correction = 'none'", "my.toml.layer.bias_correction: unknown key"),
    (
        "[layer]\nact_algo = 'percentile'\n[layer.percentile]\nfraction = 2",
        "my.toml.layer.percentile: fraction must be",
    ),
    ("[layer]\nact_algo = 'percentile'\n[layer.percentile]\nfraction = nan", "my.toml.layer.percentile: fraction must"),
    (
        f"[layer]\nact_algo = 'percentile'\n[layer.percentile]\nfraction = {10**400}",
        "my.toml.layer.percentile.fraction: expected a list of float",
    ),
    (
        "[layer]\nact_algo = 'ifmr'\n[layer.ifmr]\nfraction = 0.9",
        "my.toml.layer.ifmr.fraction: unknown key; known are max",
    ),
    (
        "[layer]\nact_algo = 'ifmr'\n[layer.percentile]\nfraction = 0.9",
        "my.toml.layer.percentile: has parameters but is",
    ),
    ("[global]\nasymmetric = true\n[layer]\nasymmetric = true", "my.toml.layer.asymmetric: is in [global] as well"),
    ("[global]\nact_algo = 'ifmr'\n[layer]\nact_algo = 'ifmr'", "my.toml.layer.act_algo: is in [global] as well"),
    (
        "[layer]\ndmq_balancer = [false, 0.1]",
        "my.toml.layer: dmq_balancer_param must be in [0.2, 0.8], got 0.1; correct",
    ),
    ("[layer]\ndmq_balancer = nan", "my.toml.layer: dmq_balancer_param must be in [0.2, 0.8], got nan"),
    ("[layer]\ndmq_balancer = true", "my.toml.layer.dmq_balancer: expected a list of numbers or false, got True"),
    ("[layer]\ndmq_balancer = '0.5'", "my.toml.layer.dmq_balancer: expected a list of numbers or false, got '0.5'"),
    ("[layer]\ndmq_balancer = []", "my.toml.layer.dmq_balancer: expected a list of numbers or false, got []"),
    ("[layer]\ndmq_balancer = [0.5, 0.5]", "my.toml.layer.dmq_balancer: a value appears twice in [0.5, 0.5]"),
    ("[global]\ndmq_balancer = 0.5\n[layer]\ndmq_balancer = 0.5", "my.toml.layer.dmq_balancer: is in [global] as"),
    ("[layer]\nactivation_bits = [8, 4]", "my.toml.layer.activation_bits: unknown 4; it can be 8, 16"),
    ("[layer]\nweight_algorithm = 'octave'", "my.toml.layer.weight_algorithm: unknown 'octave'; try 'octav'"),
    ("[layer]\nweight_algorithm = ['mse', 'mse']", "my.toml.layer.weight_algorithm: a value appears twice"),
    ("[layer]\nweight_algorithm = false", "my.toml.layer.weight_algorithm: expected a list of str, got False"),
    (
        "[global]\nweight_algorithm = 'mse'\n[layer]\nweight_algorithm = 'mse'",
        "my.toml.layer.weight_algorithm: is in [global] as well",
    ),
    (
        "[layer]\nact_algo = 'hfmg'\n[layer.hfmg]\nnum_of_bins = 4096.0",
        "my.toml.layer.hfmg.num_of_bins: expected a list of int, got 4096.0",
    ),
    ("[layer]\nact_algo = 'hfmg'\n[layer.hfmg]\nnum_of_bins = 4095", "my.toml.layer.hfmg: num_of_bins 4095 must be in"),
    ("[[override]]\nasymmetric = true", "my.toml.override[0]: says for no layer; give layers ="),
    ("[[override]]\nlayers = 'a'\nact_algo = 'x'", "my.toml.override[0].act_algo: unknown 'x'; it can be"),
    (
        "[override]\nlayers = 'a'",
        "my.toml.override: expected a list of tables, got {'layers': 'a'}; begin each with [[",
    ),
    ("override = 1", "my.toml.override: expected a list of tables, got 1"),
    ("x = " + "1" * 5000, "my.toml: is not valid TOML: "),
    ("x = " + "[" * 10**5, "my.toml: is not valid TOML: "),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message[8:60] for _, message in BAD])
def test_refused_input_is_named(text: str, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse_space(text, "my.toml")
    assert str(caught.value).startswith(message)
    assert caught.value.hint


def test_a_mistake_in_toml_has_line_and_column() -> None:
    with pytest.raises(SpaceError, match=r"my.toml: is not valid TOML: .*\(at line 3, column 14\)"):
        parse_space("[global]\n\nasymmetric = yes\n", "my.toml")


def test_presets_and_files(tmp_path: Path) -> None:
    assert set(presets()) == {"amct", "default", "demo", "litert", "quick", "skip_only", "thorough"}
    assert load_space("quick") == parse_space(presets()["quick"].read_text(encoding="utf-8"), "quick.toml")
    mine = tmp_path / "mine.toml"
    mine.write_text(TEXT, encoding="utf-8")
    assert load_space(mine) == load_space(str(mine)) == parse_space(TEXT, str(mine))
    mine.write_text(TEXT.replace("\n", "\r\n"), encoding="utf-8-sig", newline="")  # as Windows writes it
    assert load_space(mine) == parse_space(TEXT, str(mine))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"quik: is neither a file nor a preset; did you mean 'quick'"):
        load_space("quik")
    with pytest.raises(
        SpaceError, match="zzz: is neither a file nor a preset; give a file, or one of " + ", ".join(sorted(presets()))
    ):
        load_space("zzz")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(SpaceError, match=r"bad.toml: cannot be read"):
        load_space(tmp_path / "bad.toml")
