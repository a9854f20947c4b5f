# asyncio as on every official port, rp2 (its PIO helpers, not the port's _boot.py), and the base.
include("$(MPY_DIR)/extmod/asyncio")
module("rp2.py", base_path="$(PORT_DIR)/modules")
include("../../manifest.py")
module("usocket.py", base_path="modules")
