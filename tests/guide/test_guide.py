"""What README and guide show is true: commands are understood and named, pages are listed, the reference is current."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pages import GUIDE, PAGES, README, blocks, commands

from autoquant.cli.arguments import Parser
from autoquant.cli.main import COMMANDS, main
from autoquant.formats.space_toml import parse_space, presets
from autoquant.guide import SKILL, TOPICS, guide_page, skill_page

SHOWN = [(name, line) for name, text in PAGES.items() for line in commands(text) if line.startswith("autoquant ")]


def launched(found: object) -> Iterator[str]:
    """The commands of a document that starts containers, as lists of words or in one line."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key == "command":
                yield value if isinstance(value, str) else shlex.join(value)
            else:
                yield from launched(value)
    elif isinstance(found, list):
        for one in found:
            yield from launched(one)


MANIFESTS = [yaml.safe_load(text) for language, text in blocks(PAGES["workers"]) if language == "yaml"]
SCRIPTS = [text for language, text in blocks(PAGES["workers"]) if language == "sh"]
LAUNCHED = [line for found in MANIFESTS for line in launched(found)]
LAUNCHED += [line for text in SCRIPTS for line in re.findall(r"^srun .*?(autoquant .*)$", text, re.MULTILINE)]


def test_what_starts_workers_is_understood(tmp_path: Path) -> None:
    """Files for schedulers: YAML, a script that a shell can read, and commands of ours, without a shell around them."""
    assert [found.get("kind", "compose") for found in MANIFESTS] == ["compose", "Job"]
    assert sum(line.startswith("autoquant worker") for line in LAUNCHED) == len(LAUNCHED) - 1 == 3
    for text in SCRIPTS:
        (tmp_path / "script").write_text(text, encoding="utf-8")
        subprocess.run(["bash", "-n", tmp_path / "script"], check=True)


@pytest.mark.parametrize(("page", "line"), [*SHOWN, *(("workers", line) for line in LAUNCHED)])
def test_commands_are_understood(page: str, line: str) -> None:
    name, *words = shlex.split(line)[1:]
    parser = Parser(prog=name)
    importlib.import_module(f"autoquant.cli.{name}").add_arguments(parser)
    assert parser.parse_args(words)


def test_every_command_is_shown() -> None:
    assert {shlex.split(line)[1] for _, line in SHOWN} == set(COMMANDS)


def test_the_readme_is_short_and_links_every_page() -> None:
    assert len(README.splitlines()) <= 150
    assert set(re.findall(r"\(autoquant/guide/(\w+)\.md\)", README)) == set(TOPICS)
    for topic, about in TOPICS.items():
        assert f"- [{topic}](autoquant/guide/{topic}.md): {about}\n" in README


def test_files_that_pages_show_are_there() -> None:
    """Beside the pages, so that the wheel has them; the picture is small, and as wide as a page of GitHub."""
    links = {(README, "report.png"), (README, "keras.ipynb"), (guide_page("start"), "report.png")}
    links |= {(guide_page("python"), "keras.ipynb")}
    for text, name in links:
        assert f"({'autoquant/guide/' if text is README else ''}{name})" in text
    for text in PAGES.values():
        for name in re.findall(r"\]\((?!https?:)(?:autoquant/guide/)?([\w.-]+)\)", text):
            assert (GUIDE / name).is_file(), name
    picture = (GUIDE / "report.png").read_bytes()
    assert len(picture) < 120_000
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(picture[16:20], "big") == 1000


def test_every_page_has_a_topic_and_names_only_topics() -> None:
    assert {path.stem for path in GUIDE.glob("*.md")} == {*TOPICS, "skill"}
    for text in [*PAGES.values(), skill_page()]:
        assert set(re.findall(r"`autoquant guide (\w+)`", text)) <= {*TOPICS, "TOPIC"}


def test_presets_are_named() -> None:
    assert all(f"`{name}`" in guide_page("space") for name in presets() if name != "demo")


def test_the_search_space_is_one() -> None:
    example = re.search(r"```toml\n(.*?)```", guide_page("space"), re.DOTALL)
    assert example is not None
    space = parse_space(example[1], "space.md")
    assert space.whole["batch_num"] == (8, 1)
    assert space.whole["equalize"] == (True, False)
    assert space.whole["weight_rounding"] == ("gptq", "nearest")
    assert space.whole["bias_correction"] == ("analytic", "empirical", "none")
    assert space.shared.channel_wise == (True, False)
    assert len(space.layer.activation) == 3


def test_pages_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guide"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{topic} " in shown and about in shown for topic, about in TOPICS.items())
    assert f"a notebook, keras.ipynb, are in {GUIDE}" in shown
    assert main(["guide", "certificate"]) == 0
    assert capsys.readouterr().out == guide_page("certificate")
    assert main(["guide", "certificat"]) == 2
    assert "is not a topic of the guide; did you mean 'certificate'?" in capsys.readouterr().err


def test_the_page_for_agents_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guide", "--agents", str(tmp_path / "agents")]) == 0
    text = (tmp_path / "agents" / SKILL).read_text(encoding="utf-8")
    assert re.match(r"---\nname: autoquant\ndescription: .+\n---\n", text)
    assert main(["guide", "start", "--agents", str(tmp_path)]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_the_reference_is_current(tensorflow: None) -> None:
    from python_reference import reference

    assert guide_page("python") == reference(), "python tests/support/python_reference.py makes it anew"


def test_the_page_of_profiles_is_current() -> None:
    """All that a profile says is on it: rules, sources, and what is not known."""
    from profiles_page import page

    assert guide_page("profiles") == page(), "python tests/support/profiles_page.py makes it anew"
