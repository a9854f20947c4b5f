// The virtual board's build of MicroPython's unix port: what its "standard" variant has, but for one thing.

#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_EXTRA_FEATURES)

#include "variants/mpconfigvariant_common.h"

// Ctrl-C becomes an exception between bytecodes, as on a board. The default jumps out of whatever C code the signal
// hits, be it the allocator with its lock held.
#undef MICROPY_ASYNC_KBD_INTR
#define MICROPY_ASYNC_KBD_INTR (0)
