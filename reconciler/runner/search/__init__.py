"""Looking for what an apply whose end nobody saw may have made: in AWS, by the tags that every object of ours carries."""
