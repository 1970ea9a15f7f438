"""What a training step minimises. A new stage is a new objective; the loop stays the same."""

from miao.train.objectives.base import Objective, token_loss
from miao.train.objectives.distill import DistillObjective
from miao.train.objectives.grpo import GrpoObjective
from miao.train.objectives.kto import KtoObjective
from miao.train.objectives.language import LanguageObjective
from miao.train.objectives.preference import PreferenceObjective
