# asyncio as on every official port, and the base. None of the port's own modules: its _boot.py
# loops for ever on a damaged filesystem, before any watchdog.
include("$(MPY_DIR)/extmod/asyncio")
include("../../manifest.py")
