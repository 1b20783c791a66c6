"""Pages for a browser: what the text commands print, from the same documents. Nothing here can be changed."""
