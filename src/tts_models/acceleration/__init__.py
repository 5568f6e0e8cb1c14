"""What makes the generation loops fast, shared by all models."""
