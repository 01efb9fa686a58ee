"""What happens in the accounts, as their own trail tells it: a queue is read, and what others wrote is journaled."""
