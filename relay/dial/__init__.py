"""From a route to a stream: what carries each leg, and one file for each kind of leg."""
