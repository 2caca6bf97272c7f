"""`estiba up`: the whole project as processes of this machine."""
