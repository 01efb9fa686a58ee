"""What a job may use of the world: credentials from where the host says, for one job, one environment, one operation."""
