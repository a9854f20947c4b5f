"""What ESP-IDF's bootloader does with an ESP32's flash: partition table, otadata, images."""
