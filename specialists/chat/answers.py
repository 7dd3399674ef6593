"""What a language model answered, read strictly: JSON that fits a schema, or words. Whatever else is Unanswered."""

from __future__ import annotations

import json
import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from engine.untrusted import shown
from specialists.chat.question import Unanswered

Schema = TypeVar("Schema", bound=BaseModel)

# What a model thinks aloud before it answers, as Qwen3 and DeepSeek-R1 mark it.
# Where the prompt itself opens them, an answer only closes them.
THOUGHTS = re.compile(r"\A(?:\s*<think>.*?(?:</think>|\Z)|.*?</think>)", re.DOTALL)
FENCED = re.compile(r"\s*```(?:json)?\s(.*)```\s*", re.DOTALL | re.IGNORECASE)
WHOLE_SENTENCES = re.compile(r".*[.!?][\"')\u201d\u2019]*(?=\s)", re.DOTALL)


def parsed(answer: str, schema: type[Schema]) -> Schema:
    """The answer as `schema` has it: nothing but JSON, or one fence around it, and no type converted."""
    said = THOUGHTS.sub("", answer)
    fenced = FENCED.fullmatch(said)
    try:
        return schema.model_validate_json(fenced[1] if fenced else said, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, fault["loc"])) or "the whole"
        raise Unanswered(
            f"expected JSON that fits {schema.__name__}; {at}: {fault['msg']}; it is {shown(said)}"
        ) from None


def words(answer: str, complete: bool = True) -> str:
    """The answer, without white space around it; of one that was cut off, its whole sentences."""
    said = THOUGHTS.sub("", answer).strip()
    if not said:
        raise Unanswered("the answer is empty")
    if complete:
        return said
    whole = WHOLE_SENTENCES.match(said)
    if whole is None:
        raise Unanswered(f"the answer was cut off before its first sentence ended: {shown(said)}")
    return whole[0]


def instruction(schema: type[BaseModel]) -> str:
    """What is put behind a prompt where nothing else holds a model to a schema."""
    described = json.dumps(schema.model_json_schema(), ensure_ascii=False)
    return f"Answer with JSON alone, without a word around it, that fits this JSON schema:\n{described}"
