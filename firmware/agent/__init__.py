# The application image: what an update replaces. It may import the base, never the other way round.
