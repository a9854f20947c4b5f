"""`tidemark release`: keys, signing and publishing of application releases."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import rich_click
from rich.console import Console
from rich.table import Table

from tidemark_host.release import ROLES, KeyStore, ReleaseError, Repository, app_path
from tidemark_host.toolchain_build import REPO

PASSPHRASE = "TIDEMARK_KEY_PASSPHRASE"
_SOON = timedelta(days=3)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group(cls=rich_click.RichGroup, name="release")
def command() -> None:
    """Make, sign and publish releases in a TUF repository of plain files."""


def _where(function: Callable[..., Any]) -> Callable[..., Any]:
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


@contextmanager
def _told() -> Generator[None]:
    """Turn a refusal into what, why and what to try."""
    try:
        yield
    except ReleaseError as error:
        hint = f"\nTry: {error.hint}" if error.hint else ""
        raise click.ClickException(f"{error} ({error.code}){hint}") from error


def _print(as_json: bool, result: dict[str, Any], *lines: str) -> None:
    """Print one JSON object, or text for people."""
    for line in [json.dumps(result)] if as_json else lines:
        click.echo(line)


def _open(repo: Path, keys: Path) -> Repository:
    return Repository.open(repo, KeyStore(keys, os.environ.get(PASSPHRASE)))


@command.command()
@_where
@click.option("--root-keys", default=1, show_default=True, help="How many root keys to make.")
@click.option("--root-threshold", default=1, show_default=True, help="How many of them must sign.")
@click.option("--encrypt", is_flag=True, help=f"Encrypt the keys; asks, or takes {PASSPHRASE}.")
@click.option("--force", is_flag=True, help="Accept a key folder that git would take.")
@_JSON
def init(
    repo: Path,
    keys: Path,
    root_keys: int,
    root_threshold: int,
    encrypt: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Make fresh keys and an empty repository."""
    passphrase = os.environ.get(PASSPHRASE)
    if encrypt and not passphrase:
        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True)
    with _told():
        if not 1 <= root_threshold <= root_keys:
            raise ReleaseError(
                "root-threshold", f"{root_threshold} of {root_keys} keys can't sign"
            )
        store = KeyStore.create(keys, root_keys=root_keys, passphrase=passphrase, force=force)
        Repository.create(repo, store, root_threshold=root_threshold)
    _print(
        as_json,
        {"repo": str(repo), "keys": str(keys), "roles": list(ROLES), "version": 1},
        f"{repo}: published version 1 of {', '.join(ROLES)}",
        f"{keys}: move root-*.pem to an offline medium; targets-*.pem belongs to who signs",
    )


