"""What the verbs of `tidemark release` share: options, opening, refusals, and what they print."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from tidemark_host.boardfile import Board, BoardFileError, load_board
from tidemark_host.release import FLEET, KeyStore, ReleaseError, Repository, staging
from tidemark_host.release.model import APP, RUNTIME
from tidemark_host.toolchain_build import REPO

PASSPHRASE = "TIDEMARK_KEY_PASSPHRASE"

as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
)
dry = click.option(
    "--dry-run", is_flag=True, help="Do everything but write; say which files would change."
)
for_role = click.option(
    "--role",
    default=FLEET,
    show_default=True,
    help="Who signs the release: a cohort's delegated role reaches the boards of its cohort only.",
)

for_kind = click.option(
    "--kind",
    type=click.Choice([APP, RUNTIME]),
    default=APP,
    show_default=True,
    help="What the index is one of.",
)


def where(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every release verb has."""
    for name, default, text in (
        ("--keys", "keys", "Folder of the signing keys."),
        ("--repo", "repo", "Folder of the repository."),
    ):
        function = click.option(
            name,
            type=click.Path(path_type=Path, file_okay=False),
            default=Path(default),
            show_default=True,
            envvar=f"TIDEMARK_{name[2:].upper()}",
            help=text,
        )(function)
    return function


def how(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of verbs that publish."""
    return click.option(
        "--stage", is_flag=True, help="Leave it to be signed further by other key holders."
    )(dry(function))


@contextmanager
def told() -> Generator[None]:
    """Turn a refusal into what, why and what to try."""
    try:
        yield
    except ReleaseError as error:
        hint = f"\nTry: {error.hint}" if error.hint else ""
        raise click.ClickException(f"{error} ({error.code}){hint}") from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error


def say(json_wanted: bool, result: dict[str, Any], *lines: str) -> None:
    """Print one JSON object, or text for people."""
    for line in [json.dumps(result)] if json_wanted else lines:
        click.echo(line)


def find_board(name: str, elsewhere: bool) -> Board | None:
    """Return a board of boards/; None where there is none and it may be defined `elsewhere`.

    Raises ReleaseError `board`: a release for it would reach nobody.
    """
    known = sorted(path.parent.name for path in REPO.glob("boards/*/board.toml"))
    if name in known:
        try:
            return load_board(REPO / "boards" / name / "board.toml")
        except BoardFileError as error:
            raise ReleaseError("board", str(error), f"boards/{name}/board.toml") from error
    if elsewhere:
        return None
    raise ReleaseError(
        "board",
        f"there is no boards/{name}/board.toml",
        f"--board with one of {', '.join(known)}; --force for a board defined elsewhere",
    )


def open_repository(repo: Path, keys: Path) -> Repository:
    """Open it; passphrases come from the environment, or are asked for on a terminal."""
    ask = _ask if sys.stdin.isatty() else None
    return Repository.open(repo, KeyStore(keys, os.environ.get(PASSPHRASE), ask))


def _ask(path: Path) -> str:
    new = not path.exists()
    return str(
        click.prompt(f"Passphrase of {path}", hide_input=True, confirmation_prompt=new, err=True)
    )


def finish(
    repository: Repository, stage: bool, dry_run: bool, refresh: Sequence[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Publish, stage, or see what publishing would write; return that for `--json` and people."""
    if stage and dry_run:
        raise ReleaseError("staged", "--stage or --dry-run, not both", "leave one of them out")
    if stage:
        rows = repository.stage(refresh=refresh)
        staged = [dataclasses.asdict(row) for row in rows]
        return {"published": False, "staged": staged}, progress(rows)
    made = repository.keys.fresh
    written = repository.publish(refresh=refresh, dry_run=dry_run)
    files = [str(path) for path in [*made, *written]]
    if dry_run:
        return {"published": False, "files": files}, [f"would write {name}" for name in files]
    return {"published": True, "files": files}, []


def progress(rows: list[staging.Progress]) -> list[str]:
    """Return how far staged roles are, and what comes next, in lines."""
    lines = [
        f"staged: {row.role} {row.version}: {row.signed} of {row.threshold} signatures"
        for row in rows
    ]
    if rows:
        ready = all(row.done for row in rows)
        lines.append(f"Next: tidemark release {'publish' if ready else 'sign, with another key'}")
    return lines
