"""The conversation with Terraform, OpenTofu or the embedded wheel: roots, plans, states. Knows nothing of jobs."""
