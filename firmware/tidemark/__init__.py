# Tidemark: the trusted base of the agent, frozen into the runtime (docs/architecture.md).
