import math

import pytest

from autoquant.cli.screen import styled
from autoquant.cli.summary import brief, exit_code, summary
from autoquant.evaluation.latency import Latency, OperatorTime, Spread, Timed
from autoquant.tuning.result import Ended


def shown(lines: list[tuple[str, str]]) -> str:
    return styled(lines).rstrip("\n")


def test_met(trial, result) -> None:
    best = trial(1, drop=0.0625)
    met = result(trial(0), best, best=best, met=True)
    assert exit_code(met) == 0
    assert shown(summary(met)).splitlines() == [
        "met     top1 0.6875 with 2 of 3 layers in INT8, within 0.1250 of FP32",
        "FP32    top1 0.7500",
        "INT8    top1 0.6875, drop 0.0625, allowed 0.1250",
        "layers  2 of 3 in INT8, 62.5% of the multiply-adds",
        "trials  2 (best: trial 1), 160 samples evaluated, in 1m15s",
        "ended   the trials are used",
        "model   my run/best/net_quantized.pb",
        "report  my run/result.json",
        "next    autoquant export 'my run' --to net_quantized_export",
    ]
    assert shown(brief(met)).splitlines() == [
        "met    top1 0.6875 with 2 of 3 layers in INT8, within 0.1250 of FP32",
        "model  my run/best/net_quantized.pb",
    ]


def test_missed_says_by_how_much_and_which_layers_cost_the_most(trial, result) -> None:
    costly = tuple((f"layer{number}", error) for number, error in enumerate((math.inf, 0.5, 0.25, 0.125, 0.1, 0.01)))
    missed = result(trial(0), trial(1), best=trial(0), met=False, costly=costly)
    assert exit_code(missed) == 1
    lines = shown(summary(missed)).splitlines()
    assert lines[0] == "missed  best is top1 0.5000, which is 0.1250 below the allowed floor of 0.6250"
    assert lines[-9:] == [
        "costly  layers by how much each of them alone, in INT8, changes the output:",
        "        layer0  does not work out",
        "        layer1  50.0%",
        "        layer2  25.0%",
        "        layer3  12.5%",
        "        layer4  10.0%",
        "try     more trials: autoquant resume 'my run' --max-trials 4",
        "        or search anew with --space thorough, or with a larger --tolerance",
        "next    autoquant export 'my run' --to net_quantized_export",
    ]


def test_what_was_minimized_and_the_latency_are_told(trial, result) -> None:
    one = Spread(1.0, 1.0, 1.0)
    models = (
        Timed("FP32", Spread(0.002, 0.0019, 0.0021), one),
        Timed("INT8", Spread(0.001, 0.00095, 0.00105), Spread(2.0, 1.75, 2.25)),
    )
    operators = [OperatorTime(f"conv{number}", "CONV_2D", (0.0005, 0.00025)) for number in range(7)]
    latency = Latency(1, 1, 300, models, tuple(operators), (1.0, 1.0), "times varied by 50%")
    best = trial(1, drop=0.0625, boundaries=4)
    lines = shown(summary(result(best, best=best, met=True, objective="latency", latency=latency))).splitlines()
    assert lines[3:-4] == [
        "layers   2 of 3 in INT8, 62.5% of the multiply-adds; 4 conversions between INT8 and float",
        "latency  37.5% of the float model's, which is what was minimized",
        "here     FP32 2.00 ms (1.90 ms to 2.10 ms), INT8 1.00 ms (0.950 ms to 1.05 ms)",
        "         batch 1, 1 thread, median of 300 rounds in turns, with quartiles",
        "         INT8 is faster than FP32 here: 2.00 times the speed (1.75 to 2.25)",
        "         not to be relied on: times varied by 50%; measure again on an idle machine",
        "         slowest operators  kind         FP32      INT8  speed",
        *[f"         conv{number}              CONV_2D  0.500 ms  0.250 ms  2.00x" for number in range(5)],
        "trials   1 (best: trial 1), 80 samples evaluated, in 1m15s",
    ]


def test_missed_where_lower_is_better(trial, result) -> None:
    best = trial(0)
    worse = result(best, best=best, met=False, metric="mse", baseline=0.25, tolerance=0.125, limit=0.375)
    assert summary(worse)[0] == ("missed", "best is mse 0.5000, which is 0.1250 above the allowed ceiling of 0.3750")


@pytest.mark.parametrize(("failed", "words"), [(False, ""), (True, "; the last one failed: NaN")])
def test_missed_without_any_result(failed: bool, words: str, trial, result) -> None:
    trials = [trial(0, drop=None, reason="NaN")] if failed else []
    nothing = result(*trials, best=None, met=False)
    assert exit_code(nothing) == 1
    lines = summary(nothing)
    assert lines[0] == ("missed", f"no trial came to its end{words}")
    assert not {"INT8", "model", "next"} & {label for label, _ in lines}
    assert brief(nothing) == lines[:1]


def test_interrupted(trial, result) -> None:
    cut = result(trial(0), best=trial(0), met=False, ended=Ended.INTERRUPTED)
    assert exit_code(cut) == 130
    assert summary(cut)[-2:] == [
        ("next", "autoquant resume 'my run'"),
        ("or", "autoquant export 'my run' --to net_quantized_export"),
    ]
