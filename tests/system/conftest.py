"""The system suite: what every board must do, whatever it is made of.

Tests take the bench's fixtures (`tidemark_host.hil.plugin`) and use a board only through
`tidemark_host.boards.base.Board`. How a kind of board keeps its own promises is tested in
tests/boards.
"""
