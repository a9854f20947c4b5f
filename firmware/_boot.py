import sys

sys.path[:] = [".frozen"]  # first of all, and again after each soft reset: no file may shadow a module of the base

from tidemark import stage0  # noqa: E402

stage0.boot()
