"""YAML that can do nothing but say something: no tags that build objects, no key twice, no few lines that stand for
gigabytes."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

LONGEST = 1 << 24  # bytes of a file
MOST_VALUES = 1_000_000  # with what aliases repeat: nine of them, each nine times the one before, are a billion
MOST_DIGITS = 400  # Python takes time quadratic in them, and prints none of more than 4300


def read(path: Path) -> Any:
    """What a file says. Raises ValueError for what is no such YAML, and OSError if it can't be read."""
    with path.open("rb") as file:
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} bytes")
    return parse(data.decode())


def parse(text: str) -> Any:
    """What a text says. Raises ValueError for what is no YAML, repeats a key, or grows with its aliases."""
    try:
        return yaml.load(text, _Loader)
    except ValueError:
        raise
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    # PyYAML's own, and what its constructors stumble over: !!bool maybe, !!int "", !!timestamp soon, 1:1:1:...:1.5
    except (yaml.YAMLError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


class _Loader(yaml.SafeLoader):
    """SafeLoader silently keeps the last of two equal keys; a threshold must not vanish like that."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _values(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is no key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, with what aliases repeat; of `known` nodes, by id, it was counted before.
    Raises ValueError where they are too many."""
    if (count := known.get(id(node))) is not None:
        if not count:
            raise ValueError(f"a value is inside itself:\n{node.start_mark}")
        return count
    known[id(node)] = 0  # until all that is in it is counted
    count = 1
    if isinstance(node, yaml.ScalarNode):
        if node.tag.endswith((":int", ":float")) and len(node.value) > MOST_DIGITS:
            raise ValueError(f"a number of {len(node.value):,} characters:\n{node.start_mark}")
    else:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [one for pair in node.value for one in pair]
        count += sum(_values(part, known) for part in parts)
    if count > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values, with what its aliases repeat:\n{node.start_mark}")
    known[id(node)] = count
    return count
