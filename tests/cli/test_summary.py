from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoquant.calibration.plan import Plan
from autoquant.cli.output import Row, labelled, page
from autoquant.cli.summary import brief, exit_code, summary
from autoquant.evaluation.latency.latency import Latency, ModelTime, OperatorTime, Spread
from autoquant.evaluation.statistics.paired import GroupBound
from autoquant.tuning.certification.certificate import Certificate, Verdict
from autoquant.tuning.certification.holdout import DECLINED
from autoquant.tuning.result import CostlyLayers, Ended, SearchResult, Shipped
from autoquant.tuning.study.trial import State, Trial
from autoquant.tuning.verification import Verification

Trials = Callable[..., Trial]
Results = Callable[..., SearchResult]
Certificates = Callable[..., Certificate]
DIGESTS = "SHA-256: FP32 000000000000, INT8 111111111111, data 222222222222"


def shown(rows: list[Row]) -> str:
    return page([labelled(rows)], columns=None).rstrip("\n")


def test_met_where_nothing_was_to_be_certified(trial: Trials, result: Results) -> None:
    best = trial(1, drop=0.0625)
    met = result(trial(0), best, best=best, met=True, declined=True, uncertified=DECLINED)
    assert exit_code(met) == 0
    assert shown(summary(met)).splitlines() == [
        "met      top1 0.6875 with 2 of 3 layers in INT8, within 0.1250 of FP32",
        "FP32     top1 0.7500",
        "INT8     top1 0.6875, drop 0.0625 (max drop 0.1250)",
        "layers   2 of 3 in INT8, 62.5% of the multiply-adds",
        f"holdout  none: {DECLINED}",
        "trials   2 (best: trial 1), 160 samples evaluated, in 1m15s",
        f"ended    {met.ended}",
        "model    my run/best/net_quantized.pb",
        "result   my run/result.json",
        "next     autoquant export 'my run' --to net_quantized_export",
    ]
    assert [label for label, _ in brief(met)] == ["met", "model"]


def test_the_pareto_front_and_what_is_shipped(trial: Trials, result: Results, tmp_path: Path) -> None:
    best, others = trial(0, drop=0.0625), [trial(number, drop=0.5 - 0.03125 * number) for number in range(1, 14)]
    run = tmp_path / "run"
    (run / "trials/0000").mkdir(parents=True)
    (run / "trials/0000/net_quantized.pb").touch()
    shipped = Shipped("float", run / "float/net_float.tflite", "0" * 64, "INT8 has 0.90 times the speed")
    more: dict[str, Any] = {"declined": True, "pareto": (best, *others), "keep_models": 2, "shipped": shipped}
    met = replace(result(best, *others, best=best, met=True, **more), run=run)
    lines = shown(summary(met)).splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("pareto"))
    assert [" ".join(line.split()) for line in lines[begin : begin + 4]] == [
        "pareto no trial has both a smaller drop and a larger share in INT8 than one of these:",
        "trial model drop share INT8 layers within",
        f"0 {run}/trials/0000/net_quantized.pb 0.0625 62.5% 2 yes",
        "1 - 0.4688 62.5% 2 no",
    ]
    assert lines[begin + 14].strip() == "and 2 more, in result.json"
    assert lines[begin + 15].split(maxsplit=2)[1:] == [f"{shipped.model}:", shipped.why]
    assert [label for label, _ in brief(met)] == ["met", "model", "ship"]
    assert not any(line.startswith("pareto") for line in shown(summary(replace(met, keep_models=1))).splitlines())


def test_what_is_in_front_of_the_model_is_named(trial: Trials, result: Results) -> None:
    best = trial(0, drop=0.0625)
    met = replace(result(best, best=best, met=True, declined=True), front=Path("my run/best/net_front.pb"))
    row = ("front", "my run/best/net_front.pb, which computes inputs of the model in TensorFlow")
    assert row in summary(met)
    assert brief(met)[-1] == row


def test_int16_and_the_kernels_of_litert_s_own_are_told(trial: Trials, result: Results) -> None:
    best = trial(0, drop=0.0625)
    wide = {name: None if own is None else replace(own, activation_bits=16) for name, own in best.plan.layers.items()}
    best = replace(best, plan=Plan(wide), int8_share=0.0, int16_share=0.625)
    kernels = {"xnnpack": {"CONV_2D": 1}, "builtin": {"CONV_2D": 2, "QUANTIZE": 1}}
    found = Verification("litert 2.3.0", "x86_64", (), 1, kernels, 200, 0.0, 0.0, None, 0.75, 0.75)
    rows = dict(summary(replace(result(best, best=best, met=True, declined=True), verification=found)))
    assert rows["layers"].startswith("0 of 3 in INT8, 0.0% of the multiply-adds, 2 with INT16 activations, 62.5%")
    assert rows["kernels"] == "1 operator on XNNPACK here, 3 on LiteRT's own kernels: CONV_2D 2, QUANTIZE 1"


