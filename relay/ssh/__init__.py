"""Everything that speaks SSH to a hop; nothing outside this room imports paramiko."""
