"""One vhost-user session, the back end's side: a table of states, no I/O."""
