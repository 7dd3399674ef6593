"""Florence-2, the model that learns from the dataset and annotates again. It stands alone: it imports no engine."""

from florence2.annotate import Annotator, Answer, annotate
from florence2.codec import Annotation
from florence2.config import Florence2Config
from florence2.draw import draw
from florence2.errors import Florence2Error
from florence2.model import Florence2
from florence2.processor import Processor
from florence2.tasks import Form, Prompt, Task, ask
from florence2.tokens import Tokens

__all__ = [
    "Annotation",
    "Annotator",
    "Answer",
    "Florence2",
    "Florence2Config",
    "Florence2Error",
    "Form",
    "Processor",
    "Prompt",
    "Task",
    "Tokens",
    "annotate",
    "ask",
    "draw",
]
