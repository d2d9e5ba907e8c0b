"""All that both modes share, so that coordination style is the only variable."""
