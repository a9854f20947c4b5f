"""The main job, end to end, on a virtual board: `tidemark demo`.

`steps` is what is done and checked, `show` the table. The site it happens on is the bench's,
`tidemark_host.hil`.
"""
