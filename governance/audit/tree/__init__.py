"""The Merkle tree: hashes, proofs, and the tiles that are published."""
