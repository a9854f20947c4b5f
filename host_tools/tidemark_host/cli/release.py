"""`tidemark release`: keys, signing and publishing of application releases."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import rich_click
from rich.console import Console
from rich.table import Table

from tidemark_host.release import (
    ROLES,
    KeyStore,
    ReleaseError,
    Repository,
    app_path,
    staging,
)
from tidemark_host.release.calendar import icalendar
from tidemark_host.toolchain_build import REPO

PASSPHRASE = "TIDEMARK_KEY_PASSPHRASE"
_SOON = timedelta(days=3)
_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
)


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


def _how(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of verbs that publish."""
    function = click.option(
        "--dry-run", is_flag=True, help="Do everything but write; say which files would change."
    )(function)
    return click.option(
        "--stage", is_flag=True, help="Leave it to be signed further by other key holders."
    )(function)


def _print(as_json: bool, result: dict[str, Any], *lines: str) -> None:
    """Print one JSON object, or text for people."""
    for line in [json.dumps(result)] if as_json else lines:
        click.echo(line)


def _check_board(name: str) -> None:
    """Refuse a name that no board has: a release for it would reach nobody."""
    known = sorted(path.parent.name for path in REPO.glob("boards/*/board.toml"))
    if name not in known:
        raise ReleaseError(
            "board",
            f"there is no boards/{name}/board.toml",
            f"--board with one of {', '.join(known)}; --force for a board defined elsewhere",
        )


def _open(repo: Path, keys: Path, dry_run: bool = False) -> Repository:
    return Repository.open(repo, KeyStore(keys, os.environ.get(PASSPHRASE), dry=dry_run))


