"""Coverage-guided fuzzing: targets, the inputs that were found worth keeping, and what runs and thins them out."""
