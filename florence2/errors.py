"""What can go wrong, in one tree. Each message says what was expected, what came, and what to do.

Florence2Error (a ValueError)
├── ConfigError       sizes that do not fit together
├── CheckpointError   a folder or file that is not a Florence-2, or not a whole one
├── PromptError       an unknown task, an input that is missing or given where none belongs, a prompt that is too long
└── ImageError        something that is not an image, or has no pixels
"""


class Florence2Error(ValueError):
    pass


class ConfigError(Florence2Error):
    pass


class CheckpointError(Florence2Error):
    pass


class PromptError(Florence2Error):
    pass


class ImageError(Florence2Error):
    pass
