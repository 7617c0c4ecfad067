"""Methods that choose the tokens themselves, depending on what the other samples of the group drew."""
