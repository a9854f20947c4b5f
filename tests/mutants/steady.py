"""pytest plugin for runs on mutants: hypothesis repeats itself, keeps nothing, has no clock."""

from hypothesis import settings

settings.load_profile("ci")
