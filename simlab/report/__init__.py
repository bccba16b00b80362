"""Results made readable: on the terminal, as Markdown and CSV, as one HTML file, as figures."""
