"""`python -m tidemark_host`: the `tidemark` command, for processes that start themselves again."""

from tidemark_host.cli import main

main()
