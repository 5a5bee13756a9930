"""All corrections of a plan, in order: its weights, its biases, then what training makes of everything before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from autoquant.calibration.plan import Plan
from autoquant.model.model import Model
from autoquant.quiet import no_progress
from autoquant.targets.base import Compiler, Corrections
from autoquant.tuning.repairs.bias_correction import Corrector
from autoquant.tuning.repairs.training.trainer import Trainer
from autoquant.tuning.repairs.weight_rounding import Rounder


@dataclass(frozen=True)
class Repairs:
    """Computes what plans want corrected in their files."""

    rounder: Rounder
    corrector: Corrector
    trainer: Trainer

    def corrections(
        self, plan: Plan, model: Model, compiler: Compiler, on_step: Callable[[str], None] = no_progress
    ) -> Corrections:
        """The corrections of a plan; `compiler` makes files of the model, which the target lowered.

        Training starts from rounded weights and corrected biases, and gives others in their place. Calls `on_step` when
        'round', 'correct' and 'train' are done, where the plan wants that. Raises as `Rounder.weights`,
        `Corrector.corrections` and `Trainer.trained`.
        """
        untrained = replace(plan, training=False)
        found = Corrections(weights=self.rounder.weights(untrained, model, compiler))
        if found.weights:
            on_step("round")
        found = self.corrector.corrections(untrained, model, compiler, found)
        if plan.bias_correction != "none":
            on_step("correct")
        if plan.training:
            found = self.trainer.trained(plan, model, compiler, found)
            on_step("train")
        return found
