"""`make model`: checks every model under specs/ exhaustively, and refutes each broken twin.

A model says in its first comment what it holds and how it is run:

    holds: I3 what is checked, after the invariant's name
    run: NAME VALUE=2            one exhaustive search with these macros defined; may be empty
    twin: NAME VALUE=2  words [n == 1]   the same, but the assertion that reads so in part must
                                 fail, by itself: the words say what is broken

A twin is searched without the model's other assertions, so that each is seen to notice something.
Exit status 0 only when every run was searched to its end without an error and every twin fails.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tidemark_host.toolchain_cache import REPO, ToolchainError, run
from tidemark_host.toolchain_spin import spin

SPECS = REPO / "specs"
LIMIT_S = 600
_DEPTH = 1_000_000
_MEMORY_MB = 6_000
_DEFINE = re.compile(r"[A-Z][A-Z0-9_]*(=\d+)?$")
_ASSERT = re.compile(r"\bassert(?=\()")


class ModelError(Exception):
    """A model that cannot be read or built."""


@dataclass(frozen=True)
class Job:
    """One search. `broken`: what a twin has removed, "" for the model itself. `fails`: a part of
    the assertion that must fail then, as the model spells it."""

    model: str
    defines: tuple[str, ...]
    broken: str
    fails: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a search came to. `verdict`: `holds`, `refuted`, or `incomplete` (not to its end)."""

    model: str
    defines: str
    broken: str
    verdict: str
    states: int
    transitions: int
    depth: int
    seconds: float
    assertion: str

    @property
    def is_as_wanted(self) -> bool:
        """Say whether the model holds, or the twin is refuted."""
        return self.verdict == ("refuted" if self.broken else "holds")


def jobs(path: Path) -> list[Job]:
    """Read the runs and twins of a model. Raises ModelError for a comment that has none."""
    head = path.read_text().partition("*/")[0]
    found: list[Job] = []
    for kind, line in re.findall(r"^ +(run|twin):(.*)$", head, re.MULTILINE):
        named = re.search(r" \[(.*\w.*)\]\s*$", line)
        words = line[: named.start() if named else None].split()
        defines: list[str] = []
        while words and _DEFINE.match(words[0]):
            defines.append(words.pop(0))
        fails = named[1] if named else ""
        if (kind == "twin") != bool(words) or bool(words) != bool(fails):
            raise ModelError(
                f"{path.name}: a twin says in words what is broken and, in brackets, which "
                "assertion fails; a run has neither"
            )
        found.append(Job(path.stem, tuple(defines), " ".join(words), fails))
    if not any(job.broken for job in found) or all(job.broken for job in found):
        raise ModelError(f"{path.name}: needs a run and a broken twin")
    return found


def held(path: Path) -> list[str]:
    """Return what a model holds, each text beginning with the invariant's name."""
    head = path.read_text().partition("*/")[0]
    return re.findall(r"^ +holds: (I\d+ .*)$", head, re.MULTILINE)


def assertions(text: str) -> list[tuple[int, int]]:
    """Return where in a model's text its assertions lie: (begin, end) with the parentheses."""
    found: list[tuple[int, int]] = []
    for match in _ASSERT.finditer(text):
        depth, end = 0, match.end()
        while depth or end == match.end():
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        found.append((match.start(), end))
    return found


def only(text: str, fails: str) -> str:
    """Return a model's text without the assertions that do not read as `fails` in part.

    Raises ModelError unless it is one assertion that does, which may stand at several places.
    """
    kept: set[str] = set()
    for begin, end in reversed(assertions(text)):
        found = text[begin:end]
        if fails in found:
            kept.add(found)
        else:
            text = f"{text[:begin]}skip{text[end:]}"
    if len(kept) != 1:
        raise ModelError(f"[{fails}] names {len(kept)} assertions: {', '.join(sorted(kept))}")
    return text


