"""What a person types. Commands return an ``Answer``; ``main.run`` alone prints it and ends the process."""
