"""Training: from scratch, from released weights or from an earlier model. Examples in, a better model out."""

from florence2.training.batch import Batch, Row, tokenise
from florence2.training.lora import Lora
from florence2.training.recipe import Recipe
from florence2.training.state import latest
from florence2.training.trainer import StepReport, TaskLoss, Trainer

__all__ = ["Batch", "Lora", "Recipe", "Row", "StepReport", "TaskLoss", "Trainer", "latest", "tokenise"]
