"""Host side of Tidemark: the `tidemark` command and everything it is made of."""
