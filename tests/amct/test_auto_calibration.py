"""Automatic calibration from a config to the files that stay, as a script for AMCT calls it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Never

import numpy as np
import pytest
from numpy.typing import NDArray

from autoquant.amct.auto_calibration import accuracy_based_auto_calibration
from autoquant.amct.calibration import quantize_model
from autoquant.amct.configuration import create_quant_config
from autoquant.amct.logs import set_logging_level
from autoquant.amct.strategy import TpeStrategy
from autoquant.common.auto_calibration import (
    AutoCalibrationEvaluatorBase,
    AutoCalibrationStrategyBase,
    CosineSimilaritySensitivity,
    MseSensitivity,
    SensitivityBase,
)
from autoquant.errors import AutoquantError, DataError, PlanError, RunError, TrialError
from autoquant.formats.record_text import load_record

RANKING = "accuracy_based_auto_calibration_ranking_information.json"
FINAL = "accuracy_based_auto_calibration_final_config.json"
HISTORY = "amct_log/accuracy_based_auto_calibration_record.json"
IMAGES = np.random.default_rng(1).normal(size=(32, 8, 8, 3)).astype(np.float32)
GAIN = np.array([3000, 1, 1, 1], np.float32)
"""One channel of what `bad` reads is so much larger than the others that those vanish in INT8; it weighs them up."""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """`image` (batch, 8, 8, 3) -> `scores` (batch, 5) with four layers, one of which is ruined by INT8; its weights."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    shapes = {"stem": (3, 3, 3, 4), "spread": (1, 1, 4, 4), "bad": (3, 3, 4, 4), "tail": (4, 5)}
    weights = {name: (0.4 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    weights["spread"] *= GAIN
    weights["bad"] /= GAIN[:, None]
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), name="image")
        for name in ("stem", "spread", "bad"):
            x = tf.nn.relu(tf.nn.conv2d(x, weights[name], 1, "SAME", name=name), name=f"{name}_relu")
        pooled = tf.reduce_mean(x, axis=(1, 2), name="pooled")
        tf.identity(tf.linalg.matmul(pooled, weights["tail"], name="tail"), name="scores")
    path = tmp_path_factory.mktemp("net") / "net.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path, weights


