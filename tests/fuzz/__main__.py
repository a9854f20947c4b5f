"""`make fuzz`: search each target with atheris for a bounded time, and print what came of it."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from tests.conftest import REPO
from tests.fuzz.target import Finding, Target
from tests.fuzz.targets import BY_NAME, TARGETS

WORK = REPO / "build" / "fuzz"
SECONDS = 60
# Beyond its time: start, the corpus that is there, and one input that takes long.
_GRACE_S = 180
_INPUT_S = 25
_RSS_MB = 2048
_SHRINK_RUNS = 3000
_PROGRESS = re.compile(r"#(\d+)\s.* cov: (\d+) ft: (\d+) corp: (\d+)/")


@dataclass
class Outcome:
    """One target's search. `edges`: of our code, covered; `replay`: of a finding, "" for none."""

    target: str
    seconds: int
    executions: int = 0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    found: str = ""
    replay: str = ""


def search(target: Target, seconds: int, say: Callable[[str], None]) -> Outcome:
    """Search one target; the corpus of former runs is kept and gone on with."""
    folder = WORK / target.name
    corpus, findings, scratch = (folder / name for name in ("corpus", "findings", "tmp"))
    shutil.rmtree(scratch, ignore_errors=True)
    for path in (corpus, findings, scratch):
        path.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.corpus):
        (corpus / f"seed-{number}").write_bytes(seed)
    before = {path.name for path in findings.iterdir()}
    options = {
        "max_total_time": seconds,
        "max_len": target.limit,
        "timeout": _INPUT_S,
        "rss_limit_mb": _RSS_MB,
        "artifact_prefix": f"{findings}/",
        "print_final_stats": 1,
    }
    command = [sys.executable, "-m", "tests.fuzz.worker", target.name]
    command += [f"-{name}={value}" for name, value in options.items()]
    outcome = Outcome(target.name, seconds)
    environment = os.environ | {"TMPDIR": str(scratch)}
    log = folder / "log"
    with (
        log.open("w") as written,
        subprocess.Popen(
            [*command, str(corpus)],
            cwd=REPO,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        assert process.stderr
        reading = pool.submit(_follow, process.stderr, written.write, outcome, say)
        try:
            status = process.wait(seconds + _GRACE_S)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            process.kill()
            reading.result()
    shutil.rmtree(scratch, ignore_errors=True)
    # Inputs that are merely slow are left there, too.
    kinds = ("crash-", "timeout-", "oom-")
    fresh = [p for p in findings.iterdir() if p.name not in before and p.name.startswith(kinds)]
    if fresh:
        data, outcome.found = shrink(target, fresh[0].read_bytes())
        outcome.replay = f"make fuzz REPLAY={target.name}:{data.hex()}"
    elif status:
        outcome.found = f"the search ended with status {status}: {log.relative_to(REPO)}"
    return outcome


def _follow(
    lines: Iterator[str],
    write: Callable[[str], object],
    outcome: Outcome,
    say: Callable[[str], None],
) -> None:
    """Read libFuzzer's words to their end."""
    said = 0
    for line in lines:
        write(line)
        if match := _PROGRESS.match(line):
            numbers = (int(part) for part in match.groups())
            outcome.executions, outcome.edges, outcome.features, outcome.corpus = numbers
            if outcome.executions >= 2 * said:
                said = max(outcome.executions, 1000)
                say(
                    f"{outcome.target}: {outcome.executions:,} executions, {outcome.edges:,} edges"
                )
        elif match := re.match(r"stat::number_of_executed_units:\s+(\d+)", line):
            outcome.executions = int(match[1])


def fault(target: Target, data: bytes) -> str:
    """Return what is wrong with an input, "" for nothing."""
    try:
        target.run(data)
    except Finding as finding:
        return str(finding)
    return ""


def _kind(text: str) -> str:
    """The error's type: its place may move while the input gets shorter."""
    return text.partition(" ")[0]


def shrink(target: Target, data: bytes) -> tuple[bytes, str]:
    """Return a shorter input with a fault of the same kind, and the fault."""
    text = fault(target, data)
    if not text:
        return (
            data,
            "not again outside the search: an input that takes too long, or too much memory",
        )
    runs = 0
    size = len(data) // 2
    while size and runs < _SHRINK_RUNS:
        at = 0
        while at < len(data) and runs < _SHRINK_RUNS:
            shorter = data[:at] + data[at + size :]
            runs += 1
            said = fault(target, shorter)
            if said and _kind(said) == _kind(text):
                data, text = shorter, said
            else:
                at += size
        size //= 2
    return data, text


def replay(text: str) -> int:
    """Run one input; 0 if it is no finding (any more)."""
    name, _, digits = text.partition(":")
    if name not in BY_NAME:
        print(f"fuzz: no target {name}; there are: {', '.join(BY_NAME)}", file=sys.stderr)
        return 1
    try:
        data = bytes.fromhex(digits)
    except ValueError:
        print("fuzz: REPLAY is <target>:<hex>", file=sys.stderr)
        return 1
    try:
        print(f"{name}: {BY_NAME[name].run(data, count=True)}")
    except Finding:
        traceback.print_exc()
        return 1
    return 0


def main(argv: list[str]) -> int:
    """Search the targets named, all by default; exit 1 for a finding."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all by default")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each target")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--replay", metavar="TARGET:HEX", help="run one input")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args(argv)
    if options.replay:
        return replay(options.replay)
    if unknown := [name for name in options.targets if name not in BY_NAME]:
        print(
            f"fuzz: no target {', '.join(unknown)}; there are: {', '.join(BY_NAME)}",
            file=sys.stderr,
        )
        return 1
    wanted = [
        target for target in TARGETS if not options.targets or target.name in options.targets
    ]
    shown = sys.stderr.isatty()

    def say(text: str) -> None:
        if shown:
            print(f"  {text}", file=sys.stderr, flush=True)

    outcomes: list[Outcome] = []
    try:
        with ThreadPoolExecutor(max(1, options.jobs)) as pool:
            for outcome in pool.map(lambda one: search(one, options.seconds, say), wanted):
                outcomes.append(outcome)
                if not options.json:
                    print(_line(outcome), flush=True)
    except KeyboardInterrupt:
        return 2
    found = [outcome for outcome in outcomes if outcome.found]
    total = sum(outcome.executions for outcome in outcomes)
    if options.json:
        print(json.dumps({"format": 1, "outcomes": [asdict(one) for one in outcomes]}, indent=1))
    else:
        print(f"{len(outcomes)} targets, {total:,} executions: {len(found)} findings")
    return 1 if found else 0


def _line(outcome: Outcome) -> str:
    text = (
        f"{'FAIL' if outcome.found else 'ok  '} {outcome.target:16} {outcome.executions:>10,} "
        f"executions in {outcome.seconds} s, {outcome.edges:>6,} edges, corpus {outcome.corpus:,}"
    )
    if outcome.found:
        text += f"\n     {outcome.found}"
    return f"{text}\n     {outcome.replay}" if outcome.replay else text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
