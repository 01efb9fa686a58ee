"""What `reconciler doctor` looks at: each look asks what the planes themselves would ask, and changes nothing."""
