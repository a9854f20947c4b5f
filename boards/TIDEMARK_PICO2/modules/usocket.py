# umqtt.simple imports it by name, and gets its connections from tidemark.link: a plain Pico has no
# sockets of its own.
