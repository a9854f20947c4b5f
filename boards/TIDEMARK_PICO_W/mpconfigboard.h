// A Raspberry Pi Pico W under Tidemark: WiFi by the CYW43439 on PIO, no Bluetooth.
#define MICROPY_PY_NETWORK (1)
#define MICROPY_PY_NETWORK_HOSTNAME_DEFAULT "tidemark"

#define CYW43_USE_SPI (1)
#define CYW43_LWIP (1)
#define CYW43_GPIO (1)
#define CYW43_SPI_PIO (1)

// Pins of the radio chip, the LED among them; those in use must survive a soft reset.
#define MICROPY_HW_PIN_EXT_COUNT CYW43_WL_GPIO_COUNT
int mp_hal_is_pin_reserved(int n);
#define MICROPY_HW_PIN_RESERVED(i) mp_hal_is_pin_reserved(i)

// Board name and flash map, which the build makes from board.toml.
#include "tidemark_board.h"
