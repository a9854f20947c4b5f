"""The gateway: verifies what devices send, keeps what it accepted, hands it upstream."""
