"""Faults of the network between a client and its broker, from a seed (docs/network-faults.md).

`profiles` says which packet meets which fault, `proxy` does it, `oracle` judges what crossed.
"""
