"""From a search to its certificate, with an INT8 model of which it is known which samples it loses."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certifying_data import SAMPLES, SEED, SPACE, Known, classes, known
from plain_lite import lite_outputs

import autoquant
from autoquant.cli.summary import exit_code
from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.dataset import open_data
from autoquant.model.open import open_model
from autoquant.tuning import events
from autoquant.tuning.certification.certificate import Verdict, load_certificate, read_holdout_log
from autoquant.tuning.certify import SUSPICIOUS
from autoquant.tuning.result import Ended, SearchResult
from autoquant.tuning.study.run_folder import RunFolder

HALF = SAMPLES // 2


@pytest.fixture(scope="session")
def pool(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Known:
    return known(tiny, tmp_path_factory.mktemp("known"))


class Search:
    """Searches in a folder, and what was told."""

    def __init__(self, tiny: Any, folder: Path) -> None:
        self.tiny, self.folder = tiny, folder
        self.heard: list[events.Event] = []
        (folder / "space.toml").write_text(SPACE)

    def __call__(self, data: Any, **changed: Any) -> SearchResult:
        options = {"calibration": self.tiny.calibration, "space": self.folder / "space.toml", "tolerance": 0.03}
        options |= {"engine": "tensorflow", "seed": SEED, "run": self.folder / "run", "listener": self.heard.append}
        data = data if callable(data) else self.file(data, "evaluation")
        return autoquant.search(self.tiny.model, data, **{**options, **changed})

    def file(self, data: Any, name: str) -> Path:
        path = self.folder / f"{name}.npz"
        np.savez(path, **data)
        return path

    @property
    def evaluations(self) -> int:
        """How often samples that certify were run."""
        steps = [one for one in self.heard if isinstance(one, events.Progress) and one.done]
        return sum(one.what == "certification" for one in steps)


@pytest.fixture
def search(tiny: Any, tmp_path: Path) -> Search:
    return Search(tiny, tmp_path)


def lite_classes(path: Path, images: Any) -> Any:
    """What a .tflite answers, by a plain interpreter."""
    return lite_outputs(path, images).argmax(axis=1)


@pytest.mark.parametrize(
    ("target", "answers", "engine"), [("tensorflow", classes, "tensorflow "), ("litert", lite_classes, "litert ")]
)
def test_certified_on_samples_that_the_search_has_not_seen(
    search: Search, pool: Known, target: str, answers: Any, engine: str
) -> None:
    data = pool.data()
    result = search(data, target=target, engine="auto")
    splits = np.load(result.run / "splits.npz")
    certify, searched = pool.parts()
    assert splits["holdout"].tolist() == certify.tolist()
    assert splits["search"].tolist() == searched.tolist()
    assert result.verdict is Verdict.CERTIFIED
    assert (result.uncertified, result.declined, result.search_samples) == ("", False, HALF)
    told = result.certificate
    assert told is not None
    assert result.model is not None
    plain, int8 = (
        path(file, data["x"]) == data["y"] for path, file in ((classes, search.tiny.model), (answers, result.model))
    )
    assert result.score == int8[searched].mean()
    assert result.best is not None and result.best.samples == HALF
    assert (told.samples, told.metric) == (HALF, "top1")
    assert (told.baseline, told.score) == (plain[certify].mean(), int8[certify].mean())
    lost, won = (plain & ~int8)[certify].sum(), (int8 & ~plain)[certify].sum()
    assert (told.drop, told.losses, told.gains) == ((lost - won) / HALF, lost, won)
    assert told.drop <= told.upper_bound <= told.max_drop == 0.03
    assert told.confidence == 0.95
    assert told.origin.engine.startswith(engine)
    assert (" on " in told.origin.kernels, "stock" in told.origin.kernels) == (True, target == "tensorflow")
    assert result.model is not None
    assert told.origin.int8_model == sha256(result.model.read_bytes()).hexdigest()
    assert load_certificate(result.run / "best" / "certificate.json") == told
    stored = json.loads((result.run / "best" / "certificate.json").read_text())
    assert (stored["version"], stored["verdict"], stored["samples"]) == (1, "certified", HALF)
    assert stored["origin"]["int8_model"] == told.origin.int8_model
    if target == "tensorflow":  # the INT8 model that loses nothing of this
        assert (told.drop, told.losses, told.gains) == (0.0, 0, 0)
        least = 1 - 0.05 ** (1 / HALF)  # Clopper and Pearson's of no loss in 200, which knows of no gains
        assert least <= told.upper_bound <= 1.01 * least


def test_units_are_split_counted_and_told(search: Search, pool: Known) -> None:
    """Four lost samples of two recordings are two observations, not four."""
    data = {**pool.data(losses=4), "recording": np.arange(SAMPLES) // 2}
    result = search(data, unit="recording", tolerance=0.06)
    splits, told = np.load(result.run / "splits.npz"), result.certificate
    assert told is not None and result.model is not None
    searched, certify = splits["search"], splits["holdout"]
    assert not set(searched // 2) & set(certify // 2)
    assert (told.samples, told.units, told.method) == (HALF, HALF // 2, "betting (bounded mean), by unit")
    assert told.assumes == "units of 'recording' are independent of each other, and none is larger than those seen"
    lost = classes(search.tiny.model, data["x"]) != classes(result.model, data["x"])
    assert (told.losses, told.gains) == (int(lost[certify].sum()), 0)
    assert load_certificate(result.run / "best" / "certificate.json") == told
    (warned,) = (one.text for one in search.heard if isinstance(one, events.Warned) and "recording" in one.text)
    assert warned.endswith(": names no 'recording', so its units may be among those that are evaluated")

    def batches() -> Any:
        yield {"image": data["x"], "recording": data["recording"]}, data["y"]

    given = search(batches, unit="recording", tolerance=0.06, run=search.folder / "given").certificate
    assert given is not None
    assert replace(given, origin=told.origin) == told
    unnamed = search(data, tolerance=0.06, run=search.folder / "unnamed").certificate
    assert unnamed is not None
    assert re.fullmatch(
        r"samples are independent of each other, though values of the array 'recording' are in \d+ groups, the largest "
        r"'\d+' of 2: if these belong together, the bound is too low, and --unit recording says so",
        unnamed.assumes,
    )
    assert unnamed.upper_bound < told.upper_bound


def test_what_is_met_by_few_units_says_how_many_it_takes(search: Search, pool: Known) -> None:
    few = {**pool.data(), "recording": np.arange(SAMPLES) // 20}
    result = search(few, unit="recording", tolerance=0.06, certify=None)
    assert re.search(r"half of the 20 evaluation units are 10: give \d+, or others with --certify$", result.uncertified)
    others = {**pool.others(150), "recording": 100 + np.arange(150) // 10}
    certified = search(few, unit="recording", tolerance=0.06, certify=search.file(others, "c"), run=search.folder / "o")
    told = certified.certificate
    assert told is not None
    assert (told.verdict, told.units, told.needed_samples) == (Verdict.MET, 15, None)
    assert told.needed_units is not None and told.needed_units > 50


def test_met_not_certified_says_how_many_samples_it_takes(search: Search, pool: Known) -> None:
    result = search(pool.data(losses=4))
    told = result.certificate
    assert told is not None
    assert (result.verdict, told.verdict) == (Verdict.MET, Verdict.MET)
    assert told.drop == pytest.approx(0.02)
    assert (told.losses, told.gains) == (4, 0)
    assert told.upper_bound > 0.03
    assert told.needed_samples is not None
    assert told.needed_samples > HALF
    assert result.drop == 0.0


def test_missed_on_the_samples_that_certify(search: Search, pool: Known) -> None:
    """Though not on those of the search: that is what they are for."""
    result = search(pool.data(losses=8))
    assert result.drop == 0.0
    assert result.certificate is not None
    assert (result.verdict, result.certificate.verdict) == (Verdict.MISSED, Verdict.MISSED)
    assert result.certificate.drop == pytest.approx(0.04)
    assert json.loads((result.run / "result.json").read_text())["verdict"] == "missed"
    assert result.best is not None
    assert result.costly.layers
    assert {name for name, _ in result.costly.layers} <= set(result.best.plan.int8)


def test_nothing_is_looked_at_where_the_search_misses(search: Search, pool: Known) -> None:
    result = search(pool.data(searched=12))
    assert (result.verdict, result.certificate, search.evaluations) == (Verdict.MISSED, None, 0)
    assert not (result.run / "best" / "certificate.json").exists()


def test_better_than_fp32_by_more_than_chance_is_suspicious(search: Search, pool: Known) -> None:
    result = search(pool.data(gains=12))
    assert result.certificate is not None
    assert (result.verdict, result.certificate.suspicious) == (Verdict.CERTIFIED, True)
    assert result.certificate.gains == 12
    assert result.warnings == (SUSPICIOUS,)


def test_a_class_that_loses_more_than_it_may(search: Search, pool: Known) -> None:
    """All losses are of one class, which has a third of the samples."""
    data, tolerance = pool.data(losses=5, of=1), {"tolerance": 0.06, "guard": "class"}
    certify, _ = pool.parts()
    free = search(data, tolerance=0.06, run=search.folder / "free")
    assert free.verdict is Verdict.CERTIFIED
    held = search(data, **tolerance, run=search.folder / "held")
    assert held.verdict is not Verdict.CERTIFIED
    assert held.certificate is not None
    assert held.certificate.guard_max_drop == 0.06
    told: dict[str, Any] = {group.label: (group.samples, group.drop, group.losses) for group in held.certificate.guard}
    sizes = {label: int((data["y"][certify] == label).sum()) for label in range(3)}
    assert told == {
        str(label): (size, pytest.approx(5 / size if label == 1 else 0.0), 5 if label == 1 else 0)
        for label, size in sizes.items()
    }
    assert held.certificate.guard[0].label == "1"  # the worst first
    loose = search(data, **tolerance, guard_tolerance=0.5, run=search.folder / "loose")
    assert loose.verdict is Verdict.CERTIFIED
    assert loose.certificate is not None
    assert loose.certificate.guard_max_drop == 0.5


def test_a_slice_of_the_data_is_guarded_by_its_array(search: Search, pool: Known) -> None:
    camera = np.where(np.arange(SAMPLES) < SAMPLES // 4, "left", "right")
    result = search({**pool.data(losses=2), "camera": camera}, guard="camera", guard_tolerance=0.5)
    certify, _ = pool.parts()
    assert result.certificate is not None
    told = {group.label: group.samples for group in result.certificate.guard}
    assert told == {side: int((camera[certify] == side).sum()) for side in ("left", "right")}


def test_a_group_of_which_nothing_certifies_is_open(search: Search, pool: Known) -> None:
    _, searched = pool.parts()
    camera = np.full(SAMPLES, "left", "<U5")
    camera[searched[:5]] = "right"
    options = {"guard": "camera", "guard_tolerance": 0.5}
    result = search({**pool.data(), "camera": camera}, **options, run=search.folder / "half")
    assert result.certificate is not None
    assert [group.label for group in result.certificate.guard] == ["left"]
    assert (result.verdict, result.certificate.unseen) == (Verdict.MET, ("right",))
    assert json.loads((result.run / "best" / "certificate.json").read_text())["unseen"] == ["right"]
    others = pool.others(200)
    fresh = search.file({**others, "camera": np.repeat("left", 200)}, "fresh")
    again = autoquant.resume(result.run, certify=fresh)
    assert again.certificate is not None
    assert (again.verdict, again.certificate.unseen) == (Verdict.MET, ("right",))
    both = search.file({**others, "camera": np.repeat(["left", "right"], 100)}, "both")
    last = autoquant.resume(result.run, certify=both)
    assert last.certificate is not None
    assert (last.verdict, last.certificate.unseen) == (Verdict.CERTIFIED, ())
    alone = search(pool.data(), certify=both, **options, run=search.folder / "alone")
    assert alone.certificate is not None
    assert (alone.verdict, alone.certificate.unseen) == (Verdict.CERTIFIED, ())
    assert alone.warnings[0].startswith("only groups of the holdout are guarded: ")
    assert "has no array 'camera'" in alone.warnings[0]


def test_data_given_to_certify_leaves_all_other_samples_to_the_search(search: Search, pool: Known) -> None:
    others = pool.others(150, losses=1)
    given = search.file(others, "certify")
    result = search(pool.data(), certify=given, tolerance=0.05)
    assert result.certificate is not None
    assert (result.verdict, result.search_samples, result.certificate.samples) == (Verdict.CERTIFIED, SAMPLES, 150)
    assert (result.certificate.baseline, result.certificate.losses) == (1.0, 1)
    assert result.certificate.score == pytest.approx(149 / 150)
    assert result.certificate.origin.data == open_data(given, open_model(search.tiny.model).inputs).digest
    assert not (result.run / "splits.npz").exists()


def test_data_given_to_certify_without_labels_is_refused_before_the_first_trial(search: Search, pool: Known) -> None:
    unlabelled = {"x": pool.others(150)["x"]}
    with pytest.raises(DataError, match="has no labels, which the metric 'top1' needs"):
        search(pool.data(), certify=search.file(unlabelled, "certify"), tolerance=0.05)
    assert not any(isinstance(one, events.TrialStarted) for one in search.heard)


def test_shared_samples_are_left_out_of_what_certifies_though_overlap_is_allowed(search: Search, pool: Known) -> None:
    data, others = pool.data(), pool.others(150)
    mixed = {name: np.concatenate([data[name][:50], others[name]]) for name in ("x", "y")}
    options = {"tolerance": 0.05, "allow_overlap": True}
    result = search(data, certify=search.file(mixed, "certify"), **options, run=search.folder / "mixed")
    assert result.certificate is not None
    assert (result.verdict, result.certificate.samples, result.certificate.left_out) == (Verdict.CERTIFIED, 150, 50)
    assert json.loads((result.run / "best" / "certificate.json").read_text())["left_out"] == 50
    few = {name: mixed[name][:80] for name in mixed}
    none = search(data, certify=search.file(few, "few"), **options, run=search.folder / "few")
    assert (none.verdict, none.certificate) == (Verdict.MET, None)
    assert none.uncertified.startswith("50 of 80 samples to certify are evaluation or calibration data too")
    same = search(data, certify=search.folder / "evaluation.npz", **options, run=search.folder / "same")
    assert (same.verdict, same.certificate) == (Verdict.MET, None)


def test_calibration_samples_are_left_out_of_the_holdout(search: Search, pool: Known) -> None:
    data = pool.data()
    certify, _ = pool.parts()
    calibration = {"x": data["x"][certify[:40]]}
    result = search(data, calibration=search.file(calibration, "calibration"), allow_overlap=True, tolerance=0.9)
    splits = np.load(result.run / "splits.npz")
    assert splits["holdout"].tolist() == certify[40:].tolist()
    assert result.certificate is not None
    assert (result.certificate.samples, result.certificate.left_out) == (HALF - 40, 40)
    assert result.search_samples == HALF + 40


def test_none_is_wanted(search: Search, pool: Known) -> None:
    result = search(pool.data(), certify="none")
    assert (result.verdict, result.certificate, result.declined) == (Verdict.MET, None, True)
    assert (result.uncertified, search.evaluations) == ("no certificate was requested (--certify none)", 0)
    assert result.search_samples == SAMPLES


def test_too_few_samples_are_all_searched_on(search: Search, pool: Known) -> None:
    result = search(pool.data(), tolerance=0.001)
    assert (result.verdict, result.certificate, result.declined) == (Verdict.MET, None, False)
    told = re.fullmatch(
        r"a certificate takes at least ([\d,]+) samples that the search does not see, and half of the 400 evaluation "
        r"samples are 200: give [\d,]+, or others with --certify",
        result.uncertified,
    )
    least = math.log(0.05) / math.log(0.999)  # Clopper and Pearson's
    assert told is not None
    assert least <= int(told[1].replace(",", "")) <= 1.01 * least
    assert result.search_samples == SAMPLES


def test_a_certificate_is_found_again_and_nothing_is_looked_at_twice(search: Search, pool: Known) -> None:
    first = search(pool.data(losses=4))
    search.heard.clear()
    again = autoquant.resume(first.run, listener=search.heard.append)
    assert (again.certificate, again.verdict) == (first.certificate, first.verdict)
    assert search.evaluations == 0


def test_interrupted_while_it_is_certified(search: Search, pool: Known) -> None:
    def interrupt(event: events.Event) -> None:
        search.heard.append(event)
        if isinstance(event, events.Progress) and event.what == "certification":
            raise KeyboardInterrupt

    result = search(pool.data(), listener=interrupt)
    assert (result.ended, result.verdict, result.certificate) == (Ended.INTERRUPTED, Verdict.MET, None)
    assert not (result.run / "best" / "certificate.json").exists()
    assert autoquant.resume(result.run).verdict is Verdict.CERTIFIED


def test_errors_of_the_certification_are_told_and_the_result_is_kept(
    search: Search, pool: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise TrialError("TensorFlow", "out of memory")

    monkeypatch.setattr("autoquant.evaluation.scoring.subset.EvaluationSubset.evaluate", broken)
    result = search(pool.data())
    assert (result.verdict, result.certificate) == (Verdict.MET, None)
    assert result.uncertified == "TensorFlow: out of memory"
    assert result.warnings == ("the best model could not be certified: TensorFlow: out of memory",)
    monkeypatch.undo()
    assert autoquant.resume(result.run).verdict is Verdict.CERTIFIED


def test_a_second_finalist_is_not_certified_on_the_same_samples(search: Search, pool: Known) -> None:
    """The better of two by samples that both were certified on would look better than it is."""
    clipped = '[layer]\nquant_enable = [true, false]\nact_algo = "percentile"\n[layer.percentile]\nfraction = 0.75\n'
    (search.folder / "space.toml").write_text(clipped)
    first = search(pool.data(), tolerance=0.45, sampler="random", max_trials=1)
    budget = 1
    while first.certificate is None and budget < 7:
        budget += 1
        first = autoquant.resume(first.run, max_trials=budget)
    second = first
    assert first.best is not None
    while second.best is not None and second.best.number == first.best.number and budget < 7:
        budget += 1
        second = autoquant.resume(first.run, max_trials=budget)
    assert second.best is not None
    assert second.best.number != first.best.number
    assert (second.verdict, second.certificate) == (Verdict.MET, None)
    number = first.best.number
    assert second.uncertified == (f"the holdout was used for trial {number} already; give other data with --certify")
    assert load_certificate(second.run / "trials" / f"{number:04d}" / "certificate.json") == first.certificate
    assert not (second.run / "best" / "certificate.json").exists()
    third = autoquant.resume(first.run, certify=search.file(pool.others(200), "certify"))
    assert third.certificate is not None
    assert third.certificate.samples == 200


@pytest.mark.parametrize("later", ["others", "none", "nothing"])
def test_a_missed_tolerance_stays_missed_with_other_data(search: Search, pool: Known, later: str) -> None:
    first = search(pool.data(losses=8))
    assert first.verdict is Verdict.MISSED
    search.heard.clear()
    certify = {"others": search.file(pool.others(200), "certify"), "none": "none", "nothing": None}[later]
    again = autoquant.resume(first.run, certify=certify, listener=search.heard.append)
    assert (again.verdict, again.certificate, search.evaluations) == (Verdict.MISSED, first.certificate, 0)
    assert exit_code(again) == 1
    assert again.best is not None
    assert {name for name, _ in again.costly.layers} <= set(again.best.plan.int8)
    assert load_certificate(first.run / "best" / "certificate.json") == first.certificate
    (first.run / "best" / "certificate.json").unlink()
    gone = autoquant.resume(first.run, certify=certify, listener=search.heard.append)
    assert (gone.verdict, gone.certificate, search.evaluations) == (Verdict.MISSED, None, 0)
    assert first.best is not None
    assert gone.uncertified.startswith(f"trial {first.best.number} missed on the holdout, by holdout_log.json; ")


def test_a_look_is_not_forgotten_when_another_certificate_takes_its_place(search: Search, pool: Known) -> None:
    """Fresh samples are a finalist's to have; the old ones are looked at for it alone, for ever."""
    first = search(pool.data(losses=4))
    assert first.verdict is Verdict.MET
    fresh = search.file(pool.others(200), "certify")
    second = autoquant.resume(first.run, certify=fresh)
    assert second.certificate is not None
    assert (second.verdict, second.certificate.samples) == (Verdict.CERTIFIED, 200)
    old, new = read_holdout_log(RunFolder(first.run))
    assert first.certificate is not None
    assert (old.data, old.verdict) == (first.certificate.origin.data, Verdict.MET)
    assert (new.data, new.verdict) == (second.certificate.origin.data, Verdict.CERTIFIED)
    assert first.best is not None
    assert (old.trial, old.model) == (new.trial, new.model) == (first.best.number, first.certificate.origin.int8_model)
    search.heard.clear()
    again = autoquant.resume(first.run, certify=fresh, listener=search.heard.append)
    assert (again.certificate, search.evaluations) == (second.certificate, 0)
    log = first.run / "holdout_log.json"
    log.write_text(log.read_text().replace(f'"trial": {old.trial}', '"trial": 7', 1))
    refused = autoquant.resume(first.run, certify=None, listener=search.heard.append)
    assert (refused.verdict, refused.certificate, search.evaluations) == (Verdict.MET, None, 0)
    assert refused.uncertified.startswith("the holdout was used for trial 7 already")


