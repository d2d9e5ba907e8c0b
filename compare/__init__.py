"""The comparison: the same orders through the same services twice, once per wiring, side by side."""
