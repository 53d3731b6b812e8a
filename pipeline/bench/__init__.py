"""What a message costs: the service beside its peers on the same stream, each in a process of its own."""
