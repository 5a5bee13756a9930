from __future__ import annotations

from pathlib import Path

import pytest

from autoquant.errors import DataError
from autoquant.evaluation.data.plugins import load_function, source_key, user_error


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_finds_an_installed_function() -> None:
    assert load_function("os.path:join")("a", "b") == str(Path("a/b"))


def test_finds_a_module_in_the_current_directory(here: Path) -> None:
    (here / "plugin_in_cwd.py").write_text("def one():\n    return 1\n")
    assert load_function("plugin_in_cwd:one")() == 1


def test_finds_a_file_and_what_lies_beside_it(here: Path) -> None:
    (here / "folder").mkdir()
    (here / "folder" / "plugin_helper.py").write_text("VALUE = 2\n")
    (here / "folder" / "mine.py").write_text("from plugin_helper import VALUE\ndef two():\n    return VALUE\n")
    assert load_function("folder/mine.py:two")() == 2
    assert load_function(f"{here / 'folder' / 'mine.py'}:two")() == 2


def test_a_file_is_read_anew_each_time(here: Path) -> None:
    file = here / "mine.py"
    file.write_text("def f():\n    return 1\n")
    first = load_function("mine.py:f")
    file.write_text("def f():\n    return 22\n")
    assert (first(), load_function("mine.py:f")()) == (1, 22)


@pytest.mark.parametrize(
    ("spec", "what", "hint"),
    [
        ("nonsense", "is not the name of a function", "module:function"),
        ("mine:", "is not the name of a function", "module:function"),
        ("plugin_minee:load", "no module 'plugin_minee'", "did you mean 'plugin_mine'?"),
        ("os.nothing:f", "no module 'os.nothing'", ""),
        ("plugin_mine:laod", "'plugin_mine' has no 'laod'", "did you mean 'load'?"),
        ("plugin_mine:VALUE", "'VALUE' is a int, not a function", ""),
        ("plugin_mines.py:load", "there is no file plugin_mines.py", "did you mean 'plugin_mine.py'?"),
        ("plugin_broken:f", "raised ZeroDivisionError: division by zero", ""),
        ("plugin_broken.py:f", "plugin_broken.py:2)", ""),
        ("plugin_needs:f", "raised ModuleNotFoundError: No module named 'not_there'", ""),
        ("plugin_syntax:f", "raised SyntaxError", ""),
    ],
)
def test_says_what_is_missing(here: Path, spec: str, what: str, hint: str) -> None:
    (here / "plugin_mine.py").write_text("VALUE = 3\ndef load():\n    pass\n")
    (here / "plugin_broken.py").write_text("x = 1\nx / 0\n")
    (here / "plugin_needs.py").write_text("import not_there\n")
    (here / "plugin_syntax.py").write_text("def f(:\n")
    with pytest.raises(DataError) as caught:
        load_function(spec)
    assert caught.value.where == spec
    assert what in caught.value.what
    assert hint in caught.value.hint


def test_blames_the_line_in_the_users_file_not_in_the_library_it_called(here: Path) -> None:
    (here / "mine.py").write_text("import json\n\ndef f():\n    return json.loads('{')\n")
    function = load_function("mine.py:f")
    try:
        function()
    except ValueError as error:
        # The frame of this test comes first, as ours would; only the user's frames follow in real use.
        error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]
        told = user_error("mine.py:f", error)
    assert "JSONDecodeError" in told.what
    assert told.what.endswith("mine.py:4)")


def test_the_key_follows_the_source_file(here: Path) -> None:
    file = here / "mine.py"
    file.write_text("def f(x):\n    return x\n")
    first = source_key(load_function("mine.py:f"))
    file.write_text("def f(x):\n    return x + 1\n")
    second = source_key(load_function("mine.py:f"))
    assert first and second and first != second
    assert source_key(len) == ""
