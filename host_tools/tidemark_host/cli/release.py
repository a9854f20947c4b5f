"""`tidemark release`: keys, signing and publishing of application releases."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import rich_click
from rich.console import Console
from rich.table import Table

from tidemark_host.cli._release_options import (
    PASSPHRASE,
    as_json,
    dry,
    find_board,
    finish,
    for_kind,
    for_role,
    how,
    open_repository,
    progress,
    say,
    told,
    where,
)
from tidemark_host.release import (
    ROLES,
    KeyStore,
    ReleaseError,
    Repository,
    delegations,
    signers,
    staging,
)
from tidemark_host.release.calendar import icalendar
from tidemark_host.release.model import APP

_SOON = timedelta(days=3)


@click.group(cls=rich_click.RichGroup, name="release")
def command() -> None:
    """Make, sign and publish releases in a TUF repository of plain files."""


@command.command()
@where
@click.option("--root-keys", default=1, show_default=True, help="How many root keys to make.")
@click.option("--root-threshold", default=1, show_default=True, help="How many of them must sign.")
@click.option("--encrypt", is_flag=True, help=f"Encrypt the keys; asks, or takes {PASSPHRASE}.")
@click.option("--force", is_flag=True, help="Accept a key folder that git would take.")
@dry
@as_json
def init(
    repo: Path,
    keys: Path,
    root_keys: int,
    root_threshold: int,
    encrypt: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make fresh keys and an empty repository."""
    passphrase = os.environ.get(PASSPHRASE)
    if encrypt and not passphrase and not dry_run:
        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True)
    with told():
        if not 1 <= root_threshold <= root_keys:
            raise ReleaseError(
                "root-threshold",
                f"{root_threshold} of {root_keys} keys can't sign",
                f"--root-keys {max(root_threshold, 1)} or more",
            )
        if any((repo / "metadata").glob("*.json")):  # before any key is made
            raise ReleaseError(
                "repository-exists", f"{repo} holds metadata already", "--repo with a new folder"
            )
        store = KeyStore.create(
            keys, root_keys=root_keys, passphrase=passphrase, force=force, dry_run=dry_run
        )
        made = Repository.create(repo, store, root_threshold=root_threshold, dry_run=dry_run)
    result = {"repo": str(repo), "keys": str(keys), "roles": list(ROLES), "version": 1}
    if dry_run:
        files = [str(path) for path in [*store.fresh, *made.would_write]]
        lines = [f"would write {name}" for name in files]
        say(as_json, {**result, "published": False, "files": files}, *lines)
        return
    say(
        as_json,
        {**result, "published": True},
        f"{repo}: published version 1 of {', '.join(ROLES)}",
        f"{keys}: move root-*.pem to an offline medium; targets-*.pem belongs to who signs",
    )


