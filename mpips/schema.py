"""What is wrong with a plain value (of TOML or JSON) that should become a given type: every mistake, not the first.

`msgspec` says what a type is and makes the value; it stops at the first mistake, so this walks the type itself.
"""

import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

Path = tuple[str | int, ...]
Hook = Callable[[type, Any], Any]


class Mistake(NamedTuple):
    """One thing wrong: where (keys and indices from the root) and what."""

    path: Path
    text: str

    @property
    def place(self) -> str:
        """The path as a person writes it: ``data.files[0]``."""
        return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path).lstrip(".")


def nearest(name: str, names: Iterable[str]) -> str:
    """Say which valid name was probably meant.

    Returns
    -------
    str
        ``did you mean "rule"?``, or the list of valid names when none is near.
    """
    valid = sorted(names)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else f"valid here: {', '.join(valid)}"


def mistakes(kind: Any, value: Any, hook: Hook | None = None, path: Path = ()) -> Iterator[Mistake]:
    """Find everything that keeps `value` from becoming a `kind`.

    Parameters
    ----------
    kind : type
        A `msgspec.Struct`, plain type, `Literal`, or a union, list, tuple or dict of these; `Annotated` with limits.
    value : object
        What TOML or JSON gave.
    hook : callable, optional
        Makes values of types that msgspec does not know (its `dec_hook`).
    path : tuple
        Where the value stands.

    Yields
    ------
    Mistake
        In the order of the value; none when ``msgspec.convert(value, kind, dec_hook=hook)`` would succeed.
    """
    part = _part(kind, value)
    if isinstance(part, Mistake):
        yield part._replace(path=(*path, *part.path))
    elif part is None:
        yield from _leaf(kind, value, hook, path)
    elif _is_struct(part):
        yield from _struct(part, value, hook, path)
    elif get_origin(part) is dict:
        of_keys, of_values = get_args(part)
        for key, item in value.items():
            yield from mistakes(of_keys, key, hook, (*path, key))
            yield from mistakes(of_values, item, hook, (*path, key))
    else:
        of_items = get_args(part)[0]
        inside = [m for index, item in enumerate(value) for m in mistakes(of_items, item, hook, (*path, index))]
        yield from inside or _leaf(kind, value, hook, path)


def _struct(kind: type[msgspec.Struct], value: dict[str, Any], hook: Hook | None, path: Path) -> Iterator[Mistake]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    wrong = False
    for key, item in value.items():
        if key == kind.__struct_config__.tag_field:
            found = []
        elif key in fields:
            found = list(mistakes(fields[key].type, item, hook, (*path, key)))
        else:
            tag = kind.__struct_config__.tag_field
            found = [Mistake((*path, key), f"unknown key; {nearest(key, [*fields, *([tag] if tag else [])])}")]
        wrong = wrong or bool(found)
        yield from found
    for field in fields.values():
        if field.required and field.encode_name not in value:
            wrong = True
            yield Mistake((*path, field.encode_name), f"is missing; it must be {_described(field.type)}")
    if not wrong:
        try:
            msgspec.convert(value, kind, dec_hook=hook)
        except msgspec.ValidationError as error:
            yield Mistake(path, str(error))


def _leaf(kind: Any, value: Any, hook: Hook | None, path: Path) -> Iterator[Mistake]:
    if isinstance(value, float) and not math.isfinite(value):
        yield Mistake(path, f"must be a number, got {value}")
        return
    try:
        msgspec.convert(value, kind, dec_hook=hook)
    except msgspec.ValidationError as error:
        names = [name for part in _parts(kind) if get_origin(part) is Literal for name in get_args(part)]
        if isinstance(value, str) and difflib.get_close_matches(value, names, n=1, cutoff=0.6):
            yield Mistake(path, f'unknown name "{value}"; {nearest(value, names)}')
        elif hook is not None and "`" not in str(error) and not names:
            yield Mistake(path, str(error))
        else:
            yield Mistake(path, f"must be {_described(kind)}, got {_shown(value)}")


def _part(kind: Any, value: Any) -> Any:
    """Of a union, the alternative that a table or an array must follow, or why there is none; None: compare as a
    whole.
    """
    tagged = [part for part in _parts(kind) if _is_struct(part) and part.__struct_config__.tag_field]
    if tagged and isinstance(value, dict):
        return _tagged(tagged, value)
    for part in _parts(kind):
        if isinstance(value, dict) and (_is_struct(part) or get_origin(part) is dict):
            return part
        if isinstance(value, list) and get_origin(part) in (list, tuple):
            return part
    return None


def _tagged(parts: list[Any], value: dict[str, Any]) -> Any:
    """The struct whose tag a table has."""
    field = parts[0].__struct_config__.tag_field
    by_tag = {part.__struct_config__.tag: part for part in parts}
    if field not in value:
        return Mistake((field,), f"is missing; it must be {_either([_shown(tag) for tag in by_tag])}")
    tag = value[field]
    if not isinstance(tag, str) or tag not in by_tag:
        return Mistake((field,), f"must be a name, got {_shown(tag)}; {nearest(str(tag), by_tag)}")
    return by_tag[tag]


def _parts(kind: Any) -> list[Any]:
    bare = _bare(kind)
    if get_origin(bare) in (Union, types.UnionType):
        return [_bare(part) for part in get_args(bare)]
    return [bare]


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _is_struct(kind: Any) -> typing.TypeGuard[type[msgspec.Struct]]:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _described(kind: Any) -> str:
    bare = _bare(kind)
    if get_origin(bare) in (Union, types.UnionType):
        return _either(list(dict.fromkeys(_described(part) for part in get_args(bare) if part is not type(None))))
    if get_origin(bare) is Literal:
        return _either([_shown(name) for name in get_args(bare)])
    if get_origin(bare) in (list, tuple):
        return f"an array{_limits(kind)}, each {_described(get_args(bare)[0])}"
    if _is_struct(bare) or get_origin(bare) is dict or bare is dict:
        text = "a table"
    else:
        plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        text = plain.get(bare) or f"a {bare.__name__.lower()}"
    return text + _limits(kind)


def _limits(kind: Any) -> str:
    words = []
    for meta in get_args(kind)[1:] if get_origin(kind) is Annotated else ():
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"), ("min_length", "of length ≥")):
            limit = getattr(meta, name, None)
            if limit is not None:
                words.append(f" {sign} {limit}")
        if getattr(meta, "pattern", None):
            words.append(f" that matches {meta.pattern}")
    return " and".join(words)


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    return str(value)
