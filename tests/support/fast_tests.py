"""Which tests are fast: those that load neither TensorFlow nor LiteRT, as far as the code of the tests says.

A test is slow where its module, what its module imports, a fixture that it asks for, or a function of the tests that
it names imports one of them. What autoquant imports only when it is called is not followed: a test that lets it do so
asks for the fixture `tensorflow`, and one that forgets fails (conftest.py).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
PLACES = (ROOT, TESTS / "support", TESTS / "benchmarks")
"""Where modules are found."""
DEFINITION = re.compile(r"^(?:@|def |class )", re.MULTILINE)
HEAVY = frozenset({"tensorflow", "keras", "ai_edge_litert", "litert_quantizer"})


@cache
def is_fast(test: str, path: Path) -> bool:
    """Whether the test function of that name in a file is fast."""
    if loads_heavy(path):
        return False
    fixtures = _fixtures(path)
    seen: set[tuple[Path, str]] = set()
    todo = [(path, test), *((place, name) for name, (place, always) in fixtures.items() if always)]
    while todo:
        place, name = todo.pop()
        if (place, name) in seen:
            continue
        seen.add((place, name))
        uses = _uses(place, name)
        if uses.heavy:
            return False
        todo += uses.named
        todo += [(fixtures[asked].place, asked) for asked in uses.asked if asked in fixtures]
    return True


class Uses(NamedTuple):
    """What a name stands for in the code of the tests: whether it imports something heavy, what it names and asks for.

    `named` are definitions elsewhere or in the same file, `asked` names of fixtures.
    """

    heavy: bool
    named: tuple[tuple[Path, str], ...]
    asked: tuple[str, ...]


@cache
def _uses(path: Path, name: str) -> Uses:
    nodes = _definitions(path).get(name, [])
    inside = [module for node in nodes for module, _ in _imports(node, inside=True)]
    named = {(path, other) for node in nodes for other in _names(node)}
    for module, imported in _imported(path):
        source = _file(module)
        if imported == name and source is not None and source.is_relative_to(TESTS):
            named.add((source, name))
    return Uses(any(map(_is_heavy, inside)), tuple(named), tuple(asked for node in nodes for asked in _asked(node)))


def _is_heavy(module: str) -> bool:
    source = _file(module)
    return module.split(".")[0] in HEAVY or (source is not None and loads_heavy(source))


@cache
def loads_heavy(path: Path) -> bool:
    """Whether something heavy is loaded when pytest imports a file, or the conftest.py around it or a folder."""
    seen: set[Path] = set()
    todo = [*([path] if path.suffix == ".py" else []), *_conftests(path)]
    while todo:
        place = todo.pop()
        if place in seen or place in _LIGHT:
            continue
        seen.add(place)
        loaded = _loaded(place)
        if loaded is None:
            return True
        todo += loaded
    _LIGHT.update(seen)
    return False


_LIGHT: set[Path] = set()
"""Files that were found to load nothing heavy, nor does what they import."""


@cache
def _loaded(path: Path) -> tuple[Path, ...] | None:
    """Our files that are loaded when a file is imported; None where it imports something heavy."""
    modules: set[str] = set()
    for module, name in _imported(path):
        parts = [*module.split("."), name]
        if parts[0] in HEAVY:
            return None
        modules.update(".".join(parts[:length]) for length in range(1, len(parts) + 1))
    files = map(_file, sorted(modules))
    return tuple(file for file in files if file is not None)


@cache
def _file(module: str) -> Path | None:
    """The file of a module of ours."""
    for place in PLACES:
        path = place.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _imported(path: Path) -> tuple[tuple[str, str], ...]:
    """Modules and names that are imported when a file is; imports stand above all definitions, as Ruff checks."""
    head = DEFINITION.split(path.read_text(encoding="utf-8"), maxsplit=1)[0]
    try:
        return tuple(_imports(ast.parse(head)))
    except SyntaxError:  # it was within a text
        return tuple(_imports(_tree(path)))


def _imports(tree: ast.AST, *, inside: bool = False) -> Iterator[tuple[str, str]]:
    """Modules and names that a tree imports, not for types alone; those in functions only where `inside` is wanted."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, "") for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", name.name) for name in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif isinstance(node, ast.stmt) and (inside or not isinstance(node, ast.FunctionDef)):
            yield from _imports(node, inside=inside)


@cache
def _definitions(path: Path) -> dict[str, list[ast.stmt]]:
    """What a file defines, by name."""
    found: dict[str, list[ast.stmt]] = {}
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)):
                found.setdefault(name.id, []).append(node)
    return found


def _names(node: ast.AST) -> Iterator[str]:
    """The names that a definition uses, but for types."""
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.Name):
                yield child.id
            elif isinstance(child, ast.AST) and field not in {"annotation", "returns"}:
                yield from _names(child)


def _conftests(path: Path) -> list[Path]:
    """The conftest.py of a folder of tests, or of the folders that a file of them is in, the outermost first."""
    places = (folder / "conftest.py" for folder in reversed([path, *path.parents]) if folder.is_relative_to(TESTS))
    return [place for place in places if place.is_file()]


class Fixture(NamedTuple):
    """The file that has it, and whether all tests ask for it."""

    place: Path
    always: bool


@cache
def _fixtures(path: Path) -> dict[str, Fixture]:
    """The fixtures that tests of a file may ask for, the nearest of each name."""
    return {
        node.name: Fixture(place, "autouse" in decorators)
        for place in (*_conftests(path), path)
        for node in _tree(place).body
        if isinstance(node, ast.FunctionDef) and "fixture" in (decorators := _decorators(node))
    }


def _decorators(node: ast.FunctionDef) -> str:
    return " ".join(map(ast.unparse, node.decorator_list))


def _asked(node: ast.stmt) -> Iterator[str]:
    """The fixtures that a function asks for, as arguments or by a mark."""
    if isinstance(node, ast.FunctionDef):
        yield from (argument.arg for argument in (*node.args.args, *node.args.kwonlyargs))
        marks = [mark for mark in node.decorator_list if "usefixtures" in ast.unparse(mark)]
        words = (word for mark in marks for word in ast.walk(mark) if isinstance(word, ast.Constant))
        yield from (str(word.value) for word in words)
