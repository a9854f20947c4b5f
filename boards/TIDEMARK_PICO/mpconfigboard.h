// A plain Raspberry Pi Pico under Tidemark. The console is on USB and on uart0 (GP0, GP1).
#define MICROPY_HW_BOARD_NAME "Tidemark Pico"
#define MICROPY_HW_ENABLE_UART_REPL (1)

// Everything above the runtime's region (board.toml) belongs to Tidemark: rp2.Flash(start=0) is there.
#define MICROPY_HW_FLASH_STORAGE_BYTES (1408 * 1024)
// VfsRom exists only where this is not 0. The sector is the last of the runtime's region, and stays blank.
#define MICROPY_HW_ROMFS_BYTES (4096)
