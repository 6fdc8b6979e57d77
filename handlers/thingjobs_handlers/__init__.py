"""The built-in handlers of thingjobs: found by entry point like anybody's, and made of the public handler API only."""
