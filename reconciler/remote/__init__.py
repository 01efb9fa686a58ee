"""What both planes share of AWS where a job is a task of its own: the spool in S3, and what ECS says of tasks."""
