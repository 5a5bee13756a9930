"""Makes the guide's page about the Python package from the docstrings; run it after a docstring has changed."""

from __future__ import annotations

import inspect
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path

import autoquant
from autoquant import api, guide
from autoquant.tuning.benchmark import BenchmarkOptions, BenchmarkRequest
from autoquant.tuning.evaluation.request import EvaluateOptions, EvaluateRequest
from autoquant.tuning.quantize_request import QuantizeOptions, QuantizeRequest
from autoquant.tuning.study.model_request import (
    DataOptions,
    DataRequest,
    InspectOptions,
    InspectRequest,
    ModelOptions,
    ModelRequest,
)
from autoquant.tuning.study.request import SearchOptions, SearchRequest
from autoquant.tuning.study.score_request import ScoreOptions, ScoreRequest

FILE = Path(guide.__file__).parent / "python.md"
OPTIONS: tuple[tuple[str, type, type], ...] = (
    ("DataOptions", DataOptions, DataRequest),
    ("ModelOptions", ModelOptions, ModelRequest),
    ("ScoreOptions", ScoreOptions, ScoreRequest),
    ("SearchOptions", SearchOptions, SearchRequest),
    ("QuantizeOptions", QuantizeOptions, QuantizeRequest),
    ("EvaluateOptions", EvaluateOptions, EvaluateRequest),
    ("InspectOptions", InspectOptions, InspectRequest),
    ("BenchmarkOptions", BenchmarkOptions, BenchmarkRequest),
)
INTRODUCTION = """\
# Python

Every command is a function, and takes the same options. `import autoquant` does not import TensorFlow.

```python
import autoquant

result = autoquant.search("digits.keras", "digits.npz", tolerance="1%", max_trials=20, run="runs/python")
print(result.verdict, result.score, result.best.int8_share, result.model)
print(result.certificate and result.certificate.upper_bound)
for trial in result.trials:
    print(trial.number, trial.why, trial.score, trial.drop, sorted(trial.plan.int8))

autoquant.export(result.run, "release-python")
autoquant.quantize("digits.keras", "release-python/config.json", "digits.npz", "release-python-2")
```

## Models and data in memory

The model may be an object: a Keras model, a `tf.Module`, a function of TensorFlow with its `input_signature`, a
concrete function, or a SavedModel that was loaded. It is saved once, as `model/` in the folder of the run, under its
own name: `resume`, `export`, `explain` and `report` go on from there, also where the folder was moved. Data may be
arrays, frames and `tf.data` (`autoquant guide data`); what was in memory is given again where it is needed:
`autoquant.resume(run, data=dataset)`. `metric` and `preprocess` may be functions.

```python
import keras
import numpy as np
import tensorflow as tf

model = keras.models.load_model("digits.keras")
arrays = np.load("digits.npz")
dataset = tf.data.Dataset.from_tensor_slices((arrays["x"], arrays["y"])).batch(64)
result = autoquant.search(model, dataset, tolerance="1%", max_trials=20, timeout="2h", run="runs/in-memory")
print(result)
print(result.trials_dataframe()[["state", "int8_layers", "drop"]])
scores = result.load()(arrays["x"])
print(autoquant.evaluate(model, result, data=dataset, tolerance="1%"))
```

A result stands for the folder of its run, `result.run`, wherever a run is taken.

`result.load()` opens the best INT8 model, .pb or .tflite, with the part in front of it: a function that takes what the
float model takes, preprocessed, (batch, ...), as one array, or a mapping by name where there are several inputs; it
gives the array of the only output, or a mapping by name. `result.trials_dataframe()` needs pandas. A notebook shows a
result as the head of its report; [keras.ipynb](keras.ipynb), beside this page, is one that trains, searches, evaluates
and exports. `evaluate`, `dry_run`, `inspect`, `quantize` and `benchmark` take models in memory as well.

TensorFlow keeps what memory it freed, as that of a model that was read. The command line tells it not to, and so does
`TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1` in the environment of a program, before TensorFlow computes anything there.

## Options

They are what the command line takes: `timeout="2h"`, `cache="2GB"`, `inputs="a,b"`, `scale="1/255"`, or numbers and
lists; None is the default. What cannot be used raises `autoquant.errors.InputError`, whose message says where, what,
and the way out: of an option that there is not, the nearest that there is.

## While a search goes on

A `listener` is called with every event (`autoquant.tuning.events`). It may end the search, which then has a result
whose `ended` says so, and can be resumed:

```python
from autoquant.tuning.events import TrialEnded


def enough(event):
    if isinstance(event, TrialEnded) and event.seconds > 3600:
        raise autoquant.StopSearch


autoquant.resume("runs/in-memory", data=dataset, listener=enough)
```

Without a listener, events are logged to `logging.getLogger("autoquant")`: phases and trials as INFO, warnings as
WARNING. Nothing is printed, and logging, warnings, Optuna and TensorFlow stay set as the program has them.
"""