def test_another_file_than_the_certified_one_has_no_certificate(search: Search, pool: Known) -> None:
    result = search(pool.data())
    assert result.model is not None
    log = result.run / "holdout_log.json"
    facts = json.loads(log.read_text())
    facts["evaluations"][0]["model"] = "0" * 64  # as where other libraries build the model again, a little different
    log.write_text(json.dumps(facts))
    search.heard.clear()
    again = autoquant.resume(result.run, listener=search.heard.append)
    assert (again.verdict, again.certificate, search.evaluations) == (Verdict.MET, None, 0)
    assert result.best is not None
    assert again.uncertified == (
        f"the model file of trial {result.best.number} is not the one that was scored on the holdout "
        "(another SHA-256: it was built again, or edited); give other data with --certify"
    )
    fresh = autoquant.resume(result.run, certify=search.file(pool.others(200), "certify"))
    assert fresh.verdict is Verdict.CERTIFIED
    assert fresh.certificate is not None
    assert fresh.certificate.origin.int8_model == sha256(result.model.read_bytes()).hexdigest()


TWO = '[layer]\nact_algo = ["minmax", "percentile"]\n[layer.percentile]\nfraction = 0.9\n'


@pytest.mark.parametrize("later", ["none", "given"])
def test_the_samples_of_the_search_stay_the_same_whatever_certifies_later(
    search: Search, pool: Known, later: str
) -> None:
    """Else trials could not be compared, and a baseline would not be theirs."""
    (search.folder / "space.toml").write_text(TWO)
    data = pool.data(searched=12)  # so that there is something to go on for
    first = search(data, max_trials=1, sampler="tpe")
    certify = "none" if later == "none" else search.file(pool.others(200), "certify")
    second = autoquant.resume(first.run, max_trials=2, certify=certify)
    assert len(second.trials) == 2
    assert (second.search_samples, second.baseline) == (HALF, first.baseline)
    assert np.load(second.run / "splits.npz")["search"].tolist() == pool.parts()[1].tolist()


