"""What a training step minimises. A new stage is a new objective; the loop stays the same."""

from miao.train.objectives.base import Objective, token_loss
from miao.train.objectives.dpo import DpoObjective, cache_reference
from miao.train.objectives.language import LanguageObjective

__all__ = ["DpoObjective", "LanguageObjective", "Objective", "cache_reference", "token_loss"]