@command.command()
@click.argument("image", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_where
@click.option("--board", required=True, help="Board the image is for.")
@click.option("--version", required=True, help="Version for people, at most 24 characters.")
@click.option("--index", type=int, help="Release index; default: the next. It only rises.")
@click.option("--attempt", default=0, show_default=True, help="Raise it to lift a rejection.")
@click.option("--min-runtime", default=0, show_default=True, help="Least runtime index.")
@click.option("--cohort", default=100, show_default=True, help="Percentage of the fleet.")
@click.option("--publish/--no-publish", default=True, show_default=True, help="Sign at once.")
@click.option("--force", is_flag=True, help="Accept a board that boards/ does not have.")
@_JSON
def add(
    image: Path,
    repo: Path,
    keys: Path,
    board: str,
    version: str,
    index: int | None,
    attempt: int,
    min_runtime: int,
    cohort: int,
    publish: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Add IMAGE as a release and publish it."""
    with _told():
        if not force:
            _check_board(board)
        repository = _open(repo, keys)
        number = repository.add(
            image,
            board=board,
            version=version,
            index=index,
            attempt=attempt,
            min_runtime=min_runtime,
            cohort=cohort,
        )
        if publish:
            repository.publish()
    _print(
        as_json,
        {"board": board, "index": number, "version": version, "published": publish},
        f"{board}: release {number} ({version}) {'published' if publish else 'checked'}",
    )


def _check_board(name: str) -> None:
    """Refuse a name that no board has: a release for it would reach nobody."""
    known = sorted(path.parent.name for path in REPO.glob("boards/*/board.toml"))
    if name not in known:
        raise ReleaseError(
            "board",
            f"there is no boards/{name}/board.toml",
            f"--board with one of {', '.join(known)}; --force for a board defined elsewhere",
        )


@command.command()
@_where
@click.option("--board", required=True)
@click.option("--index", type=int, required=True)
@click.option("--attempt", type=int, help="Lift a rejection: above the former attempt.")
@click.option("--cohort", type=int, help="Percentage of the fleet that is offered it.")
@click.option("--abort/--no-abort", default=None, help="Stop staging and trials of it.")
@_JSON
def change(
    repo: Path,
    keys: Path,
    board: str,
    index: int,
    attempt: int | None,
    cohort: int | None,
    abort: bool | None,
    as_json: bool,
) -> None:
    """Widen the cohort of a release, abort it, or lift its rejection; publishes."""
    with _told():
        repository = _open(repo, keys)
        repository.change(board, index, attempt=attempt, cohort=cohort, abort=abort)
        repository.publish()
        entry = repository.targets.targets[app_path(board, index)].to_dict()
    _print(as_json, entry["custom"], f"{board}: release {index} changed")


@command.command()
@_where
@click.option("--refresh", type=click.Choice(ROLES), multiple=True, help="Sign this role again.")
@_JSON
def publish(repo: Path, keys: Path, refresh: tuple[str, ...], as_json: bool) -> None:
    """Sign a fresh timestamp (and other roles, for a new expiry)."""
    with _told():
        repository = _open(repo, keys)
        repository.publish(refresh=refresh)
    versions = {row.role: row.version for row in repository.status()}
    _print(
        as_json,
        {"repo": str(repo), "versions": versions},
        f"{repo}: timestamp {repository.timestamp.version}",
    )


@command.command()
@_where
@click.argument("role", type=click.Choice(ROLES))
@_JSON
def rotate(repo: Path, keys: Path, role: str, as_json: bool) -> None:
    """Replace the keys of ROLE and publish. Needs enough root keys."""
    with _told():
        repository = _open(repo, keys)
        repository.rotate(role)
        repository.publish()
    version, ids = repository.root.version, list(repository.root.roles[role].keyids)
    _print(
        as_json,
        {"repo": str(repo), "role": role, "root": version, "keyids": ids},
        f"{repo}: root {version} names new keys for {role}",
    )


@command.command()
@_where
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(repo: Path, keys: Path, as_json: bool) -> None:
    """Show roles, expiry and releases."""
    with _told():
        repository = _open(repo, keys)
        rows = repository.status()
    releases = [entry.to_dict() for entry in repository.targets.targets.values()]
    if as_json:
        roles = [
            {
                "role": row.role,
                "version": row.version,
                "expires": row.expires.isoformat(),
                "keys": row.keys,
                "threshold": row.threshold,
            }
            for row in rows
        ]
        click.echo(json.dumps({"roles": roles, "releases": releases}))
        return
    table = Table("role", "version", "signed by", "expires", "left")
    for row in rows:
        style = "red" if row.left < timedelta(0) else "yellow" if row.left < _SOON else ""
        table.add_row(
            row.role,
            str(row.version),
            f"{row.threshold} of {row.keys}",
            row.expires.strftime("%Y-%m-%d %H:%M"),
            f"{row.left.days} days" if row.left > timedelta(0) else "expired",
            style=style,
        )
    names = ("board", "index", "version", "attempt", "cohort", "abort")
    second = Table(*names, "bytes")
    for entry in releases:
        custom = entry.get("custom", {})
        second.add_row(*(str(custom.get(name, "")) for name in names), str(entry["length"]))
    console = Console()
    console.print(table)
    console.print(second)
