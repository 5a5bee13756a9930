"""`autoquant guide`: the pages of the guide, in a terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from autoquant.cli import arguments
from autoquant.cli.output import Table, markdown, page, say, terminal_columns
from autoquant.errors import UsageError, did_you_mean
from autoquant.files import write_text, writing
from autoquant.guide import FOLDER, NOTEBOOK, SKILL, TOPICS, guide_page, skill_page


def add_arguments(parser: arguments.Parser) -> None:
    """The topic, or a folder for the page for coding agents."""
    parser.add_argument("topic", metavar="TOPIC", nargs="?", help=f"one of {', '.join(TOPICS)}; without it, the list")
    arguments.add(parser, {"--agents DIR": f"write {SKILL}, for coding agents, into this folder"}, agents=Path)


def run(args: argparse.Namespace) -> int:
    """Show a page or the list of pages, or write the page for coding agents."""
    topic = getattr(args, "topic", None)
    if "agents" in args:
        if topic is not None:
            raise UsageError("--agents", f"writes a file, and '{topic}' asks for a page", hint="give one of them")
        file = args.agents / SKILL
        with writing(file):
            args.agents.mkdir(parents=True, exist_ok=True)
            write_text(file, skill_page())
        say(f"wrote {file}")
    elif topic is None:
        pages = Table(("topic", "what it is about"), list(TOPICS.items()))
        where = f"The files of all of them, and a notebook, {NOTEBOOK}, are in {FOLDER}"
        say(page([[pages], ["`autoquant guide TOPIC` shows a page.", where]], columns=terminal_columns(sys.stdout)))
    elif topic in TOPICS:
        text, columns = guide_page(topic), terminal_columns(sys.stdout)
        say(text if columns is None else markdown(text, columns=columns))
    else:
        hint = did_you_mean(topic, TOPICS, otherwise=f"there are: {', '.join(TOPICS)}")
        raise UsageError(topic, "is not a topic of the guide", hint=hint)
    return 0
