"""All corrections of a plan, one after the other: its biases, then what training makes of everything before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from autoquant.calibration.plan import Plan
from autoquant.model.model import Model
from autoquant.quiet import no_progress
from autoquant.targets.base import Compiler, Corrections
from autoquant.tuning.repairs.bias_correction import Corrector
from autoquant.tuning.repairs.training.trainer import Trainer


@dataclass(frozen=True)
class Repairs:
    """Computes what plans want corrected in their files."""

    corrector: Corrector
    trainer: Trainer

    def corrections(
        self, plan: Plan, model: Model, compiler: Compiler, on_step: Callable[[str], None] = no_progress
    ) -> Corrections:
        """The corrections of a plan; `compiler` makes files of the model, which the target lowered.

        Training starts from corrected biases, and gives others in their place. Calls `on_step` when 'correct' and
        'train' are done, where the plan wants that. Raises as `Corrector.corrections` and as `Trainer.trained`.
        """
        found = self.corrector.corrections(replace(plan, training=False), model, compiler)
        if plan.bias_correction != "none":
            on_step("correct")
        if plan.training:
            found = self.trainer.trained(plan, model, compiler, found)
            on_step("train")
        return found
