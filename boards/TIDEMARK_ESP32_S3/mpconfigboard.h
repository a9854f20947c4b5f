// ESP32-S3 under Tidemark: WiFi, no Bluetooth, no ESP-NOW.
#define MICROPY_PY_BLUETOOTH (0)
#define MICROPY_PY_ESPNOW (0)
#define MICROPY_PY_NETWORK_HOSTNAME_DEFAULT "tidemark"

// The console is on USB and on UART 0, for modules with a USB bridge.
#define MICROPY_HW_ENABLE_UART_REPL (1)

// Slots run in place from the partition romfs. Stock images lack it.
#define MICROPY_VFS_ROM (1)

// Board name and flash size, which the build makes from board.toml.
#include "tidemark_board.h"