def certified_rows(trial: Trials, result: Results, claim: Certificate, **more: Any) -> list[Row]:
    """The verdict, and what is said of this certificate."""
    best = trial(1, drop=0.0625)
    facts = {"verdict": claim.verdict, "certificate": claim, "search_samples": 80, **more}
    rows = summary(result(best, best=best, met=True, **facts))
    labels = [label for label, _ in rows]
    assert rows[1] == ("FP32", "top1 0.7500, on 80 search samples")
    return [rows[0], *rows[labels.index("holdout") : labels.index("trials")]]


def test_certified(trial: Trials, result: Results, certificate: Certificates) -> None:
    best, claim = trial(1, drop=0.0625), certificate()
    facts = {"verdict": claim.verdict, "certificate": claim}
    certified = ("certified", "2 of 3 layers in INT8, and with 95% confidence the drop is at most 0.0938")
    assert exit_code(result(best, best=best, met=True, **facts)) == 0
    model = ("model", "my run/best/net_quantized.pb")
    assert brief(result(best, best=best, met=True, **facts)) == [certified, model]
    assert certified_rows(trial, result, claim) == [
        certified,
        ("holdout", "400 samples that the search has not seen: 1,030 got worse, 5 better"),
        ("", "drop 0.0625, at most 0.0938 with 95% confidence (max drop 0.1250)"),
        ("", "measured on litert 2.3.0, xnnpack 15 on x86_64; bound: exact"),
        ("", DIGESTS),
    ]


def test_samples_that_were_left_out_are_counted(trial: Trials, result: Results, certificate: Certificates) -> None:
    rows = certified_rows(trial, result, certificate(left_out=1200))
    assert rows[2] == ("", "1,200 more left out, which are search or calibration samples too")


def test_a_metric_without_right_and_wrong_has_no_pairs(
    trial: Trials, result: Results, certificate: Certificates
) -> None:
    claim = certificate(losses=None, gains=None, confidence=0.999)
    assert certified_rows(trial, result, claim)[1:3] == [
        ("holdout", "400 samples that the search has not seen"),
        ("", "drop 0.0625, at most 0.0938 with 99.9% confidence (max drop 0.1250)"),
    ]


@pytest.mark.parametrize(
    ("needed", "words"),
    [
        (1234, [("", "about 1,234 holdout samples would certify these rates: --certify DATA")]),
        (None, []),  # at what was seen, no number would
    ],
)
def test_met_but_not_certified(
    needed: int | None, words: list[Row], trial: Trials, result: Results, certificate: Certificates
) -> None:
    claim = certificate(Verdict.MET, upper_bound=0.25, needed_samples=needed)
    best = trial(1, drop=0.0625)
    assert exit_code(result(best, best=best, met=True, verdict=claim.verdict, certificate=claim)) == 3
    rows = certified_rows(trial, result, claim)
    assert rows[0] == ("met", "top1 0.6875 with 2 of 3 layers in INT8, within 0.1250 of FP32; not certified")
    assert rows[2] == ("", "drop 0.0625, at most 0.2500 with 95% confidence (max drop 0.1250)")
    assert rows[5:] == words


def test_no_bound_is_named_as_such(trial: Trials, result: Results, certificate: Certificates) -> None:
    facts = {"upper_bound": math.inf, "needed_samples": 100, "method": "none, for lack of samples", "samples": 10}
    rows = certified_rows(trial, result, certificate(Verdict.MET, **facts))
    assert rows[2] == ("", "drop 0.0625, no bound with 95% confidence (max drop 0.1250)")
    assert rows[-1] == ("", "a certificate takes at least 100 holdout samples: --certify DATA")
    groups = (GroupBound("small", 1, 0.0, math.inf, -math.inf),)
    rows = certified_rows(trial, result, certificate(Verdict.MET, guard=groups, guard_max_drop=0.25))
    assert rows[-1][1].split() == ["small", "0.0000", "-", "1", "undecided"]


def test_met_without_a_holdout_says_why_it_is_not_certified(trial: Trials, result: Results) -> None:
    best = trial(1, drop=0.0625)
    met = result(best, best=best, met=True, uncertified="there are 10 samples in all")
    assert exit_code(met) == 3
    rows = summary(met)
    assert rows[0][1].endswith("within 0.1250 of FP32; not certified")
    assert ("holdout", "none: there are 10 samples in all") in rows


