"""certificate.json: what is claimed of a search's winner, for people and for release scripts.

Keys are sorted; what is not known, such as discordant pairs of a metric that has none, is left out, and so is a bound
that is infinite, as there is none.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoquant.errors import RunError
from autoquant.evaluation.statistics.paired import GroupBound
from autoquant.formats.strict import Fields, unique_keys
from autoquant.tuning.certification.certificate import Certificate, Origin, Verdict

AGAIN = "take the file as the search wrote it"


def certificate_text(certificate: Certificate) -> str:
    """The text of certificate.json."""
    return json.dumps(certificate_facts(certificate), indent=2, sort_keys=True, allow_nan=False) + "\n"


def certificate_facts(certificate: Certificate) -> dict[str, Any]:
    """What it holds, as JSON has it."""
    facts: dict[str, Any] = _known({"version": 1, **asdict(certificate)})
    return facts


def parse_certificate(text: str, where: str) -> Certificate:
    """Read the text of a file. Raises RunError that names `where` and the key."""
    try:
        facts = json.loads(text, object_pairs_hook=unique_keys, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RunError(where, f"is not valid JSON: {error}", hint=AGAIN) from None
    fields = Fields(facts, f"{where}:$", RunError)
    fields.only("version", [1], 0)
    verdict = Verdict(fields.only("verdict", [each.value for each in Verdict], ""))
    values: dict[str, Any] = {
        "origin": _origin(fields.sub("origin")),
        "guard": _groups(fields),
        **{name: fields.needed(name, str) for name in ("metric", "method")},
        **{name: fields.needed(name, float) for name in _NUMBERS},
        "upper_bound": _end(fields, "upper_bound", math.inf),
        "samples": fields.needed("samples", int),
        "suspicious": fields.needed("suspicious", bool),
        **{name: fields.optional(name, int) for name in ("losses", "gains", "needed_samples")},
        "guard_allowed": fields.optional("guard_allowed", float),
        "left_out": fields.take("left_out", 0),
        "unseen": _labels(fields),
    }
    fields.done()
    return fields.build(lambda: Certificate(verdict=verdict, **values))


def load_certificate(path: Path) -> Certificate:
    """Read a certificate.json. Raises RunError."""
    try:
        return parse_certificate(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(str(path), f"cannot be read ({error})", hint=AGAIN) from None


_NUMBERS = ("baseline", "score", "drop", "allowed", "confidence")


def _origin(fields: Fields) -> Origin:
    values = {name: fields.needed(name, str) for name in ("engine", "kernels", "model", "int8_model", "data")}
    fields.done()
    return fields.build(lambda: Origin(**values))


def _groups(fields: Fields) -> tuple[GroupBound, ...]:
    groups = fields.needed("guard", list)
    return tuple(_group(fields.nested(value, f"guard[{number}]")) for number, value in enumerate(groups))


def _labels(fields: Fields) -> tuple[str, ...]:
    labels: list[Any] = fields.take("unseen", [])
    fields.require(all(type(each) is str for each in labels), "unseen", "must be labels", hint="write strings")
    return tuple(labels)


def _group(fields: Fields) -> GroupBound:
    label, samples = fields.needed("label", str), fields.needed("samples", int)
    drop, upper, lower = fields.needed("drop", float), _end(fields, "upper", math.inf), _end(fields, "lower", -math.inf)
    losses, gains = fields.optional("losses", int), fields.optional("gains", int)
    fields.done()
    return GroupBound(label, samples, drop, upper, lower, losses, gains)


def _end(fields: Fields, name: str, none: float) -> float:
    value = fields.optional(name, float)
    fields.require(
        value is None or math.isfinite(value), name, "must be finite", hint="leave it out where there is none"
    )
    return none if value is None else value


def _known(value: Any) -> Any:
    """Without what is None or infinite."""
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items() if each not in (None, math.inf, -math.inf)}
    return [_known(each) for each in value] if isinstance(value, tuple) else value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number")
