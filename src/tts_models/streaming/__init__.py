"""State of causal and look-ahead layers, schedules of chunks, and the byte form of a stream."""