def test_samples_of_the_search_do_not_certify_it_later(search: Search, pool: Known) -> None:
    first = search(pool.data(), certify="none")
    again = autoquant.resume(first.run, certify=None)
    assert (again.verdict, again.certificate, again.search_samples) == (Verdict.MET, None, SAMPLES)
    assert again.uncertified == "the search has seen all samples; give other data with --certify"
    last = autoquant.resume(first.run, certify=search.file(pool.others(200), "certify"))
    assert last.certificate is not None
    assert (last.verdict, last.search_samples, last.certificate.samples) == (Verdict.CERTIFIED, SAMPLES, 200)


def test_export_copies_it_with_the_very_file_alone(search: Search, pool: Known) -> None:
    result = search(pool.data(), keep_all_models=True)
    kept = (result.run / "best" / "certificate.json").read_bytes()
    to = search.folder / "out"
    assert result.model is not None
    assert autoquant.export(result.run, to).model.read_bytes() == result.model.read_bytes()
    assert (to / "certificate.json").read_bytes() == kept
    for other in ({"target": "litert"}, {"simulation": False}):
        made = autoquant.export(result.run, search.folder / next(iter(other)), **other)
        assert not made.model.with_name("certificate.json").exists()
    content = result.model.read_bytes()
    result.model.write_bytes(content + b"\x12\x00")  # another file, which runs as well: an empty function library
    built = autoquant.export(result.run, to)
    assert (built.model.read_bytes() == content) == (to / "certificate.json").exists()  # not even that of before
    result.model.write_bytes(content)
    autoquant.export(result.run, to)
    assert (to / "certificate.json").read_bytes() == kept


