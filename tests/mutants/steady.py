"""pytest plugin for runs on mutants: hypothesis repeats itself and keeps no examples."""

from hypothesis import settings

settings.register_profile("mutants", derandomize=True, database=None)
settings.load_profile("mutants")
