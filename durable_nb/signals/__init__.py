"""Values from outside: what is accepted, how it is delivered, who waits for it."""
