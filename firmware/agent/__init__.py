# The application image: what an update replaces. It imports the base, never the other way round.
