"""What methods measure on a network: statistics, curvature, costs, latency, sums over steps."""
