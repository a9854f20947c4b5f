"""The command's own help: every verb is listed, has words, and can be asked for its options."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from tidemark_host import cli

VERBS = cli.command.list_commands(click.Context(cli.command))


def test_help_lists_every_verb() -> None:
    done = CliRunner().invoke(cli.command, ["--help"])
    assert done.exit_code == 0, done.output
    assert [verb for verb in VERBS if verb not in done.output] == []
    assert {"boards", "console", "evidence", "firmware", "flash", "provision"} <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_verb_explains_itself(verb: str) -> None:
    done = CliRunner().invoke(cli.command, [verb, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output
