"""What is in files that others made: trees of pictures, pictures, arrays; read by stated rules."""
