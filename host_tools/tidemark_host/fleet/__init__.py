"""Devices at the level of the protocol, in plain host Python: for tests and for scale."""
