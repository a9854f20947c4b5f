set(IDF_TARGET esp32c3)

# MicroPython's own, then what all our ESP32 boards have, then what the build makes from board.toml:
# the last one counts. No Bluetooth: boards/sdkconfig.ble is not among them.
set(SDKCONFIG_DEFAULTS
    boards/sdkconfig.base
    ${MICROPY_BOARD_DIR}/sdkconfig.tidemark
    ${MICROPY_BOARD_DIR}/sdkconfig.board
    ${MICROPY_BOARD_DIR}/sdkconfig.tidemark_board
)
