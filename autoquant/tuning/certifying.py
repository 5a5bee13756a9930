"""The best model of a search on samples that the search has not seen: once, by what it is made for."""

from __future__ import annotations

import platform
from contextlib import closing
from dataclasses import replace
from hashlib import file_digest
from pathlib import Path

import numpy as np

from autoquant.errors import AutoquantError, RunError
from autoquant.evaluation.engine import Runner
from autoquant.evaluation.engines import open_engine
from autoquant.evaluation.part import Part
from autoquant.evaluation.streaming import scored_at
from autoquant.files import write_text
from autoquant.targets.table import TARGETS
from autoquant.tuning.assembly import Assembled
from autoquant.tuning.certificate import Certificate, Origin, Verdict, certify
from autoquant.tuning.certificate_json import certificate_text, load_certificate
from autoquant.tuning.events import Listener, Progress, Warned
from autoquant.tuning.guarding import groups_of
from autoquant.tuning.opening import Opening
from autoquant.tuning.result import Ended, SearchResult
from autoquant.tuning.run_folder import CERTIFICATE, RunFolder

SUSPICIOUS = (
    "the INT8 model is better than the FP32 model by more than chance, which quantization does not do: "
    "is the FP32 model evaluated as it was trained (preprocessing, labels)?"
)


def certified(opening: Opening, ready: Assembled, result: SearchResult, listener: Listener) -> SearchResult:
    """The result with the certificate of its best model, or with the reason why it has none.

    Nothing is looked at where the tolerance was missed or the search was interrupted. Samples that another trial of the
    run was certified on do not certify this one: choosing among several by them would flatter the one that is chosen.
    """
    if result.model is None or result.verdict is Verdict.MISSED or result.ended is Ended.INTERRUPTED:
        return result
    if ready.held.data is None:
        return replace(result, uncertified=ready.held.reason)
    folder = ready.loop.folder
    digest = ready.held.data.digest
    try:
        seen = _looked_at(folder, digest)
        if seen is not None and seen.parent != folder.best.resolve():
            number = int(seen.parent.name)
            why = f"the samples kept aside were looked at for trial {number} already; give others with --certify"
            return replace(result, uncertified=why)
        certificate = load_certificate(seen) if seen else _certificate(opening, ready, result.model, listener)
    except KeyboardInterrupt:
        return replace(result, ended=Ended.INTERRUPTED)
    except RunError:
        raise
    except (AutoquantError, MemoryError) as error:
        listener(Warned(f"the best model could not be certified: {error}"))
        return replace(result, uncertified=str(error))
    if certificate.suspicious:
        listener(Warned(SUSPICIOUS))
    best = result.best if certificate.verdict is Verdict.MISSED else None
    costly = ready.loop.costly(best.plan) if best else ()
    return replace(result, verdict=certificate.verdict, certificate=certificate, costly=costly)


def _looked_at(folder: RunFolder, digest: str) -> Path | None:
    """The certificate of a trial of the run on these samples, if there is one."""
    kept = sorted((folder.path / "trials").glob(f"[0-9]*/{CERTIFICATE}"))
    return next((path for path in kept if load_certificate(path).origin.data == digest), None)


def _certificate(opening: Opening, ready: Assembled, model: Path, listener: Listener) -> Certificate:
    """Score the best model on what was kept aside, and write down what may be claimed of it."""
    request, bench = opening.request, ready.loop.bench
    engine = open_engine(TARGETS[bench.builder.target.name].runtime)
    assert ready.held.open is not None and ready.held.data is not None
    groups = groups_of(ready.held.data, request.guard) if request.guard else None
    part = ready.held.open(lambda: bench.engine.open_graph(bench.builder.model.program), bench.batch_size)
    runner = engine.open_file(model, bench.builder.model.program)

    def on_progress(done: int, total: int) -> None:
        listener(Progress("certification", done, total))

    with closing(runner):
        places = np.arange(len(part))
        score = scored_at(runner, part, places, batch_size=bench.batch_size, on_progress=on_progress)
        kernels = _kernels(runner)
    certificate = certify(
        part.score.rows,
        score.rows,
        metric=bench.metric,
        allowed=ready.loop.allowed,
        confidence=request.confidence,
        origin=Origin(engine.version, kernels, opening.model.digest, _digest(model), ready.held.data.digest),
        groups=groups,
        guard_allowed=_guard_allowed(opening, part),
        left_out=ready.held.left_out,
        seed=request.seed,
    )
    write_text(model.with_name(CERTIFICATE), certificate_text(certificate))
    return certificate


def _guard_allowed(opening: Opening, part: Part) -> float | None:
    asked = opening.request.guard_tolerance
    return None if asked is None else asked.absolute(part.baseline.score.value)


def _kernels(runner: Runner) -> str:
    """What computed, in words, once a batch has been run: the kernels of LiteRT by kind, and the processor."""
    found = getattr(runner, "kernels", None)
    counts = {kind: len(operators) for kind, operators in found().items()} if found else {}
    words = ", ".join(f"{kind} {count}" for kind, count in counts.items() if count)
    return f"{words or 'stock kernels'} on {platform.machine()}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
