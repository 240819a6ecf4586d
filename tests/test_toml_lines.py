"""Lines of TOML keys, against every way to write them."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from mpips.job.lines import lines

TEXT = (
    '''\
# a comment with [brackets] and = signs
title = "a # no comment"
"quoted key" = 'a \\ literal'
long = """
[not.a.table]
x = 1
"""
a.b . c = 1.5
[servers]
list = [ # comment ]
  1, [2, 3],
  { x = 1, y = { z = [4] } },
]
when = 1979-05-27T07:32:00Z
[servers."x.y".deep]
e = 'it'''
    + "''"
    + '''s'
[[many]]
k = 1
[[many]]
k = 2
[many.inner]
j = """"two quotes at the end"""""
last = 1
'''
)


def test_every_key_and_element_has_its_line() -> None:
    text = TEXT.replace("'it''s'", '"its"')
    tomllib.loads(text)
    found = lines(text)
    expected = {
        ("title",): 2, ("quoted key",): 3, ("long",): 4, ("a",): 8, ("a", "b", "c"): 8, ("servers",): 9,
        ("servers", "list"): 10, ("servers", "list", 0): 11, ("servers", "list", 1, 1): 11,
        ("servers", "list", 2, "y", "z", 0): 12, ("servers", "when"): 14, ("servers", "x.y", "deep"): 15,
        ("servers", "x.y", "deep", "e"): 16, ("many", 0): 17, ("many", 0, "k"): 18, ("many", 1, "k"): 20,
        ("many", 1, "inner"): 21, ("many", 1, "inner", "j"): 22, ("many", 1, "inner", "last"): 23,
    }  # fmt: skip
    assert {path: found.get(path) for path in expected} == expected


KEYS = st.text("abc-_1. '\"é", min_size=1, max_size=4)
VALUES = st.recursive(
    st.integers() | st.booleans() | st.text("ab\"'#[]{}=,.\\ ", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return "[\n" + ",\n".join(map(written, value)) + "\n]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {written(item)}" for key, item in value.items()) + "}"
    return str(value)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_keys_of_any_document_are_found_in_their_order(content: dict[str, object]) -> None:
    text = "".join(f"{quoted(key)} = {written(value)}\n" for key, value in content.items())
    assert tomllib.loads(text) == content
    found = lines(text)
    line = 1
    for key, value in content.items():
        assert found[(key,)] == line
        line += written(value).count("\n") + 1
