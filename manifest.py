# The trusted base, frozen into every board's runtime. The application is not here: it lives in
# a slot. FIRMWARE, GENERATED and UMQTT are folders that the build hands in (toolchain_build.py).

module("_boot.py", base_path="$(FIRMWARE)")
module("main.py", base_path="$(FIRMWARE)")
package("tidemark", base_path="$(FIRMWARE)")

# boot.py is empty, tidemark_board.py has the constants of the board's board.toml.
module("boot.py", base_path="$(GENERATED)")
module("tidemark_board.py", base_path="$(GENERATED)")

# Machine code for the processor, where there is some (tidemark_host/cryptogen).
freeze_mpy("$(GENERATED)/native")

package("umqtt", base_path="$(UMQTT)")
