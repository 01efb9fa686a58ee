"""The worked example, and a place to play with it: repositories, a cloud of files, and both planes on one machine."""
