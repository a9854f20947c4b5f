"""The bench: one suite for boards of every kind, and the site that a board needs around it.

`site` has broker, gateway, update mirror and a board; `targets` the kinds of boards, `places`
those on a desk; `plugin` is what pytest loads; `timeline` and `report` what a person reads
afterwards. `images` and `mirror` are applications and mirrors that go wrong on purpose.
"""