def _finish(
    repository: Repository, stage: bool, dry_run: bool, refresh: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Publish, stage, or see what publishing would write; return that for `--json` and people."""
    if stage and dry_run:
        raise ReleaseError("staged", "--stage or --dry-run, not both")
    if stage:
        rows = repository.stage(refresh=refresh)
        staged = [dataclasses.asdict(row) for row in rows]
        return {"published": False, "staged": staged}, _progress(rows)
    files = [str(path) for path in repository.publish(refresh=refresh, dry_run=dry_run)]
    if dry_run:
        return {"published": False, "files": files}, [f"would write {name}" for name in files]
    return {"published": True}, []


def _progress(rows: list[staging.Progress]) -> list[str]:
    """Return how far staged roles are, and what comes next, in lines."""
    lines = [
        f"staged: {row.role} {row.version}: {row.signed} of {row.threshold} signatures"
        for row in rows
    ]
    if rows:
        ready = all(row.done for row in rows)
        lines.append(f"Next: tidemark release {'publish' if ready else 'sign, with another key'}")
    return lines


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
@click.option("--force", is_flag=True, help="Accept a board that boards/ does not have.")
@_how
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
    force: bool,
    stage: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add IMAGE as a release and publish it."""
    with _told():
        if not force:
            _check_board(board)
        repository = _open(repo, keys, dry_run)
        number = repository.add(
            image,
            board=board,
            version=version,
            index=index,
            attempt=attempt,
            min_runtime=min_runtime,
            cohort=cohort,
        )
        result, lines = _finish(repository, stage, dry_run)
    done = "staged" if stage else "checked" if dry_run else "published"
    said = f"{board}: release {number} ({version}) {done}"
    _print(as_json, {"board": board, "index": number, "version": version, **result}, *lines, said)


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
@_how
@click.option("--refresh", type=click.Choice(ROLES), multiple=True, help="Sign this role again.")
@_JSON
def publish(
    repo: Path,
    keys: Path,
    stage: bool,
    dry_run: bool,
    refresh: tuple[str, ...],
    as_json: bool,
) -> None:
    """Sign a fresh timestamp (and other roles, for a new expiry); take what is staged."""
    with _told():
        repository = _open(repo, keys, dry_run)
        result, lines = _finish(repository, stage, dry_run, refresh)
    if result["published"]:
        lines = [f"{repo}: timestamp {repository.timestamp.version}"]
    versions = {row.role: row.version for row in repository.status()}
    _print(as_json, {"repo": str(repo), "versions": versions, **result}, *lines)


@command.command()
@_where
@click.option("--discard", is_flag=True, help="Forget what is staged instead.")
@_JSON
def sign(repo: Path, keys: Path, discard: bool, as_json: bool) -> None:
    """Sign what `--stage` left for other key holders, with the keys that are here."""
    with _told():
        repository = _open(repo, keys)
        if discard:
            staging.discard(repo)
            _print(as_json, {"staged": []}, f"{repo}: nothing is staged any more")
            return
        rows = repository.sign_staged()
    _print(as_json, {"staged": [dataclasses.asdict(row) for row in rows]}, *_progress(rows))


@command.command("add-key")
@_where
@_how
@click.argument("role", type=click.Choice(ROLES))
@click.option("--threshold", type=int, help="How many keys of the role must sign from now on.")
@click.option(
    "--public",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Public key (PEM, or 64 hex digits) of a command or token.",
)
@click.option("--command", "words", help="Program that signs: bytes on stdin, hex on stdout.")
@click.option("--hsm", "uri", help="PKCS #11 key as securesystemslib names it: hsm:2?label=fleet")
@_JSON
def add_key(
    repo: Path,
    keys: Path,
    stage: bool,
    dry_run: bool,
    role: str,
    threshold: int | None,
    public: Path | None,
    words: str | None,
    uri: str | None,
    as_json: bool,
) -> None:
    """Let one more key sign for ROLE: a fresh file, or a command or token of the owner's.

    Publishes a new root, so enough root keys must be here; else see --stage.
    """
    with _told():
        if bool(words) + bool(uri) > 1 or bool(public) != bool(words or uri):
            raise ReleaseError("public-key", "--command or --hsm, each with --public")
        repository = _open(repo, keys, dry_run)
        if public:
            command = shlex.split(words or "")
            signer = repository.keys.add_signer(
                role, public.read_text(), command=command, uri=uri or ""
            )
        else:
            signer = repository.keys.add(role)
        repository.add_key(role, signer, threshold)
        entry = repository.root.roles[role]
        said = f"{role}: {entry.threshold} of {len(entry.keyids)} keys sign"
        names = {"role": role, "threshold": entry.threshold, "keyids": list(entry.keyids)}
        result, lines = _finish(repository, stage, dry_run)
    _print(as_json, {**names, **result}, *lines, said)


@command.command()
@_where
@_how
@click.argument("role", type=click.Choice(ROLES))
@_JSON
def rotate(repo: Path, keys: Path, stage: bool, dry_run: bool, role: str, as_json: bool) -> None:
    """Replace the keys of ROLE and publish. Needs enough root keys."""
    with _told():
        repository = _open(repo, keys, dry_run)
        repository.rotate(role)
        result, lines = _finish(repository, stage, dry_run)
    version, ids = repository.root.version, list(repository.root.roles[role].keyids)
    if result["published"]:
        lines = [f"{repo}: root {version} names new keys for {role}"]
    names = {"repo": str(repo), "role": role, "root": version, "keyids": ids}
    _print(as_json, {**names, **result}, *lines)


@command.command()
@_where
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--ics",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the days on which to sign as an iCalendar file.",
)
def status(repo: Path, keys: Path, as_json: bool, ics: Path | None) -> None:
    """Show roles, expiry, what waits for signatures, and releases."""
    with _told():
        repository = _open(repo, keys)
        rows = repository.status()
        waiting = repository.staged()
    due = {row.role: row for row in repository.calendar()}
    if ics:
        ics.write_text(icalendar(due.values(), repo.absolute().name), newline="")
    releases = [entry.to_dict() for entry in repository.targets.targets.values()]
    if as_json:
        roles = [
            {
                "role": row.role,
                "version": row.version,
                "expires": row.expires.isoformat(),
                "renew": due[row.role].renew.isoformat(),
                "keys": row.keys,
                "threshold": row.threshold,
            }
            for row in rows
        ]
        staged = [dataclasses.asdict(one) for one in waiting]
        click.echo(json.dumps({"roles": roles, "releases": releases, "staged": staged}))
        return
    table = Table("role", "version", "signed by", "sign again by", "expires", "left")
    for row in rows:
        style = "red" if row.left < timedelta(0) else "yellow" if row.left < _SOON else ""
        table.add_row(
            row.role,
            str(row.version),
            f"{row.threshold} of {row.keys}",
            due[row.role].renew.strftime("%Y-%m-%d"),
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
    for line in _progress(waiting):
        click.echo(line)
