"""What the requests of commands share: data, and how a model that takes it is opened; and that of a look at one."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

from autoquant.errors import UsageError
from autoquant.evaluation.data.opening import check_spec
from autoquant.evaluation.data.preprocessing import Numbers, check_preprocess
from autoquant.model.feed import Feed, feed_texts
from autoquant.model.model import EVERYTHING, Fusion, Model, check_file
from autoquant.model.open import open_model
from autoquant.targets.profiles.table import open_profile
from autoquant.targets.table import TARGETS
from autoquant.tuning.study.choices import FLOAT32, LITERT, check_target, likely_target


class DataOptions(TypedDict, total=False):
    """The fields of a DataRequest that have a default, for the signatures of functions that pass them on."""

    preprocess: str | Callable[..., Any] | None
    scale: Numbers | None
    mean: Numbers | None
    std: Numbers | None
    label_offset: int
    image_size: tuple[int, int] | str | None
    batch_size: int


class ModelOptions(DataOptions, total=False):
    """The fields of a ModelRequest that have a default, likewise."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    signature: str
    feed: Feed
    trust_model: bool


@dataclass(frozen=True, kw_only=True)
class DataRequest:
    """Data, and how it becomes what the model takes.

    `data` and `calibration` are what `autoquant.evaluation.data.dataset.open_data` opens; without `calibration`, some
    of `data` is split off for it. `preprocess` is a Keras mode or a function, `scale`, `mean` and `std` are numbers,
    one or one a channel, for (x * scale - mean) / std. `label_offset` is added to labels. `image_size` is height and
    width for images where the model leaves them open.
    """

    data: Any
    calibration: Any = None
    preprocess: str | Callable[..., Any] | None = None
    scale: Numbers | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    label_offset: int = 0
    image_size: tuple[int, int] | None = None
    batch_size: int = 50

    def __post_init__(self) -> None:
        for name in ("scale", "mean", "std", "label_offset", "image_size", "batch_size"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        for entry in fields(self):
            _check_length(entry.name, getattr(self, entry.name))
        if self.batch_size < 1:
            raise UsageError("--batch-size", f"must be at least 1, got {self.batch_size}", hint="for example 50")

    def check_named(self) -> None:
        """Raise InputError for names of what is not there: nothing is read for that, and TensorFlow not loaded."""
        for spec in (self.data, self.calibration):
            check_spec(spec)
        check_preprocess(self.preprocess, scale=self.scale, mean=self.mean, std=self.std)


@dataclass(frozen=True, kw_only=True)
class ModelRequest(DataRequest):
    """Data, and how a model that takes it is opened.

    `inputs` and `outputs` override what the model's file says, `signature` chooses one of several in a SavedModel or
    .tflite, `feed` gives values to placeholders of it that are no data, such as is_training, and is kept as texts
    NAME=VALUE. `trust_model` opens a model that may do more than compute (model/trust.py).
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    signature: str = ""
    feed: Feed = ()
    trust_model: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "feed", feed_texts(self.feed))

    def open_model(self, path: str | Path, target: str, fusion: Fusion = EVERYTHING) -> Model:
        """The model as the file has it, but for what the target cannot run in front. Raises as `open_model`."""
        return open_model(
            path,
            inputs=self.inputs,
            outputs=self.outputs,
            fusion=fusion,
            signature=self.signature or None,
            feed=self.feed,
            for_litert=TARGETS[target].cuts_front,
            trust=self.trust_model,
        )


class InspectOptions(ModelOptions, total=False):
    """The fields of an InspectRequest that have a default, for the signatures of functions that pass them on."""

    target: str
    profile: str
    integer_only: bool
    calibration: Any


@dataclass(frozen=True, kw_only=True)
class InspectRequest(ModelRequest):
    """A `model`, and the `target` that it is looked at for, by default where it is from.

    With the `profile` of a device of target litert, which is the default then, what that could not take is found too.
    With `calibration` the sensitivity of its layers is measured on that.
    """

    model: str | Path
    target: str = ""
    profile: str = ""
    integer_only: bool = False
    data: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.target:
            object.__setattr__(
                self, "target", LITERT if self.profile or self.integer_only else likely_target(self.model)
            )
        check_target(self.model, target=self.target, io=self.io, profile=self.profile, integer_only=self.integer_only)

    @property
    def io(self) -> str:
        """The type of inputs and outputs that the device takes, where there is one."""
        return open_profile(self.profile).io[0] if self.profile else FLOAT32

    def check_named(self) -> None:
        """Raise InputError for names of what is not there, of the model too."""
        check_file(self.model)
        super().check_named()


def _check_length(name: str, value: Any) -> None:
    """Raise UsageError for a text that no file can be called, so that nobody can look for one."""
    if not isinstance(value, str | Path):
        return
    try:
        Path(value).stat()
    except (OSError, ValueError) as error:  # mostly, that there is none: others tell of that
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            what = f"is longer than a file's name can be: {str(value)[:40]}..."
            raise UsageError(f"--{name.replace('_', '-')}", what, hint="is it a name?") from None


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, which JSON can hold."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    return tuple(plain) if isinstance(plain, list) else plain
