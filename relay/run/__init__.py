"""What every run has around it: its clock, the person, the programs that it starts, the watch over ssh's leaving."""