@command.command()
@click.argument("image", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@where
@click.option("--board", required=True, help="Board the image is for.")
@click.option("--version", required=True, help="Version for people, at most 24 characters.")
@click.option("--index", type=int, help="Release index; default: the next. It only rises.")
@click.option("--attempt", default=0, show_default=True, help="Raise it to lift a rejection.")
@click.option("--min-runtime", type=int, help="Least runtime index; default: any.")
@click.option(
    "--runtime",
    "runtime_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="ESP32: publish this runtime too (build/BOARD/runtime.bin), which IMAGE needs.",
)
@click.option("--runtime-index", type=int, help="Of --runtime; default: what it was built with.")
@click.option("--cohort", default=100, show_default=True, help="Percentage of the boards.")
@for_role
@click.option("--force", is_flag=True, help="Accept a board that boards/ does not have.")
@how
@as_json
def add(
    image: Path,
    repo: Path,
    keys: Path,
    board: str,
    version: str,
    index: int | None,
    attempt: int,
    min_runtime: int | None,
    runtime_file: Path | None,
    runtime_index: int | None,
    cohort: int,
    role: str,
    force: bool,
    stage: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add IMAGE as a release and publish it, alone or with the runtime that it needs."""
    if runtime_index is not None and runtime_file is None:
        raise click.UsageError("--runtime-index goes with --runtime")
    if min_runtime is not None and runtime_file is not None:
        raise click.UsageError("--runtime or --min-runtime: the former says both")
    with told():
        definition = find_board(board, force and runtime_file is None)
        repository = open_repository(repo, keys)
        if runtime_file is not None and definition is not None:
            min_runtime = repository.add_runtime(
                runtime_file, board=definition, version=version, index=runtime_index
            )
        number = repository.add(
            image,
            board=board,
            version=version,
            role=role,
            index=index,
            attempt=attempt,
            min_runtime=min_runtime or 0,
            cohort=cohort,
            cabled=definition is not None and definition.esp32 is None,
        )
        result, lines = finish(repository, stage, dry_run)
    done = "staged" if stage else "checked" if dry_run else "published"
    said = f"{board}: release {number} ({version}) {done}"
    if role != "targets":
        said += f" for the cohort {role}"
    if min_runtime:
        said += f"; it needs runtime {min_runtime}"
    names = {"board": board, "index": number, "version": version, "role": role}
    names["min_runtime"] = min_runtime or 0
    say(as_json, {**names, **result}, *lines, said)


@command.command()
@where
@click.option("--board", required=True)
@click.option("--index", type=int, required=True)
@click.option("--attempt", type=int, help="Lift a rejection: above the former attempt.")
@click.option("--cohort", type=int, help="Percentage of the boards that is offered it.")
@click.option("--abort/--no-abort", default=None, help="Stop staging and trials of it.")
@for_role
@for_kind
@how
@as_json
def change(
    repo: Path,
    keys: Path,
    board: str,
    index: int,
    attempt: int | None,
    cohort: int | None,
    abort: bool | None,
    role: str,
    kind: str,
    stage: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Widen the cohort of a release, abort it, or lift its rejection; publishes.

    A runtime has an index of its own: --kind runtime.
    """
    with told():
        repository = open_repository(repo, keys)
        if attempt is None and cohort is None and abort is None:
            raise ReleaseError("change", "nothing to change", "--attempt, --cohort or --abort")
        repository.change(
            board, index, role=role, kind=kind, attempt=attempt, cohort=cohort, abort=abort
        )
        custom = dict(repository.entry(board, index, role, kind).custom)
        result, lines = finish(repository, stage, dry_run)
    what = "release" if kind == APP else kind
    said = [f"{board}: {what} {index} changed"] if result["published"] else []
    say(as_json, {**custom, **result}, *lines, *said)


@command.command()
@where
@how
@click.option("--refresh", metavar="ROLE", multiple=True, help="Sign this role again.")
@as_json
def publish(
    repo: Path,
    keys: Path,
    stage: bool,
    dry_run: bool,
    refresh: tuple[str, ...],
    as_json: bool,
) -> None:
    """Sign a fresh timestamp (and other roles, for a new expiry); take what is staged."""
    with told():
        repository = open_repository(repo, keys)
        result, lines = finish(repository, stage, dry_run, refresh)
    if result["published"]:
        names = ", ".join(Path(name).name for name in result["files"])
        lines = [f"{repo}: published {names}"]
    versions = {row.role: row.version for row in repository.status()}
    say(as_json, {"repo": str(repo), "versions": versions, **result}, *lines)


@command.command()
@where
@click.option("--discard", is_flag=True, help="Forget what is staged instead.")
@dry
@as_json
def sign(repo: Path, keys: Path, discard: bool, dry_run: bool, as_json: bool) -> None:
    """Sign what `--stage` left for other key holders, with the keys that are here."""
    with told():
        if discard:
            files = staging.discard(repo, dry_run=dry_run)
            would = [f"would remove {path}" for path in files]
            said = would if dry_run else [f"{repo}: nothing is staged any more"]
            say(as_json, {"discarded": [str(path) for path in files]}, *said)
            return
        repository = open_repository(repo, keys)
        before = {row.role: row.signed for row in repository.staged()}
        rows = repository.sign_staged(dry_run=dry_run)
        if not any(row.done or row.signed > before[row.role] for row in rows):
            raise ReleaseError(
                "no-key",
                f"no key in {keys} adds a signature",
                "--keys with the folder of another key holder",
            )
    said = ["would sign:"] if dry_run else []
    say(as_json, {"staged": [dataclasses.asdict(row) for row in rows]}, *said, *progress(rows))


@command.command("add-key")
@where
@how
@click.argument("role")
@click.option("--threshold", type=int, help="How many keys of the role must sign from now on.")
@click.option(
    "--public",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Public key (PEM, or 64 hex digits) of another holder, or of a command or token.",
)
@click.option("--command", "words", help="Program that signs: bytes on stdin, hex on stdout.")
@click.option("--hsm", "uri", help="PKCS #11 key as securesystemslib names it: hsm:2?label=fleet")
@as_json
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
    """Let one more key sign for ROLE: a fresh file, a command or token of the owner's, or a key
    that another holder keeps (--public alone).

    Root names the keys of the top-level roles, targets those of a cohort's role: enough of their
    keys must be here; else see --stage.
    """
    with told():
        if (words and uri) or (words and not public):
            raise ReleaseError(
                "public-key", "a program signs for one key", "--command or --hsm; --public PEM"
            )
        repository = open_repository(repo, keys)
        repository.role(role)
        if words or uri:
            text = public.read_text() if public else signers.token_key(uri or "")
            signer = repository.keys.add_signer(
                role, text, command=shlex.split(words or ""), uri=uri or ""
            )
            key = signer.public_key
        elif public:
            key = signers.public_key(public.read_text())
        else:
            key = repository.keys.add(role).public_key
        repository.add_key(role, key, threshold)
        entry = repository.role(role)
        said = f"{role}: {entry.threshold} of {len(entry.keyids)} keys sign"
        names = {"role": role, "threshold": entry.threshold, "keyids": list(entry.keyids)}
        result, lines = finish(repository, stage, dry_run)
    say(as_json, {**names, **result}, *lines, said)


@command.command()
@where
@how
@click.argument("role")
@click.option("--drop", metavar="KEYID", help="Only take this key out, without a new one.")
@click.option("--threshold", type=int, help="With --drop: how many of the rest must sign.")
@as_json
def rotate(
    repo: Path,
    keys: Path,
    stage: bool,
    dry_run: bool,
    role: str,
    drop: str | None,
    threshold: int | None,
    as_json: bool,
) -> None:
    """Replace the keys of ROLE by fresh ones and publish, or --drop a lost one.

    Needs enough root keys (of targets, for a cohort's role); else see --stage.
    """
    with told():
        repository = open_repository(repo, keys)
        if drop is not None:
            repository.drop_key(role, drop, threshold)
        elif threshold is not None:
            raise ReleaseError("root-threshold", "--threshold goes with --drop", "add-key")
        else:
            repository.rotate(role)
        result, lines = finish(repository, stage, dry_run)
    ids = list(repository.role(role).keyids)
    version = repository.root.version
    if result["published"]:
        who = f"root {version}" if role in ROLES else f"targets {repository.targets.version}"
        lines = [f"{repo}: {who} names {'the keys' if drop else 'new keys'} for {role}"]
    names = {"repo": str(repo), "role": role, "root": version, "keyids": ids}
    say(as_json, {**names, **result}, *lines)


@command.command()
@where
@how
@click.argument("name")
@click.option(
    "--public",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="Public key of a member of the team; default: one fresh key file.",
)
@click.option("--threshold", default=1, show_default=True, help="How many of them must sign.")
@click.option(
    "--path",
    "patterns",
    multiple=True,
    help="Target paths it may speak for; default: NAME/*/app-*.romfs, all boards of the cohort.",
)
@click.option("--revoke", is_flag=True, help="Take its say back instead.")
@as_json
def delegate(
    repo: Path,
    keys: Path,
    stage: bool,
    dry_run: bool,
    name: str,
    public: tuple[Path, ...],
    threshold: int,
    patterns: tuple[str, ...],
    revoke: bool,
    as_json: bool,
) -> None:
    """Let a team publish for the boards of the cohort NAME, and for no other, by keys of its own.

    Boards are put in a cohort when they are provisioned. Needs enough keys of targets.
    """
    with told():
        repository = open_repository(repo, keys)
        if revoke:
            repository.revoke(name)
            result, lines = finish(repository, stage, dry_run)
            say(as_json, {"role": name, "revoked": True, **result}, *lines, f"{name}: taken back")
            return
        delegations.check_name(name)
        found = [signers.public_key(path.read_text()) for path in public]
        repository.delegate(
            name, found or [repository.keys.add(name).public_key], patterns, threshold
        )
        ids = list(repository.role(name).keyids)
        result, lines = finish(repository, stage, dry_run)
    said = f"{name}: {threshold} of {len(ids)} keys sign for its cohort"
    then = f"Next: tidemark release add IMAGE --role {name}, where its key is"
    names = {"role": name, "threshold": threshold, "keyids": ids}
    say(as_json, {**names, **result}, *lines, said, *([then] if result["published"] else []))


@command.command()
@where
@as_json
@click.option(
    "--ics",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the days on which to sign as an iCalendar file.",
)
def status(repo: Path, keys: Path, as_json: bool, ics: Path | None) -> None:
    """Show roles, expiry, what waits for signatures, and releases."""
    with told():
        repository = open_repository(repo, keys)
        rows = repository.status()
        waiting = repository.staged()
    due = {row.role: row for row in repository.calendar()}
    if ics:
        ics.write_text(icalendar(due.values(), repo.absolute().name), newline="")
    releases: list[dict[str, Any]] = [
        {"role": role, **entry.to_dict()}
        for role, listing in repository.listings.items()
        for entry in listing.targets.values()
    ]
    silent = [name for name in repository.roles if name not in due]
    if as_json:
        roles = [
            {
                "role": row.role,
                "version": row.version,
                "expires": row.expires.isoformat(),
                "renew": due[row.role].renew.isoformat(),
                "keys": row.keys,
                "keyids": list(repository.role(row.role).keyids),
                "threshold": row.threshold,
            }
            for row in rows
        ]
        staged = [dataclasses.asdict(one) for one in waiting]
        said = {"roles": roles, "releases": releases, "staged": staged, "silent": silent}
        click.echo(json.dumps(said))
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
    names = ("board", "release", "version", "attempt", "cohort", "abort")
    second = Table("role", *names, "bytes")
    for entry in releases:
        custom = entry.get("custom", {})
        shown = {**custom, "release": f"{custom.get('kind', '')} {custom.get('index', '')}"}
        if custom.get("min_runtime"):
            shown["release"] += f", on runtime {custom['min_runtime']}"
        second.add_row(
            entry["role"], *(str(shown.get(name, "")) for name in names), str(entry["length"])
        )
    console = Console()
    console.print(table)
    console.print(second)
    for name in silent:
        click.echo(f"{name}: has published nothing yet")
    for line in progress(waiting):
        click.echo(line)
