"""The crash after the effect, played with every peer on one provider: `python -m benchmarks.peers`, docs/peers.md."""
