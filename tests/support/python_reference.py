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
from autoquant.tuning.study.request import DataOptions, DataRequest, SearchOptions, SearchRequest

FILE = Path(guide.__file__).parent / "python.md"
OPTIONS: tuple[tuple[str, type, type], ...] = (
    ("SearchOptions", SearchOptions, SearchRequest),
    ("DataOptions", DataOptions, DataRequest),
    ("EvaluateOptions", EvaluateOptions, EvaluateRequest),
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

`data` may also be arrays `(x, y)`, a mapping of arrays by input name, or a function that yields batches; `metric` and
`preprocess` may be functions. A `listener` is called with every event. What cannot be used raises
`autoquant.errors.InputError`, whose message says where, what, and the way out.
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
    yield "## Options\n"
    yield "Keyword arguments of the functions above, by the name that stands behind `**options` there.\n"
    for name, options, request in OPTIONS:
        yield f"### {name}\n"
        yield f"{textwrap.dedent(inspect.cleandoc(request.__doc__ or ''))}\n"
        yield "| option | type | default |\n|---|---|---|"
        defaults = request.__dataclass_fields__  # type: ignore[attr-defined]  # each is a dataclass
        for option, kind in options.__annotations__.items():
            told = getattr(kind, "__forward_arg__", str(kind)).replace("|", "\\|")
            yield f"| `{option}` | `{told}` | `{defaults[option].default!r}` |"
        yield ""


def _amct(own: list[str]) -> Iterator[str]:
    yield "## AMCT's functions\n"
    yield "They do what `autoquant guide amct` says, under AMCT's names:\n"
    for name in autoquant.__all__:
        if name not in own:
            first = (inspect.getdoc(getattr(autoquant, name)) or "").splitlines()[0]
            yield f"- `autoquant.{name}`: {first}"
    yield ""


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
