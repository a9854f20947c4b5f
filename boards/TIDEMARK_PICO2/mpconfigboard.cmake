set(PICO_BOARD "pico2")
set(PICO_PLATFORM "rp2350")

# The freezer aligns native functions to 2 bytes; what they load relative to the pc needs 4.
set_source_files_properties(${CMAKE_BINARY_DIR}/frozen_content.c PROPERTIES
    COMPILE_OPTIONS "-Daligned(bytes)=aligned(4)")
