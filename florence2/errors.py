"""What can go wrong, in one tree. Each message says what was expected, what came, and what to do.

Florence2Error (a ValueError)
├── ConfigError       sizes that do not fit together
├── CheckpointError   a folder or file that is not a Florence-2, or not a whole one
├── PromptError       an unknown task, an input that is missing or given where none belongs, a prompt that is too long
├── ImageError        something that is not an image, or has no pixels
├── OutputError       a disk that is full, or fails
└── NonFiniteLoss     a training step whose loss or gradient is no number
"""

import errno


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


class OutputError(Florence2Error):
    """What is asked for can't be written, for no fault of its own: the disk is full or fails; what to do is said."""


def refused(what: str, error: OSError) -> Florence2Error:
    """For `what` can't be written from the start: its place is a wrong one, or there is no room in it."""
    if is_full(error):
        return unwritable(what, error, "Nothing is asked yet")
    return Florence2Error(f"{what}: can't be written ({error.strerror}); name another place")


def unwritable(what: str, error: OSError, safe: str) -> OutputError:
    """For `what` could not be written to its end; `safe` says what is not lost."""
    why = "no space left on its disk" if is_full(error) else f"can't be written ({error.strerror or error})"
    mend = "make room" if is_full(error) else "mend that"
    return OutputError(f"{what}: {why}. {safe}; {mend} and run the same again")


def is_full(error: OSError) -> bool:
    """Whether a disk or a quota is."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


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
