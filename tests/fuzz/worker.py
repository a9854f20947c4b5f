"""`python -m tests.fuzz.worker TARGET [libFuzzer's options] CORPUS`: one target under atheris.

A process of its own: libFuzzer ends it, and its coverage is of this target alone.
"""

from __future__ import annotations

import random
import sys

import atheris  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["tidemark", "tidemark_host"]):
    import tests.conftest  # noqa: F401  the paths of all that follows
    from tests.fuzz.mutate import SPAN, mutate
    from tests.fuzz.targets import BY_NAME

    # What a parser imports, or makes once, only when it is asked to.
    for seed in BY_NAME[sys.argv[1]].corpus:
        BY_NAME[sys.argv[1]].run(seed)


def main(argv: list[str]) -> None:
    """Search until libFuzzer's limits end it."""
    target = BY_NAME[argv[1]]
    corpus = target.corpus

    def change(data: bytes, size: int, seed: int) -> bytes:
        choice = random.Random(seed)
        if choice.random() < 0.4:
            data = atheris.Mutate(data, size)
        else:
            steps = [
                (choice.randrange(12), choice.randrange(SPAN), choice.randrange(SPAN))
                for _ in range(choice.randint(1, 4))
            ]
            data = mutate(data, steps, corpus, target.words)
        if target.repair and choice.random() < 0.6:
            data = target.repair(data)
        return data[:size]

    def one(data: bytes) -> None:
        target.run(data)

    atheris.Setup([argv[0], *argv[2:]], one, custom_mutator=change)
    atheris.Fuzz()


main(sys.argv)