def test_missed_on_the_holdout(trial: Trials, result: Results, certificate: Certificates) -> None:
    claim = certificate(Verdict.MISSED, score=0.5, drop=0.25, upper_bound=0.3)
    best = trial(1, drop=0.0625)
    missed = result(best, best=best, met=True, verdict=claim.verdict, certificate=claim)
    assert exit_code(missed) == 1
    rows = summary(missed)
    what = "on 400 holdout samples the drop is 0.2500, more than 0.1250; it was met on the search samples"
    assert rows[0] == ("missed", what)
    assert rows[-3:] == [
        ("try", "search again with --space thorough or a larger --tolerance, and a new holdout: --certify DATA;"),
        ("", "a new run on the same data would have the same holdout, which has been used"),
        ("next", "autoquant export 'my run' --to net_quantized_export"),
    ]


def test_missed_on_a_holdout_though_the_certificate_is_gone(trial: Trials, result: Results) -> None:
    best, gone = trial(1, drop=0.0625), "trial 1 missed on the holdout"
    missed = result(best, best=best, met=True, verdict=Verdict.MISSED, uncertified=gone, declined=True)
    assert exit_code(missed) == 1
    assert summary(missed)[0] == ("missed", gone)
    assert "holdout" not in {label for label, _ in summary(missed)}


def test_missed_is_missed_whatever_the_holdout(trial: Trials, result: Results) -> None:
    """A reason why nothing certifies explains nothing there."""
    rows = summary(result(trial(0), best=trial(0), met=False, uncertified="there are 10 samples in all"))
    assert "holdout" not in {label for label, _ in rows}


def group(label: str, drop: float, upper: float, lower: float = -1.0) -> GroupBound:
    return GroupBound(label, 1500, drop, upper, lower)


def test_groups_that_are_guarded(trial: Trials, result: Results, certificate: Certificates) -> None:
    groups = (group("left", 0.375, 0.5, 0.3), group("right side", 0.25, 0.5), group("up", 0.0, 0.125))
    rows = certified_rows(trial, result, certificate(Verdict.MET, guard=groups, guard_max_drop=0.25))
    assert rows[5] == ("guard", "3 groups, max drop 0.2500 each:")
    assert [words for _, words in rows[6:]] == [
        "group         drop  at most  samples     within",
        "left        0.3750   0.5000    1,500         no",
        "right side  0.2500   0.5000    1,500  undecided",
        "up          0.0000   0.1250    1,500        yes",
    ]
    many = tuple(group(str(number), 0.0, 0.25) for number in range(7))
    rows = certified_rows(trial, result, certificate(guard=many, guard_max_drop=0.25))
    assert rows[5] == ("guard", "7 groups, max drop 0.2500 each; the 5 with the largest drop:")
    assert len(rows[6:]) == 1 + 5


def test_groups_without_holdout_samples_are_named(trial: Trials, result: Results, certificate: Certificates) -> None:
    facts = {"guard": (group("left", 0.0, 0.1),), "guard_max_drop": 0.25}
    _, words = certified_rows(trial, result, certificate(Verdict.MET, **facts, unseen=("7", "9")))[-1]
    assert words == "groups without holdout samples, which stay uncertified: 7, 9; --certify DATA that has some"
    _, words = certified_rows(trial, result, certificate(Verdict.MET, **facts, unseen=tuple("abcdefg")))[-1]
    assert "uncertified: a, b, c, d, e and 2 more; " in words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "1 group proven to drop more than 0.2500: g0 0.5000"),
        (2, "2 groups proven to drop more than 0.2500: g0 0.5000, g1 0.5000"),
        (
            7,
            "7 groups proven to drop more than 0.2500: g0 0.5000, g1 0.5000, g2 0.5000, g3 0.5000, g4 0.5000 "
            "and 2 more",
        ),
    ],
)
def test_missed_because_of_groups(
    count: int, words: str, trial: Trials, result: Results, certificate: Certificates
) -> None:
    groups = tuple(group(f"g{number}", 0.5, 0.75, 0.375) for number in range(count))
    claim = certificate(Verdict.MISSED, guard=(*groups, group("well", 0.0, 0.1)), guard_max_drop=0.25)
    best = trial(1, drop=0.0625)
    missed = result(best, best=best, met=True, verdict=claim.verdict, certificate=claim)
    assert exit_code(missed) == 1
    assert summary(missed)[0] == ("missed", f"on 400 holdout samples {words}; it was met on the search samples")


