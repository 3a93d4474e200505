"""What the integration tests and the benches stand on: real servers, our binaries, readers of
topics, a client of the gateway."""
