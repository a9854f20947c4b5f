"""ESP32: partition table, otadata, bootloader and images, as ESP-IDF has them."""
