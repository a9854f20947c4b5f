# asyncio as on every official port, rp2 (its PIO helpers, not the port's _boot.py), and the base.
include("$(MPY_DIR)/extmod/asyncio")
module("rp2.py", base_path="$(PORT_DIR)/modules")
include("../../manifest.py", entry=False)

# Until the port to the RP2040 is there: a REPL with the base to import, and no file system.
module("_boot.py", base_path="modules")
