// A plain Raspberry Pi Pico 2 under Tidemark. The console is on USB and on uart0 (GP0, GP1).
#define MICROPY_HW_ENABLE_UART_REPL (1)

// Board name and flash map, which the build makes from board.toml.
#include "tidemark_board.h"