class Evaluator(AutoCalibrationEvaluatorBase):
    """As AMCT documents one: the loss is the relative error of the scores, on images that it does not calibrate on."""

    def __init__(self, allowed: float = 0.05) -> None:
        self.allowed = allowed
        self.calls: list[str] = []

    def calibration(self, graph: Any, outputs: Sequence[str]) -> None:
        self.calls.append("calibration")
        for batch in (IMAGES[:4], IMAGES[4:8]):
            run(graph, outputs, batch)

    def evaluate(self, graph: Any, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        self.calls.append("evaluate")
        return {"scores": run(graph, outputs, IMAGES[8:])[0]}

    def metric_eval(
        self, original_metric: dict[str, NDArray[Any]], new_metric: dict[str, NDArray[Any]]
    ) -> tuple[bool, Any]:
        original, new = original_metric["scores"], new_metric["scores"]
        loss = np.linalg.norm(original - new) / np.linalg.norm(original)
        return bool(loss <= self.allowed), loss


def run(graph: Any, outputs: Any, images: Any, name: str = "image:0") -> Any:
    import tensorflow as tf

    with tf.compat.v1.Session(graph=graph) as session:
        session.run(tf.compat.v1.variables_initializer(graph.get_collection("variables")))
        return session.run(outputs, {name: images})


@pytest.fixture
def config(net: tuple[Path, dict[str, Any]], load_pb: Callable[[Path], Any]) -> Path:
    create_quant_config("config.json", load_pb(net[0]), batch_num=2)
    return Path("config.json")


@pytest.fixture
def calibrate(net: tuple[Path, dict[str, Any]], config: Path) -> Callable[..., list[tuple[set[str], bool]]]:
    """Calls the function as a script does; gives what became of each configuration: layers in float, satisfied."""

    def called(evaluator: Any, save_dir: str = "results/net", **options: Any) -> list[tuple[set[str], bool]]:
        accuracy_based_auto_calibration(
            net[0], ["scores:0"], "results/record.txt", config, save_dir, evaluator, **options
        )
        return history()

    return called


def read_history() -> Any:
    return json.loads(Path(HISTORY).read_text())


def history() -> list[tuple[set[str], bool]]:
    entries = read_history()
    for entry in entries:
        assert set(entry) == {"roll_back_config", "metric_eval"}
        assert set(entry["roll_back_config"]) == {"stem", "spread", "bad", "tail"}
    return [
        ({name for name, int8 in entry["roll_back_config"].items() if not int8}, entry["metric_eval"][0])
        for entry in entries
    ]


def models(folder: str = "results") -> list[str]:
    return sorted(path.name for path in Path(folder).rglob("*") if "quant" in path.name and path.suffix != ".txt")


def in_float(config: str) -> set[str]:
    layers = json.loads(Path(config).read_text())
    return {name for name in ("stem", "spread", "bad", "tail") if not layers[name]["quant_enable"]}


def test_bisection_finds_the_layer_that_int8_ruins(
    net: tuple[Path, dict[str, Any]],
    config: Path,
    calibrate: Callable[..., list[tuple[set[str], bool]]],
    load_pb: Callable[[Path], Any],
) -> None:
    before, evaluator = config.read_text(), Evaluator()
    tried = calibrate(evaluator)
    ranking = json.loads(Path("results", RANKING).read_text())
    assert ranking[0][0] == "bad"
    assert [score for _, score in ranking] == sorted(score for _, score in ranking)
    second = ranking[1][0]
    # Of four: the worst two go back, which satisfies; then the worst alone, which satisfies too.
    assert tried == [(set(), False), ({"bad", second}, True), ({"bad"}, True)]
    assert evaluator.calls == ["evaluate", "calibration", "calibration", *["evaluate"] * 4]
    assert in_float(f"results/{FINAL}") == {"bad"}
    assert config.read_text() == before
    assert set(load_record(Path("results/record.txt"))) == {"stem", "spread", "tail"}
    assert models() == ["net_quant.json", "net_quantized.pb"]
    assert len(list(Path("results").iterdir())) == 5  # nothing is left of what was built meanwhile
    saved, original = (
        {"scores": run(load_pb(path), ["scores:0"], IMAGES[8:])[0]}
        for path in (Path("results/net_quantized.pb"), net[0])
    )
    assert 0.0 < evaluator.metric_eval(original, saved)[1] < 0.05


class OneByOne(AutoCalibrationStrategyBase):
    """A user's own: one layer more each time; it ends by saying once more what satisfied."""

    def initialize(self, ranking_info: dict[str, float]) -> None:
        self.told: list[Any] = []
        self.layers = sorted(ranking_info, key=ranking_info.__getitem__)
        self.count = 0

    def update_quant_config(self, metric_eval: tuple[bool, Any]) -> dict[str, Any]:
        self.told.append(metric_eval)
        self.count += not metric_eval[0]
        layers = {name: place >= self.count for place, name in enumerate(self.layers)}
        return {"stop_flag": metric_eval[0], "roll_back_config": layers}


class Reversed(SensitivityBase):
    """A user's own, in AMCT's way (the larger, the better), which takes good layers for bad ones."""

    def compare(self, original_output: NDArray[Any], fakequant_output: NDArray[Any]) -> float:
        return MseSensitivity(do_normalization=True).compare(original_output, fakequant_output)


STRATEGIES = [
    ("BinarySearch", MseSensitivity(do_normalization=True), {"bad"}, 3),
    ("BinarySearch", Reversed(), {"stem", "spread", "bad", "tail"}, 2),
    (OneByOne(), "CosineSimilarity", {"bad"}, 2),
    (OneByOne(), "Mse", {"spread", "bad"}, 3),  # in units of its output, a small error of `spread` is the largest
]


@pytest.mark.parametrize(("strategy", "sensitivity", "final", "trials"), STRATEGIES)
def test_strategies_and_measures_by_name_and_of_ones_own(
    calibrate: Callable[..., list[tuple[set[str], bool]]], strategy: Any, sensitivity: Any, final: set[str], trials: int
) -> None:
    """The measure that is the wrong way round rolls back the ruined layer last, which leaves nothing."""
    options = {"strategy": strategy, "sensitivity": sensitivity}
    if len(final) == 4:
        with pytest.raises(AutoquantError, match="No quantized model are generated due to all quant layers are roll"):
            calibrate(Evaluator(), **options)
        assert models() == []
        assert history()[-1] == (final - {"bad"}, False)
        return
    assert len(calibrate(Evaluator(), **options)) == trials
    assert in_float(f"results/{FINAL}") == final


def test_a_strategy_is_told_what_became_of_its_configurations(
    calibrate: Callable[..., list[tuple[set[str], bool]]],
) -> None:
    strategy = OneByOne()
    calibrate(Evaluator(), strategy=strategy)
    (ruined, lost), (right, little) = strategy.told
    assert (ruined, right) == (False, True)
    assert lost > 0.05 >= little
    written = [entry["metric_eval"] for entry in read_history()]
    assert written == [[False, pytest.approx(float(lost))], [True, pytest.approx(float(little))]]


def test_the_sampler_of_the_search_as_a_strategy(calibrate: Callable[..., list[tuple[set[str], bool]]]) -> None:
    """Of the trials that satisfy it keeps the one with the most multiply-adds in INT8."""
    tried = calibrate(Evaluator(), strategy=TpeStrategy(trials=6, seed=1))
    assert tried[0] == (set(), False)
    assert len({frozenset(layers) for layers, _ in tried}) == len(tried) == 6
    assert all(satisfied == ("bad" in layers) for layers, satisfied in tried)
    costs = {"stem": 64 * 108, "spread": 64 * 16, "bad": 64 * 144, "tail": 20}
    cheapest = min(
        (layers for layers, satisfied in tried if satisfied), key=lambda layers: sum(costs[layer] for layer in layers)
    )
    assert in_float(f"results/{FINAL}") == cheapest
    assert models() == ["net_quant.json", "net_quantized.pb"]


def test_where_all_layers_satisfy_no_strategy_is_asked(calibrate: Callable[..., list[tuple[set[str], bool]]]) -> None:
    strategy = OneByOne()
    assert calibrate(Evaluator(allowed=math.inf), strategy=strategy) == [(set(), True)]
    assert not hasattr(strategy, "told")
    assert in_float(f"results/{FINAL}") == set()
    assert len(json.loads(Path("results", RANKING).read_text())) == 4


def test_the_record_is_that_of_quantize_model(
    calibrate: Callable[..., list[tuple[set[str], bool]]],
    config: Path,
    net: tuple[Path, dict[str, Any]],
    load_pb: Callable[[Path], Any],
) -> None:
    """All layers satisfy here, so both calibrate the same with the same batches."""
    graph, evaluator = load_pb(net[0]), Evaluator(allowed=math.inf)
    quantize_model(graph, config, "direct.txt")
    import tensorflow as tf

    with tf.compat.v1.Session(graph=graph) as session:
        session.run(tf.compat.v1.variables_initializer(graph.get_collection("variables")))
        for batch in (IMAGES[:4], IMAGES[4:8]):
            session.run("scores:0", {"image:0": batch})
    calibrate(evaluator)
    assert load_record(Path("direct.txt")) == load_record(Path("results/record.txt"))


def test_layers_that_the_config_leaves_in_float_are_not_offered(
    net: tuple[Path, dict[str, Any]], load_pb: Callable[[Path], Any]
) -> None:
    create_quant_config("config.json", load_pb(net[0]), skip_layers=["bad"], batch_num=2)
    accuracy_based_auto_calibration(net[0], "scores:0", "record.txt", "config.json", "net", Evaluator())
    assert read_history()[0]["roll_back_config"] == dict.fromkeys(["spread", "stem", "tail"], True)
    assert {name for name, _ in json.loads(Path(RANKING).read_text())} == {"spread", "stem", "tail"}
    assert in_float(FINAL) == {"bad"}


def test_layers_that_the_outputs_do_not_need_are_left_out(
    net: tuple[Path, dict[str, Any]], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class First(Evaluator):
        def evaluate(self, graph: Any, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
            return {"scores": run(graph, outputs, IMAGES[8:])[0]}

    evaluator = First()
    accuracy_based_auto_calibration(net[0], ["spread_relu:0"], "record.txt", config, "net", evaluator)
    assert set(load_record(Path("record.txt"))) == {"stem", "spread"}
    assert "left out, as the outputs do not depend on it: bad, tail" in capsys.readouterr().err


@pytest.mark.parametrize(("save_dir", "made"), [("there", "there/net"), ("new/", "new/net"), ("new/mine", "new/mine")])
def test_where_files_go(calibrate: Callable[..., list[tuple[set[str], bool]]], save_dir: str, made: str) -> None:
    Path("there").mkdir()
    calibrate(Evaluator(allowed=math.inf), save_dir)
    for file in (f"{made}_quantized.pb", f"{made}_quant.json", f"{Path(made).parent}/{FINAL}"):
        assert Path(file).is_file()
    assert models(str(Path(made).parent))[-1] == f"{Path(made).name}_quantized.pb"


CONFIGS = [("CosineSimilarity", CosineSimilaritySensitivity(), 1.0), ("Mse", MseSensitivity(), -1.0)]


@pytest.mark.parametrize(("name", "measure", "sign"), CONFIGS)
def test_the_ranking_against_numpy(
    net: tuple[Path, dict[str, Any]],
    calibrate: Callable[..., list[tuple[set[str], bool]]],
    load_pb: Callable[[Path], Any],
    name: str,
    measure: Any,
    sign: float,
) -> None:
    """The MatMul quantized by hand, in float64, on what it reads in the float model, batch by batch."""
    calibrate(Evaluator(), sensitivity=name)
    record = load_record(Path("results/record.txt"))["tail"]
    scale, offset = record.activation.scale, record.activation.offset
    (scale_w,) = record.scale_w
    weight = net[1]["tail"].astype(np.float64)
    steps = np.clip(np.rint(weight / scale_w), -128, 127)
    scores = []
    for batch in (IMAGES[:4], IMAGES[4:8]):
        (x,) = run(load_pb(net[0]), ["pooled:0"], batch)
        x = x.astype(np.float64)
        quantized = np.clip(np.rint(x / scale) + offset, -128, 127) - offset
        scores.append(measure.compare(x @ weight, (quantized @ steps) * scale * scale_w))
    (found,) = (score for layer, score in json.loads(Path("results", RANKING).read_text()) if layer == "tail")
    assert found == pytest.approx(sign * np.mean(scores), rel=1e-4 if name == "Mse" else 1e-7)


def test_all_roll_back(calibrate: Callable[..., list[tuple[set[str], bool]]]) -> None:
    """Nothing satisfies: no model is left, not even one of an earlier call."""
    calibrate(Evaluator(allowed=math.inf))
    assert models() == ["net_quant.json", "net_quantized.pb"]
    with pytest.raises(AutoquantError) as caught:
        calibrate(Evaluator(allowed=0.0))
    sentence = (
        "No quantized model are generated due to all quant layers are roll backed, the accuracy target may be too "
        "difficult to achieve; loosen metric_eval()"
    )
    assert sentence in str(caught.value)
    assert models() == []
    assert [len(layers) for layers, _ in history()] == [0, 2, 3]  # of all four in float there is no model
    with pytest.raises(AutoquantError, match=r"none of 3 configurations satisfies.*; loosen .* 'BinarySearch'"):
        calibrate(Evaluator(allowed=0.0), strategy=TpeStrategy(trials=3))


@pytest.mark.parametrize(("save_dir", "message"), [("results/net", "amct_log"), ("/proc/model", "/proc")])
def test_folders_that_cannot_be_written_to_are_told_before_the_work(
    calibrate: Callable[..., list[tuple[set[str], bool]]], save_dir: str, message: str
) -> None:
    """Not even the superuser can write to /proc, or into a file."""
    if message == "amct_log":
        shutil.rmtree("amct_log")
        Path("amct_log").write_text("a file")
    evaluator = Evaluator()
    set_logging_level("error", "error")
    with pytest.raises(RunError, match=rf"{message}: cannot be written"):
        calibrate(evaluator, save_dir)
    assert evaluator.calls == []


def test_a_requirement_that_the_float_model_does_not_satisfy(
    calibrate: Callable[..., list[tuple[set[str], bool]]],
) -> None:
    evaluator = Evaluator(allowed=-1.0)
    with pytest.raises(
        ValueError, match="Compare between original_accuracy and original_accuracy can not satisfy the acc"
    ):
        calibrate(evaluator)
    assert evaluator.calls == ["evaluate"]


def test_a_final_model_that_does_not_satisfy_again(calibrate: Callable[..., list[tuple[set[str], bool]]]) -> None:
    answers = iter([True, False, True, True, False])

    class Answering(Evaluator):
        def metric_eval(self, original_metric: Any, new_metric: Any) -> tuple[bool, Any]:
            return next(answers), 0.25

    evaluator = Answering()
    with pytest.raises(
        DataError, match=r"satisfied before, but evaluated again it does not satisfy, loss 0.25; evaluate"
    ):
        calibrate(evaluator)
    assert models() == []


class Broken(Evaluator):
    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def fail(self, place: str) -> None:
        if place == self.place:
            raise KeyError(place)

    def calibration(self, graph: Any, outputs: Sequence[str]) -> None:
        super().calibration(graph, outputs)
        self.fail("calibration")

    def evaluate(self, graph: Any, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        self.fail("evaluate")
        return super().evaluate(graph, outputs)

    def metric_eval(
        self, original_metric: dict[str, NDArray[Any]], new_metric: dict[str, NDArray[Any]]
    ) -> tuple[bool, Any]:
        self.fail("metric_eval")
        return super().metric_eval(original_metric, new_metric)


@pytest.mark.parametrize("place", ["calibration", "evaluate", "metric_eval"])
def test_errors_of_the_evaluator_are_raised_unchanged(
    calibrate: Callable[..., list[tuple[set[str], bool]]], place: str
) -> None:
    with pytest.raises(KeyError, match=place):
        calibrate(Broken(place))


@pytest.mark.parametrize("error", [TrialError("data", "is gone"), MemoryError("mine")])
def test_an_error_of_the_evaluator_does_not_fail_the_trial(
    calibrate: Callable[..., list[tuple[set[str], bool]]], error: Exception
) -> None:
    class Raising(Evaluator):
        def evaluate(self, graph: Any, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
            if self.calls.count("evaluate") == 2:
                raise error
            return super().evaluate(graph, outputs)

    with pytest.raises(type(error)) as caught:
        calibrate(Raising())
    assert caught.value is error
    assert history() == [(set(), False)]


def test_the_history_is_on_disk_when_an_error_ends_it(
    calibrate: Callable[..., list[tuple[set[str], bool]]],
) -> None:
    class Dying(Evaluator):
        def evaluate(self, graph: Any, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
            if self.calls.count("evaluate") == 2:
                raise KeyboardInterrupt
            return super().evaluate(graph, outputs)

    with pytest.raises(KeyboardInterrupt):
        calibrate(Dying())
    assert history() == [(set(), False)]
    assert [path.name for path in Path("results").iterdir()] == [RANKING]


class Swallowing(Evaluator):
    """What a session raises is of no interest to it."""

    def calibration(self, graph: Any, outputs: Sequence[str]) -> None:
        import tensorflow as tf

        try:
            super().calibration(graph, outputs)
        except tf.errors.OpError:
            self.calls.append("swallowed")


@pytest.mark.parametrize(("kind", "swallowed"), [(Evaluator, 0), (Swallowing, 1)])
def test_errors_of_a_measure_are_raised_unchanged(
    calibrate: Callable[..., list[tuple[set[str], bool]]], kind: type[Evaluator], swallowed: int
) -> None:
    class Raising(SensitivityBase):
        def compare(self, original_output: NDArray[Any], fakequant_output: NDArray[Any]) -> Never:
            raise ZeroDivisionError("mine")

    evaluator = kind()
    with pytest.raises(ZeroDivisionError, match="mine"):
        calibrate(evaluator, sensitivity=Raising())
    assert evaluator.calls.count("swallowed") == swallowed


def test_a_measure_that_gives_no_number(calibrate: Callable[..., list[tuple[set[str], bool]]]) -> None:
    class NotANumber(SensitivityBase):
        def compare(self, original_output: NDArray[Any], fakequant_output: NDArray[Any]) -> float:
            return math.nan

    with pytest.raises(
        DataError, match=r"the sensitivity of its output is nan, .*; compare\(\) must return a finite number"
    ):
        calibrate(Evaluator(), sensitivity=NotANumber())


def test_too_few_batches(calibrate: Callable[..., list[tuple[set[str], bool]]]) -> None:
    class Short(Evaluator):
        def calibration(self, graph: Any, outputs: Sequence[str]) -> None:
            run(graph, outputs, IMAGES[:4])

    with pytest.raises(DataError, match=r"ran stem, spread, bad, tail in 1 of 2 batches.*; run the outputs at least"):
        calibrate(Short())


def test_more_batches_than_asked_for_change_nothing(calibrate: Callable[..., list[tuple[set[str], bool]]]) -> None:
    class Long(Evaluator):
        def calibration(self, graph: Any, outputs: Sequence[str]) -> None:
            super().calibration(graph, outputs)
            run(graph, outputs, 100 * IMAGES[8:])

    texts = []
    for evaluator in (Evaluator(math.inf), Long(math.inf)):
        calibrate(evaluator)
        texts.append([Path("results", file).read_text() for file in ("record.txt", RANKING)])
    assert texts[0] == texts[1]


def test_a_loss_that_is_no_number(calibrate: Callable[..., list[tuple[set[str], bool]]]) -> None:
    class Answering(Evaluator):
        def metric_eval(self, original_metric: Any, new_metric: Any) -> tuple[bool, Any]:
            return True, {"top1": 0.5, "top5": math.nan}

    calibrate(Answering())
    assert read_history()[0]["metric_eval"] == [True, None]


def test_calibration_data_that_no_layer_can_use(calibrate: Callable[..., list[tuple[set[str], bool]]]) -> None:
    class Unreal(Evaluator):
        def calibration(self, graph: Any, outputs: Sequence[str]) -> None:
            for _ in range(2):
                run(graph, outputs, np.full((1, 8, 8, 3), np.nan))

    with pytest.raises(TrialError, match=r"stem: its input held \d+ NaN or infinite values; "):
        calibrate(Unreal())


def test_a_config_of_another_model(calibrate: Callable[..., list[tuple[set[str], bool]]], config: Path) -> None:
    config.write_text(config.read_text().replace('"bad"', '"good"'))
    with pytest.raises(PlanError, match="'good' is an invalid layer name or parameter"):
        calibrate(Evaluator())


def test_a_config_that_wants_other_weights(calibrate: Callable[..., list[tuple[set[str], bool]]], config: Path) -> None:
    config.write_text(json.dumps({**json.loads(config.read_text()), "autoquant": {"equalize": True}}))
    with pytest.raises(PlanError, match=r"autoquant\.equalize: equalize gives the model other weights"):
        calibrate(Evaluator())


def test_a_layer_that_cannot_be_int8_goes_back_by_itself(load_pb: Callable[[Path], Any]) -> None:
    """Its bias exceeds INT32: AMCT's advice is to skip the layer, and the search does."""
    import tensorflow as tf

    rng = np.random.default_rng(2)
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 3), name="image")
        for name, size, bias in (("plain", 0.4, 1.0), ("tiny", 1e-5, 100.0)):
            x = tf.nn.conv2d(x, (size * rng.normal(size=(3, 3, 3, 3))).astype(np.float32), 1, "SAME", name=name)
            x = tf.nn.bias_add(x, np.full(3, bias, np.float32), name=f"{name}_bias")
        tf.reduce_mean(x, axis=(1, 2), name="scores")
    Path("net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    create_quant_config("config.json", graph, batch_num=2)
    accuracy_based_auto_calibration("net.pb", ["scores:0"], "record.txt", "config.json", "net", Evaluator())
    assert json.loads(Path(RANKING).read_text())[0] == ["tiny", None]
    entries = read_history()
    assert entries[0] == {"roll_back_config": {"plain": True, "tiny": True}, "metric_eval": [False, None]}
    assert entries[1]["roll_back_config"] == {"plain": True, "tiny": False}
    assert set(load_record(Path("record.txt"))) == {"plain"}


def test_a_real_model(real_data: Path, load_pb: Callable[[Path], Any]) -> None:
    """A network whose channels are unequal, on images: most of it in INT8 where all of it is at chance."""
    data = {}
    for part, count in (("calibration", 32), ("evaluation", 300)):
        with np.load(real_data / "bed" / f"{part}.npz") as arrays:
            data[part] = arrays["x"][:count] / np.float32(127.5) - 1, arrays["y"][:count]

    class Top1(AutoCalibrationEvaluatorBase):
        def calibration(self, graph: Any, outputs: Sequence[str]) -> None:
            run(graph, outputs, data["calibration"][0], "input:0")

        def evaluate(self, graph: Any, outputs: Sequence[str]) -> float:
            images, labels = data["evaluation"]
            return float(np.mean(run(graph, outputs, images, "input:0")[0].argmax(axis=1) == labels))

        def metric_eval(self, original_metric: float, new_metric: float) -> tuple[bool, float]:
            return original_metric - new_metric <= 0.02, original_metric - new_metric

    model = real_data / "bed" / "mid.pb"
    create_quant_config("config.json", load_pb(model))
    accuracy_based_auto_calibration(model, ["logits:0"], "record.txt", "config.json", "mid", Top1())
    tried = [(sum(entry["roll_back_config"].values()), *entry["metric_eval"]) for entry in read_history()]
    assert (tried[0][:2], len(tried)) == ((14, False), 5)  # all, then a bisection of 14: 7, 11 or 3, and so on
    assert tried[0][2] > 0.3
    kept = max(layers for layers, satisfied, _ in tried if satisfied)
    assert kept >= 10
    assert len(load_record(Path("record.txt"))) == kept
    original, saved = (Top1().evaluate(load_pb(path), ["logits:0"]) for path in (model, Path("mid_quantized.pb")))
    assert Top1().metric_eval(original, saved)[0]
