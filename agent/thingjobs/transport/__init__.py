"""Ways to reach the Jobs service, all with the contract of `thingjobs.ports.Transport`."""
