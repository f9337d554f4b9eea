"""What an operator runs between deploys."""
