"""Makes the guide's page about profiles of devices from the profiles; run it after one has changed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from autoquant import guide
from autoquant.targets.profiles.profile import DOCUMENTATION, Profile
from autoquant.targets.profiles.table import PROFILES

FILE = Path(guide.__file__).parent / "profiles.md"
INTRODUCTION = """\
# Profiles of devices

A `.tflite` that LiteRT runs need not be one that a device takes: one wants symmetric activations, another a single
scale for a weight, a third no operator in float. A profile says what a device takes, by its public documentation, and
nothing that this does not say.

```console
$ autoquant inspect digits.keras --profile ethos-u55
$ autoquant search digits.keras --data digits.npz --tolerance 1% --target litert --profile ethos-u55 --run runs/ethos
$ autoquant check runs/ethos/best/digits_int8.tflite --profile ethos-u55
```

`inspect` lists, before any search, the operators that the device could not take of a model, each with the reason and
its share of the multiply-adds, and what of the settings is narrowed (`--json`: `profile`). `search`, `quantize`, `init`
and `export` take `--profile` too, with `--target litert`; Python functions take `profile=`. The profile is kept in
`run.toml`, so that `resume` and workers know it, and `result.json` has it with what breaks it of the best model, as
`device`. `export RUN --profile NAME` builds the plan of a run for another device, as far as that can have it.

## Files without float

`--integer-only` (Python: `integer_only=True`) asks for a `.tflite` without operators in float, for microcontrollers and
accelerators that cannot run any: but for a QUANTIZE of each input and a DEQUANTIZE of each output, and not even these
with `--io int8`. Layers are INT8, or, where that loses too much, have INT16 activations beside INT8 weights; a space
that says nothing of `activation_bits` offers both then. It goes with every profile, and with none. A model with an
operator that LiteRT has no integer kernel for is refused, and each such operator is named; `inspect --integer-only`
lists them before any search. The saved file is read again at the end, and `result.json` says under `device` what of it
would break that.

```console
$ autoquant search digits.keras --data digits.npz --tolerance 1% --target litert --integer-only --run runs/integers
```

Kernels for INT16 activations are LiteRT's own ones, without XNNPACK: on a phone or a server they are slower than INT8
and mostly slower than float. `autoquant benchmark` and the last lines of a search say how fast a file is here.

## What a profile does

- Operators that the device cannot take are no layers: they stay in float, on the CPU, and the survey lists them with
  the reason. Where nothing may stay in float, the CPU runs them in INT8; where there is no CPU to run them, the model
  is refused.
- Settings that the device cannot have are not offered by any search space: a scale for every channel
  (`channel_wise`), an offset (`asymmetric`), scales that are no powers of two (`power_of_two`), layers in float
  (`quant_enable`), 16 bits (`activation_bits`).
- A config that has one of them is refused, by where it is, what it breaks of which profile, and the way out. `autoquant
  quantize --config` never changes what was asked for.
- Where all sizes must be fixed, a batch that is open becomes 1 in the file, and the model runs sample by sample. Other
  open sizes are refused.
- `autoquant check FILE.tflite --profile NAME` (`autoquant.check_device`) reads operators, types, scales and offsets
  from a saved INT8 file alone, by whichever tool it was made, and lists what breaks the profile, with exit code 1. A
  search does the same with its best model.

## What is not known

**No profile was tried on a device.** Each was checked by its documentation alone, but for `{compared}`: of
these, small networks of every kind of layer, {builds} files in all, were given to Vela 5.2.0 itself, and what it placed
on the CPU is what the profile says (`tests/benchmarks/vela_placement.py`). A file that keeps to its profile may still
be refused, or be run in parts by the CPU, for what the documentation leaves open; what that is stands below, device by
device. Scores are those of LiteRT on this machine. Whether activations of 16 bits are possible is written down, not
used.

## The profiles

| profile | device | scale for every channel | activations | scales | in float | inputs, outputs |
|---|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    compared = [one.name for one in PROFILES.values() if one.checked != DOCUMENTATION]
    head = INTRODUCTION.replace("{compared}", "` and `".join(compared)).replace("{builds}", "100")
    rows = "".join(f"| {' | '.join(_row(one))} |\n" for one in PROFILES.values())
    return "\n".join([f"{head}{rows}", *(line for one in PROFILES.values() for line in _section(one))])


def _row(profile: Profile) -> Iterator[str]:
    yield f"`{profile.name}`"
    yield profile.device
    channels = profile.per_channel
    yield "not said, allowed" if channels is None else _code(channels) or "none"
    yield "symmetric" if profile.symmetric else "symmetric or not"
    yield "powers of two" if profile.power_of_two else "any"
    yield "nothing" if profile.all_int8 else f"on {profile.in_float}"
    yield " or ".join(profile.io)


def _section(profile: Profile) -> Iterator[str]:
    yield f"### {profile.name}\n"
    yield f"{profile.device}. Checked {profile.checked}.\n"
    yield _items(profile.rules())
    yield "Sources:\n"
    yield "\n".join(f"- [{one.title}]({one.url}), {one.version}" for one in profile.sources) + "\n"
    yield "Not known, or not checked:\n"
    yield _items(profile.not_known)


def _items(texts: Iterable[str]) -> str:
    wrapped = (
        textwrap.fill(f"- {text}", 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for text in texts
    )
    return "\n".join(wrapped) + "\n"


def _code(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
