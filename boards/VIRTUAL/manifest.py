# What the virtual board's runtime has frozen: asyncio, as every official port, and the base.
include("$(MPY_DIR)/extmod/asyncio")
include("../../manifest.py")
