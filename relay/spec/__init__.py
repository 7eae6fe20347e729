"""What was asked for: the command line, the route, the proxy. Pure: no input or output, nothing is looked up."""
