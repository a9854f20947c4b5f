"""Benchmarks. Each module of this package but `peers`, `registry` and `report` registers suites.

A suite adds rows to the results it is given; `registry.suite` has an example.
"""
