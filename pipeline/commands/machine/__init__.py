"""What this machine has, and models that it fetches."""