def test_a_plan_applied_where_a_certificate_is_takes_that_away(search: Search, pool: Known) -> None:
    result = search(pool.data())
    to = search.folder / "out"
    made = autoquant.export(result.run, to)
    autoquant.quantize(search.tiny.model, made.config, search.tiny.calibration, to, batch_size=16)
    assert not (to / "certificate.json").exists()


def accuracy(outputs: Any, labels: Any) -> float:
    return float((outputs.argmax(axis=1) == labels).mean())


NOW = [0.0]


def slow_accuracy(outputs: Any, labels: Any) -> float:
    """By a clock that nothing else moves each call takes 2 ms: two thousand are more than the budget below."""
    NOW[0] += 0.002
    return accuracy(outputs, labels)


for _metric in (accuracy, slow_accuracy):
    vars(_metric)["per_sample"] = False


def test_the_bounds_of_a_metric_that_is_no_mean_are_told_and_their_time_counts(search: Search, pool: Known) -> None:
    result = search(pool.data(losses=1), metric=accuracy)
    assert result.certificate is not None
    assert result.certificate.method == "bootstrap (BCa)"
    bounds = [one for one in search.heard if isinstance(one, events.Progress) and one.what == "bounds"]
    assert (bounds[-1].done, bounds[-1].total) == (1100, 1100)
    ended = [one for one in search.heard if isinstance(one, events.TrialEnded)]
    assert result.seconds > ended[-1].seconds
    assert json.loads((result.run / "result.json").read_text())["seconds"] == result.seconds


def test_without_time_for_the_bounds_the_holdout_is_not_used(search: Search, pool: Known) -> None:
    result = search(pool.data(), metric=slow_accuracy, timeout=3.0, clock=lambda: NOW[0])
    assert (result.verdict, result.certificate, search.evaluations) == (Verdict.MET, None, 0)
    told = (
        r"its bounds take about \d+s, for which --timeout leaves no time; the holdout was not used: `autoquant resume "
    )
    assert re.match(told, result.uncertified)
    assert read_holdout_log(RunFolder(result.run)) == ()
