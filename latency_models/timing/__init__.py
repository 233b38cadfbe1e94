"""From runs under a clock to a latency with an interval and warnings; start reading at `meter.LatencyMeter`."""
