"""How good an answer is, by the measures and protocols that papers report; and the files that benchmarks come in.

The measures (`detection`, `captions`, `grounding`, `referring`, `ocr`) are functions of plain lists and arrays: what
was to be found, what was found, and out comes a `Result` that says by which protocol.
"""

from florence2.evaluation.result import Result

__all__ = ["Result"]
