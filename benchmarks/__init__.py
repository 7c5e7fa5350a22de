"""Speed against the floor and against peers, one command each."""
