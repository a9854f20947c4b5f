import sys

# First of all, and again after each soft reset: no file may shadow a module of the base.
sys.path[:] = [".frozen"]

from tidemark import stage0  # noqa: E402

stage0.boot()
