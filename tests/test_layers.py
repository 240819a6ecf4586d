"""The layers of docs/design.md hold: each module imports only what stands below its own, or in its own folder."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def layers() -> list[str]:
    """The modules and folders of mpips as the page lists them, from the top down."""
    text = (ROOT / "docs" / "design.md").read_text().split("## Layers")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", row)]


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules and folders of mpips that a module imports when it runs, not those that only types need."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "mpips":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mpips."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mpips."))
        else:
            yield from imported(node)


def test_every_module_has_its_layer():
    files = {path.stem for path in (ROOT / "mpips").glob("*.py")} - {"__init__", "__main__"}
    folders = {path.parent.name for path in (ROOT / "mpips").glob("*/__init__.py")}
    assert sorted(layers()) == sorted(files | folders)


def test_every_module_imports_only_what_stands_below_it():
    order, wrong = layers(), list[str]()
    for path in sorted((ROOT / "mpips").rglob("*.py")):
        own = path.relative_to(ROOT / "mpips").parts[0].removesuffix(".py")
        above = order[: order.index(own)] if own in order else []
        names = imported(ast.parse(path.read_text()))
        wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in names if name in above]
    assert wrong == []