def check(job: Job, checker: Path, specs: Path = SPECS) -> Outcome:
    """Run one search. Raises ModelError or ToolchainError when it cannot be built."""
    with tempfile.TemporaryDirectory(prefix="tidemark-model-") as name:
        folder = Path(name)
        macros = [f"-D{define}" for define in job.defines]
        text = (specs / f"{job.model}.pml").read_text()
        source = folder / f"{job.model}.pml"
        source.write_text(only(text, job.fails) if job.fails else text)
        made = subprocess.run(
            [str(checker), "-a", *macros, str(source)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if made.returncode or not (folder / "pan.c").is_file() or "Error" in made.stdout:
            raise ModelError(f"{job.model} {' '.join(job.defines)}: {made.stdout.strip()}")
        # Safety only, states whole: no hash compaction, so that a finished search is exhaustive.
        options = ("-O1", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={_MEMORY_MB}")
        run(["cc", *options, "-o", folder / "pan", folder / "pan.c"], why=f"compiling {job.model}")
        began = time.monotonic()
        try:
            done = subprocess.run(
                ["./pan", f"-m{_DEPTH}"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
            text = done.stdout
        except subprocess.TimeoutExpired:
            text = ""
        return _outcome(job, text, time.monotonic() - began)


def _outcome(job: Job, text: str, seconds: float) -> Outcome:
    """Read what pan printed."""

    def number(pattern: str) -> int:
        match = re.search(pattern, text)
        return int(match[1]) if match else 0

    failed = re.search(r"^pan:\d+: assertion violated\s+(.*?)\s*(\(at|$)", text, re.MULTILINE)
    errors = number(r"errors: (\d+)")
    cut_short = re.search(r"not completed|max search depth too small|out of memory", text)
    if failed and errors:
        verdict = "refuted"
    elif "State-vector" in text and not errors and not cut_short:
        verdict = "holds"
    else:
        verdict = "incomplete"
    return Outcome(
        job.model,
        " ".join(job.defines),
        job.broken,
        verdict,
        number(r"(\d+) states, stored"),
        number(r"(\d+) transitions"),
        number(r"depth reached (\d+)"),
        round(seconds, 2),
        failed[1] if failed else "",
    )


def outcomes(names: list[str], workers: int = 2) -> Iterator[Outcome]:
    """Check the models called `names`, all of them for none; yield in the order of the files."""
    known = {path.stem: path for path in sorted(SPECS.glob("*.pml"))}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ModelError(f"no model {', '.join(unknown)}; there are: {', '.join(known)}")
    checker = spin()
    work: list[Job] = []
    for name in names or list(known):
        work += jobs(known[name])

    def one(job: Job) -> Outcome:
        return check(job, checker)

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(one, work)


def main(argv: list[str]) -> int:
    """Check and print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="make model", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="*", help="names of models, all by default")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args(argv)
    results: list[Outcome] = []
    try:
        for outcome in outcomes(options.models):
            results.append(outcome)
            if not options.json:
                print(_line(outcome), flush=True)
    except (ModelError, ToolchainError) as error:
        print(f"model: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 2
    wrong = [outcome for outcome in results if not outcome.is_as_wanted]
    models = [outcome for outcome in results if not outcome.broken]
    if options.json:
        rows = [asdict(outcome) | {"as_wanted": outcome.is_as_wanted} for outcome in results]
        print(json.dumps({"format": 1, "outcomes": rows}, indent=1))
    else:
        states = sum(outcome.states for outcome in models)
        print(
            f"{len(models)} searches to their end, {states:,} states, and "
            f"{len(results) - len(models)} broken twins: {len(wrong)} not as wanted"
        )
    return 1 if wrong else 0


def _line(outcome: Outcome) -> str:
    mark = "ok  " if outcome.is_as_wanted else "FAIL"
    what = f"without: {outcome.broken}" if outcome.broken else "the model"
    if outcome.verdict == "refuted" and not outcome.is_as_wanted:
        what += f"; failed: {outcome.assertion}"
    return (
        f"{mark} {outcome.model:9} {outcome.verdict:10} {outcome.states:>10,} states "
        f"{outcome.seconds:6.1f} s  {outcome.defines or '-':42} {what}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
