"""The benchmark: both modes, the raw relay that is their limit, and peers, under the same load."""
