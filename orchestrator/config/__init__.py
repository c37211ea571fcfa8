"""What a campaign file may say: its models, and the search space that its distributions span."""
