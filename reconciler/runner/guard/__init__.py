"""Who could write in an account: its identities and policies, read once and judged without asking anybody."""
