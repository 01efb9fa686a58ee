"""The store in a table of DynamoDB: the journal, snapshots of what it means, and the lease."""
