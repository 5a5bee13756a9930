import math
from dataclasses import replace
from typing import Any

import pytest

from autoquant.cli.screen import styled
from autoquant.cli.summary import brief, exit_code, summary
from autoquant.evaluation.latency.latency import Latency, OperatorTime, Spread, Timed
from autoquant.evaluation.statistics.paired import GroupBound
from autoquant.tuning.certification.certificate import Certificate, Verdict
from autoquant.tuning.certification.holdout import DECLINED
from autoquant.tuning.result import Ended
from autoquant.tuning.study.trial import State

DIGESTS = "SHA-256: FP32 000000000000, INT8 111111111111, data 222222222222"


def shown(lines: list[tuple[str, str]]) -> str:
    return styled(lines).rstrip("\n")


def test_met_where_nothing_was_to_be_certified(trial, result) -> None:
    best = trial(1, drop=0.0625)
    met = result(trial(0), best, best=best, met=True, declined=True, uncertified=DECLINED)
    assert exit_code(met) == 0
    assert shown(summary(met)).splitlines() == [
        "met     top1 0.6875 with 2 of 3 layers in INT8, within 0.1250 of FP32",
        "FP32    top1 0.7500",
        "INT8    top1 0.6875, drop 0.0625, allowed 0.1250",
        "layers  2 of 3 in INT8, 62.5% of the multiply-adds",
        "claim   nothing was to be certified (--certify none)",
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


def certified_lines(trial, result, claim: Certificate, **more: Any) -> list[str]:
    """What is said below the trials' own figures, where this is the certificate."""
    best = trial(1, drop=0.0625)
    facts = {"verdict": claim.verdict, "certificate": claim, "search_samples": 80, **more}
    lines = shown(summary(result(best, best=best, met=True, **facts))).splitlines()
    assert [line.split()[0] for line in (lines[1], lines[2])] == ["FP32", "INT8"]
    assert lines[1].endswith("top1 0.7500, on the 80 samples searched on")
    return [lines[0], *lines[4:-5]]


def test_certified(trial, result, certificate) -> None:
    best, claim = trial(1, drop=0.0625), certificate()
    facts = {"verdict": claim.verdict, "certificate": claim}
    assert exit_code(result(best, best=best, met=True, **facts)) == 0
    assert brief(result(best, best=best, met=True, **facts)) == [
        ("certified", "2 of 3 layers in INT8, and with 95% confidence the drop is at most 0.0938"),
        ("model", "my run/best/net_quantized.pb"),
    ]
    assert certified_lines(trial, result, claim) == [
        "certified  2 of 3 layers in INT8, and with 95% confidence the drop is at most 0.0938",
        "claim      on 400 samples that the search has not seen; 1,030 got worse, 5 better",
        "           drop 0.0625, at most 0.0938 with 95% confidence; allowed 0.1250",
        "           measured on litert 2.3.0, xnnpack 15 on x86_64; bound: exact",
        f"           {DIGESTS}",
    ]


def test_samples_that_were_left_out_are_told(trial, result, certificate) -> None:
    lines = certified_lines(trial, result, certificate(left_out=1200))
    assert lines[2] == "           without 1,200 more that search or calibration have as well"


def test_a_metric_without_right_and_wrong_has_no_pairs(trial, result, certificate) -> None:
    claim = certificate(losses=None, gains=None, confidence=0.999)
    assert certified_lines(trial, result, claim)[1:3] == [
        "claim      on 400 samples that the search has not seen",
        "           drop 0.0625, at most 0.0938 with 99.9% confidence; allowed 0.1250",
    ]


@pytest.mark.parametrize(
    ("needed", "words"),
    [
        (1234, ["       about 1,234 samples would certify it, if it goes on so: --certify DATA"]),
        (None, []),  # at what was seen, no number would
    ],
)
def test_met_but_not_certified(needed: int | None, words: list[str], trial, result, certificate) -> None:
    claim = certificate(Verdict.MET, upper_bound=0.25, needed_samples=needed)
    best = trial(1, drop=0.0625)
    assert exit_code(result(best, best=best, met=True, verdict=claim.verdict, certificate=claim)) == 3
    assert certified_lines(trial, result, claim) == [
        "met     top1 0.6875 with 2 of 3 layers in INT8, within 0.1250 of FP32; not certified",
        "claim   on 400 samples that the search has not seen; 1,030 got worse, 5 better",
        "        drop 0.0625, at most 0.2500 with 95% confidence; allowed 0.1250",
        "        measured on litert 2.3.0, xnnpack 15 on x86_64; bound: exact",
        f"        {DIGESTS}",
        *(f" {line}" for line in words),
    ]


def test_no_bound_is_told_as_such(trial, result, certificate) -> None:
    facts = {"upper_bound": math.inf, "needed_samples": 100, "method": "none, for lack of samples", "samples": 10}
    assert certified_lines(trial, result, certificate(Verdict.MET, **facts))[2:] == [
        "        drop 0.0625, no bound with 95% confidence; allowed 0.1250",
        "        measured on litert 2.3.0, xnnpack 15 on x86_64; bound: none, for lack of samples",
        f"        {DIGESTS}",
        "        it takes at least 100 samples: --certify DATA",
    ]
    groups = (GroupBound("small", 1, 0.0, math.inf, -math.inf),)
    lines = certified_lines(trial, result, certificate(Verdict.MET, guard=groups, guard_allowed=0.25))
    assert lines[-1].split() == ["small", "0.0000", "-", "1", "open"]


def test_met_with_nothing_kept_aside_says_why_it_is_not_certified(trial, result) -> None:
    best = trial(1, drop=0.0625)
    met = result(best, best=best, met=True, uncertified="there are 10 samples in all")
    assert exit_code(met) == 3
    lines = summary(met)
    assert lines[0][1].endswith("within 0.1250 of FP32; not certified")
    assert ("claim", "nothing is certified: there are 10 samples in all") in lines


def test_missed_on_the_samples_kept_aside(trial, result, certificate) -> None:
    claim = certificate(Verdict.MISSED, score=0.5, drop=0.25, upper_bound=0.3)
    best = trial(1, drop=0.0625)
    missed = result(best, best=best, met=True, verdict=claim.verdict, certificate=claim)
    assert exit_code(missed) == 1
    lines = summary(missed)
    assert lines[0] == (
        "missed",
        "on 400 samples that the search has not seen the drop is 0.2500, more than 0.1250; "
        "it was met on the samples that were searched on",
    )
    assert lines[-3:] == [
        ("try", "search anew with --space thorough or a larger --tolerance, and with fresh samples: --certify DATA;"),
        ("", "a new run on the same data would keep the same samples aside, which were looked at"),
        ("next", "autoquant export 'my run' --to net_quantized_export"),
    ]


def test_missed_there_though_the_certificate_is_gone(trial, result) -> None:
    best, gone = trial(1, drop=0.0625), "trial 1 missed on samples kept aside"
    missed = result(best, best=best, met=True, verdict=Verdict.MISSED, uncertified=gone, declined=True)
    assert exit_code(missed) == 1
    assert summary(missed)[0] == ("missed", gone)
    assert "claim" not in {label for label, _ in summary(missed)}


def test_missed_is_missed_whatever_was_kept_aside(trial, result) -> None:
    """A reason why nothing certifies explains nothing there."""
    lines = summary(result(trial(0), best=trial(0), met=False, uncertified="there are 10 samples in all"))
    assert "claim" not in {label for label, _ in lines}


def group(label: str, drop: float, upper: float, lower: float = -1.0) -> GroupBound:
    return GroupBound(label, 1500, drop, upper, lower)


def test_groups_that_are_guarded(trial, result, certificate) -> None:
    groups = (group("left", 0.375, 0.5, 0.3), group("right side", 0.25, 0.5), group("up", 0.0, 0.125))
    lines = certified_lines(trial, result, certificate(Verdict.MET, guard=groups, guard_allowed=0.25))
    assert lines[5:] == [
        "guard   3 groups, each allowed 0.2500:",
        "        group         drop  at most  samples  held",
        "        left        0.3750   0.5000    1,500    no",
        "        right side  0.2500   0.5000    1,500  open",
        "        up          0.0000   0.1250    1,500   yes",
    ]
    many = tuple(group(str(number), 0.0, 0.25) for number in range(7))
    lines = certified_lines(trial, result, certificate(guard=many, guard_allowed=0.25))
    assert lines[5] == "guard      7 groups, each allowed 0.2500; these 5 lose the most:"
    assert len(lines) == 5 + 2 + 5


def test_groups_without_samples_are_told(trial, result, certificate) -> None:
    facts = {"guard": (group("left", 0.0, 0.1),), "guard_allowed": 0.25}
    lines = certified_lines(trial, result, certificate(Verdict.MET, **facts, unseen=("7", "9")))
    assert lines[-1] == "        open, as none of these samples is of them: 7, 9; --certify DATA that has some"
    lines = certified_lines(trial, result, certificate(Verdict.MET, **facts, unseen=tuple("abcdefg")))
    assert "of them: a, b, c, d, e and 2 more; " in lines[-1]


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (1, "1 group is proven to lose more than 0.2500: g0 loses 0.5000"),
        (2, "2 groups are proven to lose more than 0.2500: g0 loses 0.5000, g1 loses 0.5000"),
        (7, ", ".join(f"g{number} loses 0.5000" for number in range(5)) + ", and 2 more"),
    ],
)
def test_missed_because_of_groups(out: int, words: str, trial, result, certificate) -> None:
    groups = tuple(group(f"g{number}", 0.5, 0.75, 0.375) for number in range(out))
    claim = certificate(Verdict.MISSED, guard=(*groups, group("well", 0.0, 0.1)), guard_allowed=0.25)
    best = trial(1, drop=0.0625)
    missed = result(best, best=best, met=True, verdict=claim.verdict, certificate=claim)
    assert exit_code(missed) == 1
    assert summary(missed)[0] == (
        "missed",
        f"on 400 samples that the search has not seen {words}; it was met on the samples that were searched on"
        if out < 7
        else f"on 400 samples that the search has not seen 7 groups are proven to lose more than 0.2500: {words}; "
        "it was met on the samples that were searched on",
    )


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
        "        or search anew with --space thorough or a larger --tolerance",
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
    best = trial(1, drop=0.0625, qdq_ops=4)
    more = {"objective": "latency", "latency": latency, "declined": True, "uncertified": DECLINED}
    lines = shown(summary(result(best, best=best, met=True, **more))).splitlines()
    assert lines[3:-4] == [
        "layers   2 of 3 in INT8, 62.5% of the multiply-adds; 4 conversions between INT8 and float",
        "latency  37.5% of the float model's, which is what was minimized",
        "claim    nothing was to be certified (--certify none)",
        "here     FP32 2.00 ms (1.90 ms to 2.10 ms), INT8 1.00 ms (0.950 ms to 1.05 ms)",
        "         batch 1, 1 thread, median of 300 rounds in turns, with quartiles",
        "         INT8 is faster than FP32 here: 2.00 times the speed (1.75 to 2.25)",
        "         not to be relied on: times varied by 50%; measure again on an idle machine",
        "         slowest operators  kind         FP32      INT8  speed",
        *[f"         conv{number}              CONV_2D  0.500 ms  0.250 ms  2.00x" for number in range(5)],
        "trials   1 (best: trial 1), 80 samples evaluated, in 1m15s",
    ]


