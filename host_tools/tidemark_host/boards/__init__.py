"""Boards to run the firmware on, behind one interface: `base.Board`."""
