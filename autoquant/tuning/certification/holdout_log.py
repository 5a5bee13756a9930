"""looks.json: every look that a run took at samples kept aside, so that none is forgotten when another one follows.

A certificate is beside a model, and the next one takes its place; looks are only ever added.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoquant.errors import RunError
from autoquant.files import write_text
from autoquant.formats.strict import Fields, json_object
from autoquant.tuning.certification.certificate import Verdict, require_digests
from autoquant.tuning.certification.certificate_json import load_certificate
from autoquant.tuning.study.run_folder import CERTIFICATE, RunFolder

AGAIN = "it records which holdout samples were used: restore the file as the search wrote it, or start a new run"


@dataclass(frozen=True, slots=True)
class Look:
    """A trial was scored on samples kept aside: SHA-256 (hex) of these and of its model file, and what came out."""

    data: str
    trial: int
    model: str
    verdict: Verdict

    def __post_init__(self) -> None:
        require_digests(self.data, self.model)
        if self.trial < 0:
            raise ValueError(f"trials count from 0, got {self.trial}")


def looks_of(folder: RunFolder) -> tuple[Look, ...]:
    """All looks of a run, in order. Certificates of before there was a record are looks too. Raises RunError."""
    recorded: tuple[Look, ...] = ()
    if folder.looks.exists():
        try:
            recorded = parse_looks(folder.looks.read_text(encoding="utf-8"), str(folder.looks))
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(str(folder.looks), f"cannot be read ({error})", hint=AGAIN) from None
    every = (folder.path / "trials").glob(f"*/{CERTIFICATE}")
    kept = sorted(path for path in every if path.parent.name.isdecimal())
    return tuple(dict.fromkeys([*recorded, *map(_look_of, kept)]))


def record(look: Look, folder: RunFolder) -> None:
    """Add a look to those of the run, once."""
    write_text(folder.looks, looks_text(dict.fromkeys([*looks_of(folder), look])))


def looks_text(looks: Iterable[Look]) -> str:
    """The text of looks.json."""
    facts = {"version": 1, "looks": [asdict(look) for look in looks]}
    return json.dumps(facts, indent=2, sort_keys=True) + "\n"


def parse_looks(text: str, where: str) -> tuple[Look, ...]:
    """Read the text of a file. Raises RunError that names `where` and the key."""
    fields = json_object(text, where, RunError, hint=AGAIN)
    fields.only("version", [1], 0)
    looks = fields.needed("looks", list)
    fields.done()
    return tuple(_look(fields.nested(value, f"looks[{number}]")) for number, value in enumerate(looks))


def _look(fields: Fields) -> Look:
    verdict = Verdict(fields.only("verdict", [each.value for each in Verdict], ""))
    values: dict[str, Any] = {name: fields.needed(name, str) for name in ("data", "model")}
    values["trial"] = fields.needed("trial", int)
    fields.done()
    return fields.build(lambda: Look(verdict=verdict, **values))


def _look_of(path: Path) -> Look:
    certificate = load_certificate(path)
    origin = certificate.origin
    return Look(origin.data, int(path.parent.name), origin.int8_model, certificate.verdict)