def test_a_search_in_the_widest_space_is_not_told_to_take_it(trial, result) -> None:
    best = trial(0)
    missed = result(best, best=best, met=False, ended=Ended.NOTHING_NEW, space="thorough")
    assert ("try", "search anew with a larger --tolerance") in summary(missed)


def test_missed_where_lower_is_better(trial, result) -> None:
    best = trial(0)
    worse = result(best, best=best, met=False, metric="mse", baseline=0.25, tolerance=0.125, limit=0.375)
    assert summary(worse)[0] == ("missed", "best is mse 0.5000, which is 0.1250 above the allowed ceiling of 0.3750")


@pytest.mark.parametrize(("failed", "words"), [(False, ""), (True, "; the last one failed: NaN")])
def test_missed_without_any_result(failed: bool, words: str, trial, result) -> None:
    trials = [trial(0, drop=None, failure="NaN")] if failed else []
    nothing = result(*trials, best=None, met=False)
    assert exit_code(nothing) == 1
    lines = summary(nothing)
    assert lines[0] == ("missed", f"no trial came to its end{words}")
    assert not {"INT8", "model", "next"} & {label for label, _ in lines}
    assert brief(nothing) == lines[:1]


def test_missed_before_the_best_was_scored_on_everything(trial, result) -> None:
    best = replace(trial(0), state=State.STOPPED, score=None, drop=0.1875, samples=530)
    assert summary(result(best, best=best, met=False, ended=Ended.INTERRUPTED))[0] == (
        "missed",
        "no trial is within 0.1250 of FP32; the best, not scored on all: 2 of 3 layers in INT8, "
        "the drop is about 0.1875, by 530 samples",
    )


def test_interrupted(trial, result) -> None:
    cut = result(trial(0), best=trial(0), met=False, ended=Ended.INTERRUPTED)
    assert exit_code(cut) == 130
    assert summary(cut)[-2:] == [
        ("next", "autoquant resume 'my run'"),
        ("or", "autoquant export 'my run' --to net_quantized_export"),
    ]
