import sys

sys.path[:] = [".frozen"]
