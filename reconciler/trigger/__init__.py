"""A listener for CI servers: it wakes the controller and tells what came of it. No request carries content."""
