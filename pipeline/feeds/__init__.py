"""From wanted channels to running connections: catalogue, plan, feeds."""
