"""What a forge says of pull requests, approvals and protection: plain REST, three kinds, one Protocol."""