def test_missed_says_by_how_much_and_which_layers_cost_the_most(trial: Trials, result: Results) -> None:
    values = {f"layer{number}": value for number, value in enumerate((0.5, 0.25, 0.125, math.inf, 0.1, 0.01))}
    missed = result(trial(0), trial(1), best=trial(0), met=False, costly=CostlyLayers.of(values, "measured somehow"))
    assert exit_code(missed) == 1
    rows = summary(missed)
    what = "best is top1 0.5000, which misses by 0.1250: accept INT8 >= 0.6250 (max drop 0.1250)"
    assert rows[0] == ("missed", what)
    assert rows[-9:] == [
        ("costly", "layers by their divergence from FP32 when that layer alone is INT8, measured somehow:"),
        ("", "layer3  cannot be built or run"),
        ("", "layer0  0.5"),
        ("", "layer1  0.25"),
        ("", "layer2  0.125"),
        ("", "layer4  0.1"),
        ("try", "more trials: autoquant resume 'my run' --max-trials 4"),
        ("", "or search again with --space thorough or a larger --tolerance"),
        ("next", "autoquant export 'my run' --to net_quantized_export"),
    ]


def test_the_objective_and_the_latency_are_shown(trial: Trials, result: Results) -> None:
    one = Spread(1.0, 1.0, 1.0)
    models = (
        ModelTime("FP32", Spread(0.002, 0.0019, 0.0021), one),
        ModelTime("INT8", Spread(0.001, 0.00095, 0.00105), Spread(2.0, 1.75, 2.25)),
    )
    operators = [OperatorTime(f"conv{number}", "CONV_2D", (0.0005, 0.00025)) for number in range(7)]
    latency = Latency(1, 1, 300, models, tuple(operators), "times varied by 50%")
    best = trial(1, drop=0.0625, qdq_ops=4)
    more = {"objective": "latency", "latency": latency, "declined": True, "uncertified": DECLINED}
    rows = summary(result(best, best=best, met=True, **more))
    assert rows[3:-5] == [
        ("layers", "2 of 3 in INT8, 62.5% of the multiply-adds; 4 Q/DQ operators"),
        ("latency", "37.5% of the float model's (the objective)"),
        ("holdout", f"none: {DECLINED}"),
        ("here", "FP32 2.00 ms (1.90 ms to 2.10 ms), INT8 1.00 ms (0.950 ms to 1.05 ms)"),
        ("", "batch 1, 1 thread, median of 300 rounds in turns, with quartiles"),
        ("", "INT8 is faster than FP32 here: 2.00 times the speed (1.75 to 2.25)"),
        ("", "unreliable: times varied by 50%; measure again on an idle machine"),
        ("", "slowest operators  kind         FP32      INT8  speed"),
        *[("", f"conv{number}              CONV_2D  0.500 ms  0.250 ms  2.00x") for number in range(5)],
    ]


def test_a_search_in_the_widest_space_is_not_told_to_take_it(trial: Trials, result: Results) -> None:
    best = trial(0)
    missed = result(best, best=best, met=False, ended=Ended.NOTHING_NEW, space="thorough")
    assert ("try", "search again with a larger --tolerance") in summary(missed)


def test_missed_where_lower_is_better(trial: Trials, result: Results) -> None:
    best = trial(0)
    worse = result(best, best=best, met=False, metric="mse", baseline=0.25, max_drop=0.125, worst_score=0.375)
    assert summary(worse)[0] == (
        "missed",
        "best is mse 0.5000, which misses by 0.1250: accept INT8 <= 0.3750 (max drop 0.1250)",
    )


@pytest.mark.parametrize(("failed", "words"), [(False, ""), (True, "; the last one failed: NaN")])
def test_missed_without_any_result(failed: bool, words: str, trial: Trials, result: Results) -> None:
    trials = [trial(0, drop=None, failure="NaN")] if failed else []
    nothing = result(*trials, best=None, met=False)
    assert exit_code(nothing) == 1
    lines = summary(nothing)
    assert lines[0] == ("missed", f"no trial finished{words}")
    assert not {"INT8", "model", "next"} & {label for label, _ in lines}
    assert brief(nothing) == lines[:1]


def test_missed_before_the_best_was_scored_on_everything(trial: Trials, result: Results) -> None:
    best = replace(trial(0), state=State.STOPPED, score=None, drop=0.1875, samples=530)
    assert summary(result(best, best=best, met=False, ended=Ended.INTERRUPTED))[0] == (
        "missed",
        "no trial is within 0.1250 of FP32; best, not fully scored: 2 of 3 layers in INT8, "
        "drop about 0.1875 on 530 samples",
    )


def test_interrupted(trial: Trials, result: Results) -> None:
    cut = result(trial(0), best=trial(0), met=False, ended=Ended.INTERRUPTED)
    assert exit_code(cut) == 130
    assert summary(cut)[-2:] == [
        ("next", "autoquant resume 'my run'"),
        ("or", "autoquant export 'my run' --to net_quantized_export"),
    ]
