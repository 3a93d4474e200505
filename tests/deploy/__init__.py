"""What is tried on a running stack with the tools that operators use."""
