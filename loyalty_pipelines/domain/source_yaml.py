"""Reads a mapping file as plain texts, with the line of each value.

Every scalar stays the text that was written. YAML's own guesses would change an operator's words: `locale:
no` is Norwegian and not False, a status `1` is a word, and `2024` may be the name of a table.
"""

import yaml

MAX_CHARACTERS = 1_000_000
# For files that ship: thirty times as fast, and they are read whenever a process starts. What somebody else wrote could
# crash it by nesting without end.
FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Path = tuple[str | int, ...]


class YamlProblemError(ValueError):
    """The text is not the plain YAML that a mapping needs."""

    def __init__(self, found: str, line: int | None = None) -> None:
        super().__init__(found)
        self.found = found
        self.line = line


def read_yaml(text: str, *, is_ours: bool = False) -> tuple[object, dict[Path, int]]:
    """Return the content (dicts, lists, texts, None for an empty value) and the line of each path.

    `is_ours`: the text ships with this product. Raises YamlProblemError for broken YAML, keys given twice, anchors (a
    short text could unfold without end) and files that are too long or too deep.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlProblemError(f"found {len(text)} characters, a mapping may have {MAX_CHARACTERS}")
    loader = FAST_LOADER if is_ours else yaml.SafeLoader
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise YamlProblemError("found an alias (*name)", event.start_mark.line + 1)
        node = yaml.compose(text, Loader=loader)
        lines: dict[Path, int] = {}
        return _plain(node, (), lines), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlProblemError(f"found {error.problem}", mark.line + 1 if mark else None) from error
    except yaml.YAMLError as error:
        raise YamlProblemError(f"found characters that YAML does not allow ({error})") from error
    except RecursionError as error:
        raise YamlProblemError("found values nested too deeply") from error


def _plain(node: yaml.Node | None, path: Path, lines: dict[Path, int]) -> object:
    if node is None:
        return None
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(node, path, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, number), lines) for number, item in enumerate(node.value)]
    is_null = node.tag == "tag:yaml.org,2002:null"
    return None if is_null else node.value


def _plain_mapping(node: yaml.MappingNode, path: Path, lines: dict[Path, int]) -> dict[str, object]:
    content: dict[str, object] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise YamlProblemError("found a key that is not a text", line)
        key = key_node.value
        if key in content:
            raise YamlProblemError(f"found the key {key!r} twice", line)
        content[key] = _plain(value_node, (*path, key), lines)
        lines[(*path, key)] = line
    return content
