"""What ran: the profile, the functions that it names, and what is done with profiles."""
