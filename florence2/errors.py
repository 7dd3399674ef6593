"""What can go wrong, in one tree. Each message says what was expected, what came, and what to do.

Florence2Error (a ValueError)
├── ConfigError       sizes that do not fit together
├── CheckpointError   a folder or file that is not a Florence-2, or not a whole one
├── PromptError       an unknown task, an input that is missing or given where none belongs, a prompt that is too long
├── ImageError        something that is not an image, or has no pixels
└── NonFiniteLoss     a training step whose loss or gradient is no number
"""


class Florence2Error(ValueError):
    """Any of these, and what is none of the others: annotations that a form can't write, a size that no image has."""


class ConfigError(Florence2Error):
    """Sizes that do not fit together, or texts that no vocabulary can be learnt from."""


class CheckpointError(Florence2Error):
    """A folder or file that is not a Florence-2's, is damaged or in part, or can't be written."""


class PromptError(Florence2Error):
    """A question that can't be asked: its task, form, input, region or length; the message says which."""


class ImageError(Florence2Error):
    """What is no image, is broken, or has no pixels; the message has its number and, where it is known, its file."""


class NonFiniteLoss(Florence2Error):
    """A step of training with a loss or gradient that is NaN or infinite. No weight has changed.

    `image_ids`: all images of the step, of every rank. `suspects`: those whose answers have such a loss by themselves;
    none, where only the gradient is not finite.
    """

    def __init__(self, step: int, image_ids: tuple[str, ...], suspects: tuple[str, ...]) -> None:
        super().__init__(step, image_ids, suspects)
        self.step, self.image_ids, self.suspects = step, image_ids, suspects

    def __str__(self) -> str:
        named, what = (self.suspects, "images") if self.suspects else (self.image_ids, "one of the images")
        more = f" and {len(named) - 20} more" if len(named) > 20 else ""
        return (
            f"step {self.step}: expected a finite loss and gradient; look at {what} {', '.join(named[:20])}{more}, "
            "or lower the learning rate. No weight has changed"
        )
