"""The main job, end to end, on a virtual board: `tidemark demo`.

`site` holds the parts (board, broker, gateway, repository), `steps` what is done and checked,
`images` the applications that go wrong on purpose, `show` the table.
"""