def reference() -> str:
    """The whole page."""
    own = [name for name in vars(api) if name in autoquant.__all__]  # in the order of the file
    return "\n".join([INTRODUCTION, *(line for name in own for line in _function(name)), *_options(), *_amct(own)])


def _function(name: str) -> Iterator[str]:
    function = getattr(autoquant, name)
    yield f"## `autoquant.{name}`\n"
    yield f"```text\n{_signature(name, function)}\n```\n"
    yield f"{_prose(function)}\n"


def _signature(name: str, function: typing.Any) -> str:
    parameters = list(inspect.signature(function).parameters.values())
    parts = []
    for before, one in zip([None, *parameters], parameters, strict=False):
        if one.kind is one.KEYWORD_ONLY and before and before.kind is one.POSITIONAL_OR_KEYWORD:
            parts.append("*")
        default = getattr(one.default, "__name__", repr(one.default))
        star = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        parts.append(f"{star}{one.name}: {one.annotation}{'' if one.default is one.empty else f' = {default}'}")
    return "\n".join([f"{name}(", *(f"    {part}," for part in parts), f") -> {function.__annotations__['return']}"])


def _prose(function: typing.Any) -> str:
    """A docstring as Markdown: its `Args:` and the like as headed lists."""
    lines = []
    for line in (inspect.getdoc(function) or "").splitlines():
        if line in ("Args:", "Returns:", "Raises:"):
            lines.append(f"**{line}**\n")
        elif line.startswith("    ") and not line.startswith("     ") and lines and _named(line):
            name, _, rest = line.strip().partition(": ")
            lines.append(f"- `{name}`: {rest}")
        elif line.startswith("    "):
            lines.append("  " + line.strip() if line.startswith("     ") else line.strip())
        else:
            lines.append(line)
    return "\n".join(lines)


def _named(line: str) -> bool:
    name, colon, _ = line.strip().partition(": ")
    return bool(colon) and " " not in name


def _options() -> Iterator[str]:
    yield "## All options\n"
    yield "Keyword arguments of the functions above, by the name that stands behind `**options` there.\n"
    for name, options, request in OPTIONS:
        yield f"### {name}\n"
        yield f"{textwrap.dedent(inspect.cleandoc(request.__doc__ or ''))}\n"
        known = options.__annotations__.keys()
        annotated = [(base, kind.__annotations__.keys()) for base, kind, _ in OPTIONS]
        narrower = [(base, names) for base, names in annotated if names < known]
        base, inherited = max(narrower, key=lambda one: len(one[1]), default=("", {}.keys()))
        if base:
            yield f"Those of `{base}`, and:\n"
        yield "| option | type | default |\n|---|---|---|"
        defaults = request.__dataclass_fields__  # type: ignore[attr-defined]  # each is a dataclass
        for option, kind in options.__annotations__.items():
            if option not in inherited:
                told = getattr(kind, "__forward_arg__", str(kind)).replace("|", "\\|")
                yield f"| `{option}` | `{told}` | `{defaults[option].default!r}` |"
        yield ""


def _amct(own: list[str]) -> Iterator[str]:
    yield "## AMCT's functions\n"
    yield "They do what `autoquant guide amct` says, under AMCT's names:\n"
    for name in autoquant.__all__:
        if name not in own and getattr(autoquant, name).__module__.startswith("autoquant.amct"):
            first = (inspect.getdoc(getattr(autoquant, name)) or "").splitlines()[0]
            yield f"- `autoquant.{name}`: {first}"
    yield ""


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
